"""From the catalogue to an engine: what the Celery host runs."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from pipemill.address import Address, address_of
from pipemill.catalogue import Catalogue, QueueSettings, SigningSettings, load_catalogue
from pipemill.errors import ConfigurationError
from pipemill.known import queue_info
from pipemill.protocol.names import KEYS_FILE_VARIABLE, KEYS_VARIABLE, REFERENCE_BYTES
from pipemill.signing import Keyring, Verifier, keyring_of
from pipemill.store.files import FileBlobs, files_of, tiered
from pipemill.store.jobs import RedisJobStore
from pipemill_worker.celery_host.tuning import Tuner
from pipemill_worker.engine import Engine, EngineSettings, Hooks, Lane
from pipemill_worker.fleet.cores import usable_cores
from pipemill_worker.fleet.link import processes
from pipemill_worker.measured import Measured, default_folder
from pipemill_worker.pipelines import load_runner
from pipemill_worker.pipelines.memory import Share, shares
from pipemill_worker.policy.calibration import Calibration
from pipemill_worker.policy.retries import RetryPolicy
from pipemill_worker.seams import PipelineRunner

log = logging.getLogger("pipemill.worker")


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

    @cached_property
    def address(self) -> Address:
        """Where the broker is, and how it is reached.

        Raises
        ------
        ConfigurationError
            When its password or its TLS options can't be right.

        """
        return address_of(self.catalogue.broker.reveal())

    @cached_property
    def files(self) -> FileBlobs | None:
        """Where large media lie besides the broker, if the catalogue names a place."""
        return files_of(self.catalogue.blobs)

    @cached_property
    def keyring(self) -> Keyring | None:
        """The keys that jobs are signed with: the environment's, else the catalogue's.

        Raises
        ------
        ConfigurationError
            When they can't be read.

        """
        settings = self.catalogue.signing
        file = settings.keys_file if settings else None
        return keyring_of(None) or (keyring_of(file) if file else None)

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
        bound = [(name, self.catalogue.queues[name]) for name in queues]
        shared = shares([queue for _, queue in bound], processes())
        lanes = [self._build_lane(name, queue, share) for (name, queue), share in zip(bound, shared, strict=True)]
        settings = EngineSettings(
            lease_seconds=worker.lease_seconds,
            drain_seconds=worker.drain_seconds,
            max_deliveries=worker.max_deliveries,
            preprocess_threads=worker.preprocess_threads,
            stuck_seconds=worker.stuck_seconds,
        )
        return Engine(lanes, settings, hooks, sweep=self.files.sweep_now if self.files else None)

    def _build_lane(self, name: str, queue: QueueSettings, share: Share) -> Lane:
        verifier = self._verifier(name, queue)
        store = RedisJobStore(
            self.address,
            name,
            lease_seconds=self.catalogue.worker.lease_seconds,
            result_ttl_seconds=queue.result_ttl_seconds,
            ageing_seconds=queue.priority_ageing_seconds or 0.0,
        )
        blobs = tiered(store.blobs, self.files, self.catalogue.blobs)
        log.info("queue %s: loading %s", name, queue.model or queue.task, extra={"event": "model_loading"})
        threads = self._threads()
        runner = load_runner(name, queue, threads=threads, references=blobs.get, measured=self._measured, share=share)
        runner.warm_up()
        tuning = self._tuner(name, queue, runner).tuning()
        device = str(runner.describe().get("device") or "cpu")
        log.info("queue %s: ready on %s", name, device, extra={"event": "model_ready", "queue": name})
        return Lane(
            queue_info(name, queue),
            store,
            runner,
            limits=tuning.limits,
            prefetch=queue.prefetch_jobs,
            adaptive=queue.prefetch is None,
            max_wait=queue.batch.max_wait_ms / 1e3,
            curve=tuning.curve,
            keep_ceiling=tuning.keep_ceiling,
            device=device,
            blobs=blobs,
            keep_above=self._keep_above,
            retry=retry_policy(queue),
            verifier=verifier,
        )

    def _verifier(self, name: str, queue: QueueSettings) -> Verifier | None:
        """What checks the signatures of a queue's jobs; None where nobody asks for it."""
        settings = self.catalogue.signing
        required = queue.signed if queue.signed is not None else settings is not None and settings.required
        if settings is None and not required:
            return None
        settings = settings or SigningSettings()
        if self.keyring is None:
            raise ConfigurationError(
                f"queue {name!r} asks for signed jobs, and there are no keys to check them with: "
                f"set signing.keys_file in the catalogue, {KEYS_FILE_VARIABLE} or {KEYS_VARIABLE}"
            )
        return Verifier(keyring=self.keyring, required=required, max_age_seconds=settings.max_age_seconds)

    def _tuner(self, name: str, queue: QueueSettings, runner: PipelineRunner) -> Tuner:
        identity: Mapping[str, Any] = {"task": queue.task}
        if queue.model is not None:
            from pipemill_worker.pipelines.identity import identity as identity_of  # noqa: PLC0415 - loads torch

            identity = identity_of(queue, str(runner.describe().get("device") or "cpu"), self._threads())
        return Tuner(name, queue, runner, self._measured, identity)

    def calibration(self, name: str) -> Calibration | None:
        """Measure a queue's model on this machine, whatever was measured before, and keep it for its workers.

        Raises
        ------
        ModelLoadError
            Names queue, model and cause.

        """
        queue = self.catalogue.queues[name]
        runner = load_runner(name, queue, threads=self._threads())
        runner.warm_up()
        return self._tuner(name, queue, runner).calibration(again=True)

    @cached_property
    def _measured(self) -> Measured:
        folder = self.catalogue.worker.cache_dir
        return Measured(Path(folder) if folder else default_folder())

    def _threads(self) -> int:
        return self.catalogue.worker.torch_threads or usable_cores()


def retry_policy(queue: QueueSettings) -> RetryPolicy:
    """When a queue of the catalogue tries again."""
    retry = queue.retry
    return RetryPolicy(
        max_attempts=retry.max_attempts,
        backoff_seconds=retry.backoff_seconds,
        max_backoff_seconds=retry.max_backoff_seconds,
        jitter=retry.jitter,
        any_failure=retry.errors == "any",
    )
