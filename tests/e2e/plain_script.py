"""A web backend that knows Celery and never heard of pipemill: run as a script, it writes what it saw as JSON.

Its argument is the file for that, ``PLAIN_BROKER`` names the broker. It tells whether pipemill was imported, too.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from celery import Celery, chain, chord, group, signature
from celery.exceptions import TaskRevokedError
from celery.result import AsyncResult

TEXT = "river stone cloud winter"
PATIENCE = 60

app = Celery("backend", broker=os.environ["PLAIN_BROKER"], backend=os.environ["PLAIN_BROKER"])


def infer(*inputs: Any, queue: str = "echo", **parameters: Any) -> Any:
    """A job as a signature: inputs, and parameters by keyword."""
    return signature("pipemill.infer", args=inputs, kwargs=parameters, queue=queue, app=app)


def answer(result: Any) -> Any:
    """What the job, the group or the body was answered."""
    return result.get(timeout=PATIENCE)


def failure(result: Any) -> dict[str, str]:
    """The error that looking at a result raises, by its class name and its text."""
    try:
        result.get(timeout=PATIENCE)
    except Exception as error:  # noqa: BLE001  # which one it is, is what is asked
        return {"type": type(error).__name__, "text": str(error)}
    return {"type": "none", "text": "it succeeded"}


@contextmanager
def paused(queue: str) -> Iterator[None]:
    """The queue's worker takes nothing meanwhile."""
    taking = app.control.inspect(timeout=10, limit=2).active_queues()
    (node,) = [node for node, queues in taking.items() if queue in {each["name"] for each in queues}]
    said = app.control.cancel_consumer(queue, destination=[node], reply=True, timeout=10, limit=1)
    assert "ok" in said[0][node]
    time.sleep(0.5)  # a wait that began before may still bring in one job; it lasts a tenth of a second
    yield
    assert app.control.add_consumer(queue, destination=[node], reply=True, timeout=10, limit=1)


def one() -> Any:
    """A single job."""
    return answer(app.send_task("pipemill.infer", args=[TEXT], kwargs={"top_k": 2}, queue="text-classification"))


def failing() -> Any:
    """A job whose inputs are wrong."""
    return failure(app.send_task("pipemill.infer", args=[17], queue="text-classification"))


def in_group() -> Any:
    """Twenty jobs at once."""
    return answer(group(infer(f"text {n}") for n in range(20)).apply_async())


def in_chain() -> Any:
    """A job, and one that gets its answer."""
    last = chain(infer(TEXT, queue="text-classification"), infer()).apply_async()
    return {"last": answer(last), "first": answer(last.parent)}


def through_an_ordinary_task() -> Any:
    """A chain of a job, a stock worker's task, and a job."""
    ordinary = signature("plain.shout", queue="plain", app=app)
    return answer(chain(infer("river"), ordinary, infer()).apply_async())


def broken_chain() -> Any:
    """A chain whose first member fails."""
    last = chain(infer(17, queue="text-classification"), infer(), infer()).apply_async()
    return [failure(AsyncResult(member.id, app=app)) for member in (last.parent.parent, last.parent, last)]


def in_chord() -> Any:
    """Five jobs, and one that gets all their answers."""
    return answer(chord([infer(f"part {n}") for n in range(5)])(infer()))


def broken_chord() -> Any:
    """A chord of which one member fails."""
    body = chord([infer("good"), infer(17, queue="text-classification"), infer("too")])(infer())
    return failure(AsyncResult(body.id, app=app))


def linked() -> Any:
    """A job with another linked to its success."""
    after = infer().set(task_id="linked-job")
    infer("river").apply_async(link=after)
    return answer(AsyncResult("linked-job", app=app))


def linked_error() -> Any:
    """A failing job with another linked to its failure."""
    after = infer().set(task_id="errback-job")
    failed = infer(17, queue="text-classification").apply_async(link_error=after)
    return answer(AsyncResult("errback-job", app=app)) == failed.id


def expired() -> Any:
    """Two jobs that wait a second, of which one may wait half of it."""
    with paused("single"):
        late = infer("late", queue="single").apply_async(expires=0.5)
        timely = infer("timely", queue="single").apply_async(expires=600)
        time.sleep(1)
    try:
        answer(late)
    except TaskRevokedError as error:
        return {"type": "TaskRevokedError", "text": str(error), "timely": answer(timely)}
    return {"type": "none"}


def counted_down() -> Any:
    """A job that may not start at once."""
    before = time.time()
    later = infer("later").apply_async(countdown=1.5)
    return {"answer": answer(later), "seconds": later.date_done.timestamp() - before}


def by_priority() -> Any:
    """Jobs sent least urgent first, in the order in which they ended."""
    with paused("single"):
        jobs = {priority: infer(priority, queue="single").apply_async(priority=priority) for priority in (9, 6, 3, 0)}
    for result in jobs.values():
        answer(result)
    return sorted(jobs, key=lambda priority: jobs[priority].date_done)


def ignored() -> Any:
    """A job without a result, and one behind it."""
    unheard = infer("unheard", queue="single").apply_async(ignore_result=True)
    heard = infer("heard", queue="single").apply_async()
    return {"heard": answer(heard), "unheard": app.AsyncResult(unheard.id).state}


STORY: tuple[Callable[[], Any], ...] = (
    one,
    failing,
    in_group,
    in_chain,
    through_an_ordinary_task,
    broken_chain,
    in_chord,
    broken_chord,
    linked,
    linked_error,
    expired,
    counted_down,
    by_priority,
    ignored,
)

if __name__ == "__main__":
    seen = {part.__name__: part() for part in STORY}
    seen |= {"text": TEXT, "pipemill_imported": "pipemill" in sys.modules}
    Path(sys.argv[1]).write_text(json.dumps(seen), encoding="utf-8")
