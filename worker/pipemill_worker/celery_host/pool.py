"""The worker's pool: the engine has threads of its own; ordinary Celery tasks get one more."""

from __future__ import annotations

from typing import Any

from celery.concurrency.thread import TaskPool

from pipemill_worker.engine import Engine


class EnginePool(TaskPool):
    """A thread pool of one for ordinary tasks, which also tells what the lanes do."""

    #: Set by the bootstep once the engine is there.
    engine: Engine | None = None

    def _get_info(self) -> dict[str, Any]:
        """What ``inspect stats`` shows of the pool."""
        info: dict[str, Any] = dict(super()._get_info())
        info["lanes"] = self.engine.facts() if self.engine else {}
        return info
