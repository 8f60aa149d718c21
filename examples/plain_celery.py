"""Any Celery client can enqueue, poll and compose: this one never imports pipemill.

PIPEMILL_BROKER=redis://localhost:6379/0 python examples/plain_celery.py
"""

from __future__ import annotations

import os
from typing import Any

from celery import Celery, chord, group, signature

broker = os.environ.get("PIPEMILL_BROKER", "redis://localhost:6379/0")
app = Celery("backend", broker=broker, backend=broker)


def infer(*inputs: Any, queue: str, **parameters: Any) -> Any:
    """A job as a Celery signature: one positional argument, and parameters by keyword."""
    return signature("pipemill.infer", args=inputs, kwargs=parameters, queue=queue, app=app)


def main() -> None:
    """Send one job, several at once, and several with something after them."""
    job = app.send_task("pipemill.infer", args=["A warm, funny film."], kwargs={"top_k": 2}, queue="sentiment")
    print(job.id, job.get(timeout=60))

    reviews = ["Loved it.", "A waste of two hours.", "The sound was fine, the rest was not."]
    print(group(infer(text, queue="sentiment") for text in reviews).apply_async().get(timeout=60))

    prompts = [infer(prompt, queue="generator", max_new_tokens=12) for prompt in ("The plot", "The cast")]
    print(chord(prompts)(infer("A good end.", queue="sentiment").set(immutable=True)).get(timeout=60))


if __name__ == "__main__":
    main()
