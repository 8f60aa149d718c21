"""celery-batches: a task that gets the requests of a batch, and marks each as done."""

from __future__ import annotations

from typing import Any

from celery_batches import Batches

from benchmarks.rivals.servers.celery_app import SETTINGS, app
from benchmarks.rivals.servers.model import load

_answer = load(SETTINGS)


@app.task(base=Batches, flush_every=SETTINGS.size, flush_interval=SETTINGS.wait, name="pipemill.infer")
def infer(requests: list[Any]) -> None:
    """Answer the texts of several jobs."""
    answers = _answer([request.args[0] for request in requests])
    for request, answer in zip(requests, answers, strict=True):
        app.backend.mark_as_done(request.id, [answer], request=request)
