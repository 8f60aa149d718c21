"""From the catalogue to an engine: what the Celery host runs."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Final

from pipemill.catalogue import Catalogue, QueueSettings, load_catalogue
from pipemill.known import queue_info
from pipemill.protocol.names import REFERENCE_BYTES
from pipemill.store.files import FileBlobs, files_of, tiered
from pipemill.store.jobs import RedisJobStore
from pipemill_worker.engine import Engine, EngineSettings, Hooks, Lane
from pipemill_worker.pipelines import load_runner
from pipemill_worker.policy.batching import BatchLimits

log = logging.getLogger("pipemill.worker")

#: Padded tokens of one forward pass on a CPU: the knee of the measured curve (512 to 1024, MiniLM, one thread).
CPU_MAX_COST: Final = 1024
#: Tokens of one forward pass on a CPU without padding: the knee (MiniLM, one thread: 78, 84, 78, 68 texts a second at
#: 256, 512, 1024, 2048).
CPU_PACKED_COST: Final = 512
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

    @cached_property
    def files(self) -> FileBlobs | None:
        """Where large media lie besides the broker, if the catalogue names a place."""
        return files_of(self.catalogue.blobs)

    @property
    def _keep_above(self) -> int:
        """Contents of an answer with more bytes are put aside: what is large for the broker, or for its own place."""
        settings = self.catalogue.blobs
        return REFERENCE_BYTES if settings is None else min(REFERENCE_BYTES, settings.min_bytes - 1)

    def build_engine(self, queues: Sequence[str], hooks: Hooks) -> Engine:
        """Load the queues' models, warm them up, and put the engine together; nothing is taken yet.

        Raises
        ------
        ModelLoadError
            Names queue, model and cause.
        ConfigurationError
            When the place of large media can't be used.

        """
        if queues and self.files is not None:
            self.files.check()
        worker = self.catalogue.worker
        lanes = [self._build_lane(name, self.catalogue.queues[name]) for name in queues]
        settings = EngineSettings(
            lease_seconds=worker.lease_seconds,
            drain_seconds=worker.drain_seconds,
            max_deliveries=worker.max_deliveries,
            preprocess_threads=worker.preprocess_threads,
        )
        return Engine(lanes, settings, hooks, sweep=self.files.sweep_now if self.files else None)

    def _build_lane(self, name: str, queue: QueueSettings) -> Lane:
        store = RedisJobStore(
            self.broker,
            name,
            lease_seconds=self.catalogue.worker.lease_seconds,
            result_ttl_seconds=queue.result_ttl_seconds,
        )
        blobs = tiered(store.blobs, self.files, self.catalogue.blobs)
        log.info("queue %s: loading %s", name, queue.model or queue.task, extra={"event": "model_loading"})
        runner = load_runner(name, queue, threads=self._threads(), references=blobs.get)
        runner.warm_up()
        facts = runner.describe()
        device = str(facts.get("device") or "cpu")
        log.info("queue %s: ready on %s", name, device, extra={"event": "model_ready", "queue": name})
        return Lane(
            queue_info(name, queue),
            store,
            runner,
            limits=batch_limits(queue, device, packed=facts.get("sharing") == "packed"),
            prefetch=queue.prefetch_jobs,
            device=device,
            blobs=blobs,
            keep_above=self._keep_above,
        )

    def _threads(self) -> int:
        return self.catalogue.worker.torch_threads or len(os.sched_getaffinity(0))


def batch_limits(queue: QueueSettings, device: str, *, packed: bool = False) -> BatchLimits:
    """Bounds of a forward pass; the token budget is chosen by device unless the catalogue gives one."""
    on_cpu = CPU_PACKED_COST if packed else CPU_MAX_COST
    chosen = on_cpu if device.startswith("cpu") else ACCELERATOR_MAX_COST
    return BatchLimits(
        max_items=queue.batch.max_items,
        max_cost=queue.batch.max_tokens or chosen,
        max_amplification=queue.batch.max_amplification,
        packed=packed,
    )
