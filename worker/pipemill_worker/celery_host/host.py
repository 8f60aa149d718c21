"""From the catalogue to an engine: what the Celery host runs."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Final

from pipemill.catalogue import Catalogue, QueueSettings, load_catalogue
from pipemill.known import queue_info
from pipemill.store.jobs import RedisJobStore
from pipemill_worker.engine import Engine, EngineSettings, Hooks, Lane
from pipemill_worker.pipelines import load_runner
from pipemill_worker.policy.batching import BatchLimits

log = logging.getLogger("pipemill.worker")

#: Padded tokens of one forward pass on a CPU: the knee of the measured curve (512 to 1024, MiniLM, one thread).
CPU_MAX_COST: Final = 1024
#: Padded tokens of one forward pass on an accelerator, which needs many rows to be busy.
ACCELERATOR_MAX_COST: Final = 16_384


class Host:
    """Reads the catalogue when it is first needed, and builds engines from it."""

    def __init__(self, catalogue_path: str | None = None, overrides: Mapping[str, Any] | None = None):
        self._path = catalogue_path
        self._overrides = overrides

    @cached_property
    def catalogue(self) -> Catalogue:
        """The catalogue, with the environment and the command's options applied.

        Raises
        ------
        CatalogueError
            With every mistake.

        """
        return load_catalogue(self._path, overrides=self._overrides)

    @property
    def broker(self) -> str:
        """The broker's whole URL."""
        return self.catalogue.broker.reveal()

    def build_engine(self, queues: Sequence[str], hooks: Hooks) -> Engine:
        """Load the queues' models, warm them up, and put the engine together; nothing is taken yet.

        Raises
        ------
        ModelLoadError
            Names queue, model and cause.

        """
        worker = self.catalogue.worker
        lanes = [self._build_lane(name, self.catalogue.queues[name]) for name in queues]
        settings = EngineSettings(
            lease_seconds=worker.lease_seconds,
            drain_seconds=worker.drain_seconds,
            max_deliveries=worker.max_deliveries,
            preprocess_threads=worker.preprocess_threads,
        )
        return Engine(lanes, settings, hooks)

    def _build_lane(self, name: str, queue: QueueSettings) -> Lane:
        log.info("queue %s: loading %s", name, queue.model or queue.task, extra={"event": "model_loading"})
        runner = load_runner(name, queue, threads=self._threads())
        runner.warm_up()
        facts = runner.describe()
        device = str(facts.get("device") or "cpu")
        log.info("queue %s: ready on %s", name, device, extra={"event": "model_ready", "queue": name})
        store = RedisJobStore(
            self.broker,
            name,
            lease_seconds=self.catalogue.worker.lease_seconds,
            result_ttl_seconds=queue.result_ttl_seconds,
        )
        return Lane(
            queue_info(name, queue),
            store,
            runner,
            limits=batch_limits(queue, device),
            prefetch=queue.prefetch_jobs,
            device=device,
        )

    def _threads(self) -> int:
        return self.catalogue.worker.torch_threads or len(os.sched_getaffinity(0))


def batch_limits(queue: QueueSettings, device: str) -> BatchLimits:
    """Bounds of a forward pass; the token budget is chosen by device unless the catalogue gives one."""
    chosen = CPU_MAX_COST if device.startswith("cpu") else ACCELERATOR_MAX_COST
    return BatchLimits(
        max_items=queue.batch.max_items,
        max_cost=queue.batch.max_tokens or chosen,
        max_amplification=queue.batch.max_amplification,
    )
