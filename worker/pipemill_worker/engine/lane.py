"""One queue inside one worker: its pipeline, its pool of waiting items, its limits."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

from pipemill.protocol.names import REFERENCE_BYTES
from pipemill.store.base import BlobStore, JobStore, QueueInfo
from pipemill_worker.engine.work import Entry, Work
from pipemill_worker.policy.batching import BatchLimits, compose
from pipemill_worker.seams import PipelineRunner

log = logging.getLogger("pipemill.engine")

#: Ids of cancelled jobs kept, so that a flood of cancels can't grow a worker.
CANCELLED_KEPT: Final = 100_000
#: Weight of the last second in the rate of jobs ended.
RATE_WEIGHT: Final = 0.3


class Lane:
    """Shared by the engine's threads; ``changed`` guards all of it."""

    def __init__(  # noqa: PLR0913  # each is a part of the lane
        self,
        info: QueueInfo,
        store: JobStore,
        runner: PipelineRunner,
        *,
        limits: BatchLimits,
        prefetch: int,
        device: str,
        blobs: BlobStore | None = None,
        keep_above: int = REFERENCE_BYTES,
    ):
        self.info = info
        self.store = store
        self.runner = runner
        #: Where large parts of answers go.
        self.blobs = store.blobs if blobs is None else blobs
        #: Contents of an answer with more bytes than this are put there.
        self.keep_above = keep_above
        self.limits = limits
        #: Jobs leased at a time: what runs, what is ready, and what is being prepared.
        self.prefetch = prefetch
        #: Lanes of one device share its forward thread.
        self.device = device
        self.changed = threading.Condition()
        self.paused = False
        self.held: dict[str, Work] = {}
        self.pool: list[Entry] = []
        self.running: list[Entry] = []
        self.cancelled: dict[str, None] = {}
        self.batch_sizes: Counter[int] = Counter()
        self.forward_seconds = 0.0
        self.ended_jobs = 0
        self.rate = 0.0
        self._rated = (time.monotonic(), 0)
        self._clock_offset = time.time() - time.monotonic()

    @property
    def name(self) -> str:
        """The queue's name."""
        return self.info.name

    # -- the server's clock

    def set_clock(self, now: float) -> None:
        """Note the server's time, so that deadlines are told by one clock."""
        self._clock_offset = now - time.monotonic()

    def now(self) -> float:
        """The server's time, in seconds since the epoch."""
        return self._clock_offset + time.monotonic()

    # -- jobs in hand

    def room(self) -> int:
        """How many more jobs may be leased."""
        with self.changed:
            return 0 if self.paused else max(self.prefetch - len(self.held), 0)

    @property
    def holds_suspect(self) -> bool:
        """Whether a job is held that was delivered before."""
        with self.changed:
            return any(work.alone for work in self.held.values())

    def wait_for_room(self, least: int, timeout: float) -> bool:
        """Wait until ``least`` more jobs may be leased."""
        with self.changed:
            return self.changed.wait_for(lambda: self.room() >= least, timeout)

    def hold(self, works: Iterable[Work]) -> None:
        """Take jobs in hand."""
        with self.changed:
            self.held.update((work.field, work) for work in works)

    def let_go(self, works: Sequence[Work]) -> None:
        """Jobs are out of our hands."""
        with self.changed:
            for work in works:
                self.held.pop(work.field, None)
                self.cancelled.pop(work.job.id, None)
            self.ended_jobs += len(works)
            self.changed.notify_all()

    def lose(self, works: Sequence[Work]) -> None:
        """Forget jobs: the lease under which they were taken ran out, and they are others' now."""
        with self.changed:
            lost = [work for work in works if self.held.get(work.field) is work]
            for work in lost:
                work.ended = True
                del self.held[work.field]
            self.pool = [entry for entry in self.pool if not entry.work.ended]
            self.changed.notify_all()
        if lost:
            text = "queue %s: the lease ran out; %d jobs are others' now"
            log.warning(text, self.name, len(lost), extra={"event": "lease_lost"})

    def note_cancelled(self, job_ids: Iterable[str]) -> None:
        """Jobs that are cancelled will be dropped when a batch is composed."""
        with self.changed:
            self.cancelled.update(dict.fromkeys(job_ids))
            while len(self.cancelled) > CANCELLED_KEPT:
                del self.cancelled[next(iter(self.cancelled))]

    # -- items

    def add(self, entries: Iterable[Entry]) -> None:
        """Put items into the pool."""
        with self.changed:
            self.pool.extend(entries)

    def next_batch(self) -> list[Entry]:
        """Compose the next batch from the pool and take it out; empty when nothing waits."""
        with self.changed:
            if any(entry.work.ended for entry in self.pool):
                self.pool = [entry for entry in self.pool if not entry.work.ended]
            chosen = compose(self.pool, self.limits)
            batch = [self.pool[index] for index in chosen]
            taken = set(chosen)
            self.pool = [entry for index, entry in enumerate(self.pool) if index not in taken]
            return batch

    def lower_ceiling(self, items: int) -> None:
        """After the device ran out of memory: never again more than this many items."""
        with self.changed:
            self.limits = replace(self.limits, max_items=max(1, min(self.limits.max_items, items)))

    # -- facts

    def note_forward(self, items: int, seconds: float) -> None:
        """Count a forward pass."""
        with self.changed:
            self.batch_sizes[items] += 1
            self.forward_seconds += seconds

    def update_rate(self) -> None:
        """Follow the rate of jobs ended; called about once a second."""
        with self.changed:
            since, before = self._rated
            now = time.monotonic()
            current = (self.ended_jobs - before) / max(now - since, 1e-3)
            self.rate += RATE_WEIGHT * (current - self.rate)
            self._rated = (now, self.ended_jobs)

    def facts(self) -> dict[str, Any]:
        """What people and producers are told of this lane."""
        with self.changed:
            return {
                "owner": self.store.owner,
                "paused": self.paused,
                "held": len(self.held),
                "running": len(self.running),
                "ended": self.ended_jobs,
                "rate": round(self.rate, 3),
                "max_items": self.limits.max_items,
                "max_cost": self.limits.max_cost,
                "batch_sizes": {str(size): count for size, count in sorted(self.batch_sizes.items())},
                "forward_seconds": round(self.forward_seconds, 6),
                **self.runner.describe(),
            }
