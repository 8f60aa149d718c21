"""Stock Celery: a task that calls the pipeline, one call per job."""

from __future__ import annotations

from typing import Any

from benchmarks.rivals.servers.celery_app import SETTINGS, app
from benchmarks.rivals.servers.model import load

_answer = load(SETTINGS)


@app.task(name="pipemill.infer")
def infer(inputs: str) -> list[dict[str, Any]]:
    """Answer one text."""
    return _answer([inputs])
