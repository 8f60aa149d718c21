"""The rival that everybody has: a stock Celery worker with a task that does nothing.

It answers to pipemill's task name, so that both workers eat the very same messages.
"""

import os

from celery import Celery

app = Celery("stock", broker=os.environ["BENCH_BROKER"], backend=os.environ["BENCH_BROKER"])
app.conf.update(
    task_serializer="json",
    result_serializer="json",
    accept_content=["json"],
    task_acks_late=True,
    worker_prefetch_multiplier=256,
    task_default_queue="stock",
    broker_connection_retry_on_startup=True,
)


def infer(inputs: str) -> str:
    """Do nothing."""
    return inputs


app.task(infer, name="pipemill.infer")
