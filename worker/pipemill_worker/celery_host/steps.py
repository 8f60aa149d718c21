"""The bootstep that owns the engine's life inside a Celery worker."""

from __future__ import annotations

import atexit
import logging
from typing import Any, ClassVar, Final, NoReturn

from celery import bootsteps, signals
from celery.apps.worker import Worker
from celery.worker import state

from pipemill.errors import ConfigurationError
from pipemill.health import Health
from pipemill_worker.celery_host.exits import ExitCode, leave
from pipemill_worker.celery_host.hooks import CeleryHooks
from pipemill_worker.celery_host.host import Host
from pipemill_worker.celery_host.pool import EnginePool
from pipemill_worker.engine import Engine
from pipemill_worker.engine.health import STARTING
from pipemill_worker.health import Reporter, report_health

log = logging.getLogger("pipemill.worker")

#: The pool that lanes need, as Celery's setting names it.
POOL: Final = "pipemill_worker.celery_host.pool:EnginePool"


class Lanes(bootsteps.StartStopStep):
    """Loads models before the worker is ready, runs the lanes, and drains them while the broker is connected.

    The lanes' queues are taken out of Celery's hands before it consumes anything: stock consuming loses jobs when a
    worker is killed.
    """

    requires: ClassVar[set[str]] = {"celery.worker.components:Pool"}
    host: ClassVar[Host]

    def __init__(self, worker: Worker, **options: Any):
        super().__init__(worker, **options)
        self.engine: Engine | None = None
        self._reporter: Reporter | None = None
        queues = worker.app.amqp.queues
        self.names = [name for name in list(queues.consume_from) if name in self.host.catalogue.queues]
        queues.deselect(self.names)
        worker.pipemill = self
        if self.names and not (isinstance(worker.pool_cls, type) and issubclass(worker.pool_cls, EnginePool)):
            _give_up(
                f"queues {', '.join(self.names)} can't be served by the pool {worker.pool_cls!r}: a model and its GPU "
                "belong to one process and its threads, and a forked child can't use CUDA; leave -P out (your own "
                f"application sets worker_pool = {POOL!r}), and start one worker per GPU"
            )

    def start(self, worker: Worker) -> None:
        """Load, warm up, and begin to take jobs."""
        self._hint()
        try:
            self._reporter = report_health(self.host.catalogue.worker, self._health)
            hooks = CeleryHooks(worker.app, self.host.catalogue.worker.drain_seconds, self.host.keyring)
            engine = self.host.build_engine(self.names, hooks)
        except ConfigurationError as error:
            _give_up(str(error))
        self.engine = worker.pool.engine = engine
        signals.worker_shutting_down.connect(self._hurry)
        if self.names:
            state.maybe_shutdown()  # asked to stop while loading: take nothing
            engine.start()
            log.info("serving %s", ", ".join(self.names), extra={"event": "lanes_started"})

    def _hint(self) -> None:
        asked = self.host.catalogue.worker.processes
        if asked != 1:
            text = (
                "worker.processes is %s, but this command runs one process; `pipemill worker` runs as many as it says"
            )
            log.warning(text, asked, extra={"event": "processes_ignored"})

    def _health(self) -> Health:
        """How this worker is; before there is an engine, its models are on their way."""
        if not self.names:
            return Health(live=True, ready=True)  # it has no lanes: Celery's own queues are Celery's to tell of
        return STARTING if self.engine is None else self.engine.health()

    def _hurry(self, how: str = "", **_: Any) -> None:
        """Stop waiting in a drain that runs already: the second Ctrl-C, or SIGQUIT after SIGTERM."""
        if how == "Cold" and self.engine is not None:
            self.engine.hurry()

    def stop(self, worker: Worker) -> None:  # noqa: ARG002  # Celery's signature
        """Finish what runs, within the bound; give back the rest."""
        if self.engine is not None:
            self._leave_if_stuck(self.engine)
            released = self.engine.drain()
            log.info("lanes stopped; %d jobs given back", released, extra={"event": "lanes_stopped"})

    def terminate(self, worker: Worker) -> None:  # noqa: ARG002  # Celery's signature
        """Give everything back now."""
        if self.engine is not None:
            self._leave_if_stuck(self.engine)
            self.engine.drain(0.0)

    def _leave_if_stuck(self, engine: Engine) -> None:
        """The process is to end as soon as Celery has: a thread that doesn't come back can't be waited for."""
        if engine.stuck:
            atexit.register(leave, ExitCode.ENGINE_DIED)
            if self._reporter is not None:
                atexit.register(self._reporter.close)  # once more: what is registered last is called first


def _give_up(reason: str) -> NoReturn:
    log.critical("%s", reason, extra={"event": "worker_refused"})
    raise SystemExit(int(ExitCode.CONFIGURATION))
