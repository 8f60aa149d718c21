"""The Celery app of stock Celery and of celery-batches: JSON, acknowledged late, results in the broker."""

from __future__ import annotations

from celery import Celery

from benchmarks.rivals.servers.settings import Settings

SETTINGS = Settings.from_environment()
app = Celery("rival", broker=SETTINGS.broker, backend=SETTINGS.broker)
app.conf.update(
    task_acks_late=True,
    task_default_queue=SETTINGS.queue,
    # Nothing is ever held back: celery-batches must get a full batch, and one call a job is fastest with some in hand.
    worker_prefetch_multiplier=4 * SETTINGS.size,
    broker_connection_retry_on_startup=True,
)
