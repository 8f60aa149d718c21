"""What Celery adds to the engine: revokes, canvas, and the end of the process when the engine fails."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from typing import Any, Final

from celery import Celery
from celery.worker import state
from kombu.asynchronous import get_event_loop

from pipemill.errors import JobError
from pipemill.protocol import Job
from pipemill.signing import Keyring
from pipemill_worker.celery_host.canvas import Canvas
from pipemill_worker.celery_host.exits import ExitCode
from pipemill_worker.engine import Hooks

log = logging.getLogger("pipemill.worker")

#: How much longer than its drain a failed worker may take to end before it is ended, in seconds.
GRACE_SECONDS: Final = 15.0


class CeleryHooks(Hooks):
    """The engine's questions, answered by Celery."""

    def __init__(self, app: Celery, drain_seconds: float, keyring: Keyring | None = None):
        self._canvas = Canvas(app, keyring)
        self._drain_seconds = drain_seconds

    def is_revoked(self, job_id: str) -> bool:
        """Whether ``revoke`` was heard for the job."""
        return job_id in state.revoked

    def before_end(self, job: Job, value: Any, error: JobError | None) -> Sequence[tuple[str, bytes]]:
        """What Celery's canvas says follows the job."""
        return self._canvas.follow(job, value, error)

    def on_failure(self, error: BaseException) -> None:
        """End the process: Celery's main loop first, by force if that takes too long."""
        log.critical("the engine failed (%s); this worker ends", error, extra={"event": "engine_failed"})
        timer = threading.Timer(self._drain_seconds + GRACE_SECONDS, os._exit, (ExitCode.ENGINE_DIED,))
        timer.daemon = True
        timer.start()
        state.should_stop = int(ExitCode.ENGINE_DIED)
        hub = get_event_loop()
        if hub is not None:
            hub.call_soon(lambda: None)  # wakes it
