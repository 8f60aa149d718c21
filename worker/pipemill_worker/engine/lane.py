"""One queue inside one worker: its pipeline, its pool of waiting items, its limits."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any, Final

from pipemill.errors import JobCancelled, JobExpired
from pipemill.protocol import Outcome
from pipemill.protocol.names import REFERENCE_BYTES
from pipemill.signing import Verifier
from pipemill.store.base import BlobStore, JobStore, QueueInfo
from pipemill_worker.engine.gauges import Gauges
from pipemill_worker.engine.held import Held
from pipemill_worker.engine.line import Line
from pipemill_worker.engine.overload import Overload
from pipemill_worker.engine.streams import Streams
from pipemill_worker.engine.tenants import Tenants, light_pass
from pipemill_worker.engine.work import End, Entry, Work
from pipemill_worker.policy.batching import BatchLimits, compose, padded_cost
from pipemill_worker.policy.curve import CostModel, Curve
from pipemill_worker.policy.lookahead import jobs_ahead
from pipemill_worker.policy.retries import NEVER, RetryPolicy
from pipemill_worker.policy.turns import shared_seconds
from pipemill_worker.policy.waiting import Arrivals, wait_seconds
from pipemill_worker.seams import JOINS, PipelineRunner

log = logging.getLogger("pipemill.engine")

#: Ids of cancelled jobs kept, so that a flood of cancels can't grow a worker.
CANCELLED_KEPT: Final = 100_000
#: Jobs leased beyond the window while tenants share a lane, each the only one of its tenant's that waits.
LISTENED: Final = 4
#: How much longer than predicted an answer may take before its job is late: where some give way, others are in time.
LATE_MARGIN: Final = 2.0


class Lane:
    """Shared by the engine's threads; ``changed`` guards all of it."""

    #: Lanes of one device share its forward thread.
    device: str
    #: Where large parts of answers go: contents with more bytes than ``keep_above``.
    blobs: BlobStore
    #: Whether and when a job is tried again.
    retry: RetryPolicy
    #: Checks signatures of jobs; ``None`` where nobody asks for it.
    verifier: Verifier | None
    #: Most jobs leased at a time: what runs, what is ready, and what is being prepared; fewer if ``adaptive``, where
    #: fewer keep the device busy.
    prefetch: int
    #: Longest wait of a ready item for others while the device is free, in seconds.
    _max_wait: float
    #: Ready items; the first is the next, among equals in urgency.
    pool: list[Entry]
    #: Jobs that will hardly be answered in time: not prepared as long as the device has others.
    aside: list[Work]
    #: Jobs that were taken and aren't prepared yet.
    preparing: int

    def __init__(  # noqa: PLR0913  # each is a part of the lane
        self,
        info: QueueInfo,
        store: JobStore,
        runner: PipelineRunner,
        *,
        limits: BatchLimits,
        prefetch: int,
        device: str,
        adaptive: bool = False,
        max_wait: float = 0.0,
        curve: Curve = (),
        keep_ceiling: Callable[[int], None] = lambda _: None,
        blobs: BlobStore | None = None,
        keep_above: int = REFERENCE_BYTES,
        retry: RetryPolicy = NEVER,
        verifier: Verifier | None = None,
    ):
        self.info, self.store, self.runner, self.device = info, store, runner, device
        self.blobs = store.blobs if blobs is None else blobs
        self.keep_above, self.retry = keep_above, retry
        self.limits, self.prefetch = limits, prefetch
        self._adaptive, self._max_wait = adaptive, max_wait
        self.verifier, self._keep_ceiling = verifier, keep_ceiling
        self.changed = threading.Condition()
        self.paused, self.preparing = False, 0
        self.held = Held(info.max_input_bytes)
        self.pool: list[Entry] = []
        self.running: list[Entry] = []
        self.aside: list[Work] = []
        self.cancelled: dict[str, None] = {}
        self.to_prepare = Line()
        self.to_end: queue.SimpleQueue[list[End] | None] = queue.SimpleQueue()
        self.streams = Streams()
        self.gauges = Gauges()
        self.model, self._overload = CostModel(curve), Overload()
        self._tenants = Tenants(fair=info.fair)
        self._arrivals = Arrivals()
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

    def window(self) -> int:
        """How many jobs may be leased at a time, at this moment."""
        if not self._adaptive:
            return self.prefetch
        gauges, limits = self.gauges, self._short() if self.shared else self.limits
        items = min(limits.max_items, max(limits.max_cost / gauges.item_cost, 1))
        jobs = max(items / gauges.items_per_job, 1)
        return jobs_ahead(jobs, gauges.rate, self.prefetch, any_fit=limits.packed, shared=self.shared)

    def room(self) -> int:
        """How many more jobs may be leased."""
        with self.changed:
            return 0 if self.paused else max(self._free(), 0)

    def _free(self) -> int:
        """Places for jobs that are free; below 0 if more are held than there are places for."""
        if not self.held.bytes_left:
            return 0
        useless = len(self.aside) + self._overload.gave_way
        most = self.prefetch - LISTENED * (self.shared and self.prefetch > 2 * LISTENED)
        return min(self.window() + useless, most) - len(self.held)

    @property
    def shared(self) -> bool:
        """Whether light tenants come beside heavy ones."""
        return self._tenants.uneven(time.monotonic())

    @property
    def listens(self) -> bool:
        """Whether to wait for a job without room: that of a tenant who has no other waiting.

        Not among jobs of the tenant without a name: all of these wait where it would come.
        """
        with self.changed:
            full = len(self.held) >= self.prefetch or self._free() <= -LISTENED or not self.held.bytes_left
            if self.paused or not self.shared or full:
                return False
            return all(work.tenant for work in self.held.values())

    @property
    def holds_suspect(self) -> bool:
        """Whether a job is held that was delivered before."""
        with self.changed:
            return any(work.alone for work in self.held.values())

    def wait_for_room(self, timeout: float) -> bool:
        """Wait until a good part of the window is free, so that a lease takes many."""
        with self.changed:
            return self.changed.wait_for(lambda: self.room() >= max(self.window() // 4, 1), timeout)

    def hold(self, works: Iterable[Work]) -> None:
        """Take jobs in hand."""
        with self.changed:
            self.held.add(works)

    def let_go(self, works: Sequence[Work]) -> None:
        """Jobs are out of our hands."""
        with self.changed:
            for work in works:
                self.held.drop(work)
                self.cancelled.pop(work.job.id, None)
            self.gauges.ended_jobs += len(works)
            now = time.monotonic()
            self.gauges.note_ended([now - work.ran_at for work in works if work.ran_at])
            self.changed.notify_all()

    def lose(self, works: Sequence[Work]) -> None:
        """Forget jobs: the lease under which they were taken ran out, and they are others' now."""
        with self.changed:
            lost = [work for work in works if self.held.get(work.field) is work]
            for work in lost:
                work.ended = True
                self.held.drop(work)
            self.pool = [entry for entry in self.pool if not entry.work.ended]
            self.aside = [work for work in self.aside if not work.ended]
            self.changed.notify_all()
        if lost:
            text = "queue %s: the lease ran out; %d jobs are others' now"
            log.warning(text, self.name, len(lost), extra={"event": "lease_lost"})

    def note_cancelled(self, job_ids: Iterable[str]) -> None:
        """Jobs are cancelled: those in hand end the next time that it is looked."""
        with self.changed:
            self.cancelled.update(dict.fromkeys(job_ids))
            while len(self.cancelled) > CANCELLED_KEPT:
                del self.cancelled[next(iter(self.cancelled))]

    # -- preparing

    def note_taken(self, works: Sequence[Work]) -> list[Work]:
        """Jobs came; those of them to prepare now. The others are put aside: they would be late."""
        with self.changed:
            now = time.monotonic()
            self._arrivals.note(now, len(works))
            notice = self._overload.notice
            if notice > 0 and self.running:
                notice += max(self._overload.busy_until - now, 0.0)
            answerable = self.now() + notice
            soon: list[Work] = []
            for work in works:
                late = notice > 0 and work.job.expires is not None and work.job.expires < answerable
                (self.aside if late else soon).append(work)
            self.preparing += len(soon)
            return soon

    def take_up(self) -> None:
        """The device is free: prepare what was put aside, unless others are about to be ready."""
        with self.changed:
            if self.aside and not self.preparing:
                self.preparing += len(self.aside)
                self.to_prepare.put(self.aside, fair=self.info.fair)
                self.aside = []

    def note_prepared(self, entries: Sequence[Entry], seconds: float) -> None:
        """A job was prepared, with these items; or none, because it ended."""
        with self.changed:
            self.preparing -= 1
            if entries:
                self.gauges.note_prepared([entry.cost for entry in entries], seconds)

    def add(self, entries: Sequence[Entry]) -> None:
        """Put items into the pool."""
        with self.changed:
            self._tenants.line_up(entries, time.monotonic())
            self.pool = sorted([*self.pool, *entries], key=attrgetter("turn"))

    # -- composing

    def untimely(self, work: Work, is_revoked: Callable[[str], bool]) -> End | None:
        """The end of a job that was cancelled or has expired; ``None`` for all others."""
        job = work.job
        if work.cancelled or job.id in self.cancelled or is_revoked(job.id):
            return End(work, Outcome.CANCELLED, JobCancelled("the job was cancelled"))
        if job.expires is not None and not work.started and job.expires < self.now():
            return End(work, Outcome.EXPIRED, JobExpired("the job was not started before its deadline"))
        return None

    def next_batch(self, is_revoked: Callable[[str], bool]) -> tuple[list[Entry], list[End]]:
        """Compose the next batch from the pool and take it out; with it, the ends of those whose time is over."""
        with self.changed:
            ends = self._drop(is_revoked)
            waiting, limits = self._candidates()
            if self.runner.writer is None:  # How long a text takes isn't told by its prompt.
                waiting, limits = self._overload.in_time(waiting, limits, self.now(), self._answered_in)
            batch = [waiting[index] for index in compose(waiting, limits)]
            self.take_out(batch)
            self.running = batch
            self._overload.busy_until = time.monotonic() + self.predicted_seconds(batch)
            return batch, ends

    def take_out(self, entries: Sequence[Entry]) -> None:
        """Items leave the pool for the device: their turns are over, and their jobs are started."""
        with self.changed:
            self._tenants.note_taken(entries)
            taken = set(map(id, entries))
            self.pool = [entry for entry in self.pool if id(entry) not in taken]
            for entry in entries:
                entry.work.started = True

    def predicted_seconds(self, batch: Sequence[Entry]) -> float:
        """How long a forward pass over these items should take; 0 while nothing is known."""
        costs = [entry.cost for entry in batch]
        return self.model.seconds(padded_cost(costs, packed=self.limits.packed)) if costs else 0.0

    def drop(self, is_revoked: Callable[[str], bool]) -> list[End]:
        """The ends of waiting jobs whose time is over. What runs and was cancelled is marked; it ends with its pass."""
        with self.changed:
            for entry in self.running:
                if not entry.item.over and (entry.work.job.id in self.cancelled or is_revoked(entry.work.job.id)):
                    entry.work.cancelled = entry.item.over = True
            ends = self._drop(is_revoked)
            self._overload.gave_way = max(self._overload.gave_way - len(ends), 0)
            return ends

    @property
    def has_work(self) -> bool:
        """Whether the device has something to do for it."""
        writer = self.runner.writer
        return bool(self.pool) or (writer is not None and writer.busy)

    def _drop(self, is_revoked: Callable[[str], bool]) -> list[End]:
        """Take out of the pool, and of what was put aside, what was cancelled or has expired, or ended otherwise."""
        ends: list[End] = []
        running = {entry.work.field for entry in self.running}

        def stays(work: Work) -> bool:
            if not work.ended and work.field not in running and (end := self.untimely(work, is_revoked)) is not None:
                ends.append(end)
            return not work.ended

        self.pool = [entry for entry in self.pool if stays(entry.work)]
        self.aside = [work for work in self.aside if stays(work)]
        return ends

    def _candidates(self) -> tuple[list[Entry], BatchLimits]:
        """The items that the next pass may hold, and its bounds.

        Where texts are written together, those that can't join them.
        """
        pool = self.pool if self.runner.writer is None else [each for each in self.pool if each.group != JOINS]
        self._tenants.look(pool, time.monotonic())
        if not self.shared:
            return pool, self.limits
        short = self._short()
        light = light_pass(pool, short.max_cost)
        return (pool, short) if light is None else (light, self.limits)

    def _short(self) -> BatchLimits:
        """Bounds of a pass that is to end soon."""
        cost = self.model.cost_within(shared_seconds(self.model.seconds(self.gauges.item_cost)))
        return replace(self.limits, max_cost=max(int(min(self.limits.max_cost, cost)), 1))

    def _answered_in(self, cost: float) -> float:
        """In how many seconds the answers of a pass of this cost will be stored, with a margin."""
        return LATE_MARGIN * (self.model.seconds(cost) + self.gauges.lag_seconds)

    def wait_seconds(self) -> float:
        """How long the free device should wait for more items; 0 if a batch should run now."""
        with self.changed:
            cost = sum(entry.cost for entry in self.pool)
            limits, now = self.limits, time.monotonic()
            if not self.pool or not self._max_wait or len(self.pool) >= limits.max_items or cost >= limits.max_cost:
                return 0.0
            left = min(entry.since for entry in self.pool) + self._max_wait - now
            if left <= 0:
                return 0.0
            gap = self.gauges.prepare_seconds if self.preparing else self._arrivals.expected(now)
            wait = wait_seconds(len(self.pool), cost, self.gauges.item_cost, gap, self.model.seconds)
            return min(wait, left)

    def lower_ceiling(self, items: int) -> None:
        """After the device ran out of memory: never again more than this many items."""
        with self.changed:
            items = max(1, min(self.limits.max_items, items))
            self.limits = replace(self.limits, max_items=items)
        self._keep_ceiling(items)

    # -- facts

    def note_forward(self, batch: Sequence[Entry], seconds: float) -> None:
        """Count a forward pass."""
        costs = [entry.cost for entry in batch]
        with self.changed:
            self.gauges.note_forward(costs, seconds, packed=self.limits.packed)
            self.model.observe(len(costs), padded_cost(costs, packed=self.limits.packed), seconds)
            for entry in batch:
                entry.work.ran_at = time.monotonic()

    def update_rate(self) -> None:
        """Follow the rates; called about once a second."""
        with self.changed:
            self.gauges.tick()

    def facts(self) -> dict[str, Any]:
        """What people and producers are told of this lane."""
        with self.changed:
            return {
                "owner": self.store.owner,
                "paused": self.paused,
                "held": len(self.held),
                "window": self.window(),
                "running": len(self.running),
                "max_items": self.limits.max_items,
                "max_cost": self.limits.max_cost,
                **self.gauges.facts(),
                **self.runner.describe(),
            }
