"""The store in memory: the same semantics without a server, for tests. Shipped as ``pipemill.testing``."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pipemill.errors import JobError, JobExpired
from pipemill.protocol import (
    History,
    IncidentKind,
    JobStatus,
    Outcome,
    Result,
    decode_result,
    encode_failure,
    message_id,
    names,
)
from pipemill.protocol.history import INCIDENTS_KEPT, at_time, decode_history, encode_incident
from pipemill.store import wire
from pipemill.store.base import (
    DEFAULT_LEASE_SECONDS,
    BlobStore,
    Completion,
    Leased,
    QueueInfo,
    Renewal,
    Taken,
)
from pipemill.store.blobs import MemoryBlobs
from pipemill.store.lists import Lists, Waiting
from pipemill.store.memory_dead import Buried, MemoryLetters
from pipemill.store.streams import ENTRIES_KEPT, Piece, StreamEntry


@dataclass(slots=True)
class MemoryQueue:
    """One queue as the broker has it."""

    info: QueueInfo
    dead: MemoryLetters
    lists: Lists = field(default_factory=Lists)
    parked: list[tuple[float, int, Waiting]] = field(default_factory=list)
    cancelled: dict[str, float] = field(default_factory=dict)
    totals: dict[str, int] = field(default_factory=dict)
    lanes: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def count(self, name: str, by: int = 1) -> None:
        """Count for the totals."""
        self.totals[name] = self.totals.get(name, 0) + by

    @property
    def depth(self) -> int:
        """Jobs that wait, parked ones included."""
        return len(self.parked) + len(self.lists)


class MemoryBroker:
    """What Redis would hold. Its clock can be moved on by tests."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.queues: dict[str, MemoryQueue] = {}
        self.announced: set[str] = set()
        self.leases: dict[str, float] = {}
        self.held: dict[str, dict[str, tuple[int, Waiting]]] = {}
        self.results: dict[str, bytes] = {}
        self.records: dict[str, tuple[str, int, str]] = {}
        #: Of jobs that wait.
        self.deadlines: dict[str, float] = {}
        self.payloads: dict[str, bytes] = {}
        self.histories: dict[str, list[bytes]] = {}
        self.once: dict[tuple[str, str], str] = {}
        self.streams: dict[str, list[StreamEntry]] = {}
        self.sequence = 0
        #: Share of its memory that it says is in use; tests may set it.
        self.memory_share = 0.0
        self._offset = 0.0
        self.blobs = MemoryBlobs(self.now)

    def now(self) -> float:
        """Seconds since the epoch, on this broker's clock."""
        return time.time() + self._offset

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        with self.changed:
            self._offset += seconds
            self.changed.notify_all()

    def queue(self, name: str) -> MemoryQueue:
        """Return a queue; like Redis' lists, it is there as soon as somebody uses it."""
        return self.queues.setdefault(name, MemoryQueue(QueueInfo(name=name, task=""), MemoryLetters(name, self.now)))

    def note(self, job_id: str, incident: bytes) -> None:
        """Add to what happened to a job."""
        history = self.histories.setdefault(job_id, [])
        history.append(at_time(incident, self.now()))
        del history[:-INCIDENTS_KEPT]

    def push(self, list_name: str, raw: bytes) -> None:
        """Put a raw message into a list, as a plain Celery client would."""
        with self.changed:
            name, _, step = list_name.partition(names.PRIORITY_SEPARATOR)
            self.queue(name).lists.push(names.PRIORITY_STEPS.index(int(step or 0)), Waiting(raw))
            self.changed.notify_all()

    def append(self, job_id: str, piece: Piece | None = None) -> None:
        """Add to a job's stream: a piece of its text, or that it has ended."""
        with self.changed:
            self._append(job_id, piece)
            self.changed.notify_all()

    def _append(self, job_id: str, piece: Piece | None) -> None:
        stream = self.streams.setdefault(job_id, [])
        number = 1 + int(stream[-1].id.partition("-")[0]) if stream else 1
        said = StreamEntry(id=f"{number}-0", ends=True)
        if piece is not None:
            said = StreamEntry(id=f"{number}-0", run=piece.run, offset=piece.offset, text=piece.text)
        stream.append(said)
        del stream[:-ENTRIES_KEPT]

    def end_overdue(self, job_id: str) -> None:
        """End a job as expired that nobody has started, if it is well past its deadline."""
        waits = self.records.get(job_id, "r")[0] != "r"
        if waits and self.deadlines.get(job_id, math.inf) + wire.OVERDUE_SECONDS < self.now():
            self.end(job_id, JobExpired("the job was not started before its deadline"))

    def end(self, job_id: str, error: JobError) -> None:
        """End a job that hasn't ended; workers drop it when they meet it."""
        _, _, queue = self.records.pop(job_id)
        self.results[job_id] = encode_failure(job_id, error)
        self.queue(queue).cancelled[job_id] = self.now()
        self.changed.notify_all()

    def ending(self, job_id: str) -> Result | None:
        """How a job ended; None if it hasn't."""
        document = self.results.get(job_id)
        return decode_result(job_id, document) if document else None


class MemoryJobStore:
    """One lane's hold on its queue, in memory."""

    def __init__(self, broker: MemoryBroker, queue: str, *, lease_seconds: float = DEFAULT_LEASE_SECONDS):
        self.owner = names.new_owner(queue)
        self._broker, self._name, self._lease_seconds = broker, queue, lease_seconds
        self.blobs: BlobStore = broker.blobs
        self._seen_cancelled = 0.0
        self._heard = set(broker.queue(queue).cancelled)

    @property
    def _queue(self) -> MemoryQueue:
        return self._broker.queue(self._name)

    @property
    def _mine(self) -> dict[str, tuple[int, Waiting]]:
        return self._broker.held.setdefault(self.owner, {})

    def announce(self, info: QueueInfo) -> None:
        """Make the queue known to producers."""
        with self._broker.changed:
            self._queue.info = info
            self._broker.announced.add(self._name)

    def wait(self, timeout: float) -> bool:
        """Block until the most urgent plain list has a job, or for ``timeout`` seconds; whether it has."""
        with self._broker.changed:
            return self._broker.changed.wait_for(lambda: self._queue.lists.wakes, timeout)

    def take(self, n: int, held_elsewhere: int = 0, *, patience: float = 0.0, most_bytes: int = sys.maxsize) -> Taken:
        """Lease up to ``n`` jobs, after waiting for the first."""
        if patience:
            self.wait(patience)
        with self._broker.changed:
            now, queue = self._broker.now(), self._queue
            stood = self.owner in self._broker.leases
            self._broker.leases[self.owner] = now + self._lease_seconds
            for parked in sorted((p for p in queue.parked if p[0] <= now), key=lambda p: p[0], reverse=True):
                queue.parked.remove(parked)
                queue.lists.put_back(parked[1], parked[2], fair=queue.info.fair)
            held, ageing = bool(self._mine or held_elsewhere), queue.info.priority_ageing_seconds
            chosen, ended = queue.lists.take(n, held=held, now=now, ageing=ageing, most_bytes=most_bytes)
            jobs = [self._lease(index, waiting) for index, waiting in chosen]
            queue.count("taken", len(jobs))
            cancelled = [job_id for job_id, at in queue.cancelled.items() if at > self._seen_cancelled]
            self._seen_cancelled = now if cancelled else self._seen_cancelled
            return Taken(jobs, now, stood, ended.blocked, ended.by_bytes, cancelled)

    def _lease(self, index: int, waiting: Waiting) -> Leased:
        self._broker.sequence += 1
        lease = f"{self._broker.sequence}|{names.PRIORITY_STEPS[index]}"
        self._mine[lease] = (index, waiting)
        return Leased(lease, waiting.raw, waiting.deliveries)

    def payloads(self, job_ids: Sequence[str]) -> list[bytes | None]:
        """Fetch payloads sent by reference."""
        with self._broker.changed:
            return [self._broker.payloads.get(job_id) for job_id in job_ids]

    def histories(self, job_ids: Sequence[str]) -> list[History]:
        """What happened to each job so far, other than well."""
        with self._broker.changed:
            return [decode_history(self._broker.histories.get(job_id, ())) for job_id in job_ids]

    def complete(self, completions: Sequence[Completion]) -> list[bool]:
        """End leases, each only if it is still ours."""
        with self._broker.changed:
            done = [self._complete(completion) for completion in completions]
            self._broker.changed.notify_all()
            return done

    def _complete(self, done: Completion) -> bool:
        held = self._mine.pop(done.field, None)
        if held is None:
            return False
        broker, queue = self._broker, self._queue
        ended = broker.ending(done.job_id)
        if done.outcome in {Outcome.PARKED, Outcome.RETRIED} and not ended:
            self._wait(done, *held)
            return True
        if done.outcome is Outcome.DEAD and not ended:
            self._bury(done, *held)
        broker.records.pop(done.job_id, None)
        broker.payloads.pop(done.job_id, None)
        broker.histories.pop(done.job_id, None)
        if done.streamed and done.job_id:
            if done.piece is not None and not ended:
                broker.append(done.job_id, done.piece)
            broker.append(done.job_id)
        if ended or done.outcome is Outcome.CANCELLED:
            queue.cancelled.pop(done.job_id, None)
        over = Outcome.EXPIRED if ended and ended.status is JobStatus.EXPIRED else Outcome.CANCELLED
        queue.count(over if ended else done.outcome)
        if ended:
            return False
        if done.document is not None:
            broker.results[done.job_id] = done.document
        for list_name, raw in done.follow_ups:
            broker.push(list_name, raw)
        return True

    def _wait(self, done: Completion, index: int, waiting: Waiting) -> None:
        broker, retried = self._broker, done.outcome is Outcome.RETRIED
        if retried:
            broker.note(done.job_id, done.incident)
        self._queue.parked.append((broker.now() + done.delay if retried else done.due, index, waiting))
        if done.job_id in broker.records:
            broker.records[done.job_id] = ("p", 0, self._name)
        self._queue.count(done.outcome)

    def _bury(self, done: Completion, index: int, waiting: Waiting) -> None:
        broker, job_id = self._broker, done.job_id
        if job_id and done.incident:
            broker.note(job_id, done.incident)
        payload, history = broker.payloads.get(job_id), broker.histories.get(job_id, [])
        letter = Buried(broker.now(), names.PRIORITY_STEPS[index], waiting.raw, done.letter, payload, history)
        self._queue.dead.bury(job_id or f"unreadable-{done.field.partition('|')[0]}", letter)

    def emit(self, pieces: Sequence[Piece]) -> list[bool]:
        """Append pieces of texts to their jobs' streams, each only while its lease is ours; whether it was."""
        with self._broker.changed:
            ours = [piece.field in self._mine for piece in pieces]
            for piece, mine in zip(pieces, ours, strict=True):
                if mine:
                    self._broker.append(piece.job_id, piece)
            return ours

    def release(self, fields: Sequence[str]) -> int:
        """Give jobs back to the head of the queue."""
        with self._broker.changed:
            return _give_back(self._broker, self.owner, fields, more_deliveries=0)

    def renew(self, running: Mapping[str, str]) -> Renewal:
        """Extend the lease if it still stands, and mark running jobs."""
        with self._broker.changed:
            broker, now = self._broker, self._broker.now()
            stands = self.owner in broker.leases
            if stands:
                broker.leases[self.owner] = now + self._lease_seconds
                for lease, job_id in running.items():
                    if lease in self._mine:
                        broker.records[job_id] = ("r", 0, self._name)
            cancelled = [job_id for job_id, at in self._queue.cancelled.items() if at > self._seen_cancelled]
            return Renewal(now, stands, cancelled)

    def hear_cancelled(self, timeout: float) -> list[str]:
        """Wait until jobs of this queue are cancelled, for ``timeout`` seconds at most; their ids."""
        with self._broker.changed:
            self._broker.changed.wait_for(lambda: self._queue.cancelled.keys() - self._heard, timeout)
            before, self._heard = self._heard, set(self._queue.cancelled)
            return [*(self._heard - before)]

    def reap(self) -> int:
        """Give back the jobs of owners whose lease ran out."""
        with self._broker.changed:
            broker, reaped = self._broker, 0
            for owner in [owner for owner, deadline in broker.leases.items() if deadline <= broker.now()]:
                count = _give_back(broker, owner, list(broker.held.get(owner, {})), more_deliveries=1)
                broker.queue(names.owner_queue(owner)).count("redelivered", count)
                del broker.leases[owner]
                broker.queue(names.owner_queue(owner)).lanes.pop(owner, None)
                reaped += count
            return reaped

    def report(self, facts: Mapping[str, Any]) -> None:
        """Publish facts about this lane."""
        with self._broker.changed:
            self._queue.lanes[self.owner] = {"at": time.time(), **facts}

    def close(self, *, blame: bool = False) -> int:
        """Give everything back and end the lease."""
        with self._broker.changed:
            released = _give_back(self._broker, self.owner, list(self._mine), more_deliveries=int(blame))
            self._broker.leases.pop(self.owner, None)
            self._queue.lanes.pop(self.owner, None)
            return released


def _give_back(broker: MemoryBroker, owner: str, fields: Sequence[str], *, more_deliveries: int) -> int:
    mine, queue = broker.held.get(owner, {}), broker.queue(names.owner_queue(owner))
    ours = sorted((lease for lease in fields if lease in mine), key=lambda lease: int(lease.partition("|")[0]))
    for lease in reversed(ours):
        index, waiting = mine.pop(lease)
        given = replace(waiting, deliveries=waiting.deliveries + more_deliveries)
        queue.lists.put_back(index, given, fair=queue.info.fair)
        job_id = message_id(waiting.raw)
        if job_id and more_deliveries:
            broker.note(job_id, encode_incident(IncidentKind.LOST, worker=owner))
        if job_id and broker.records.get(job_id, "q")[0] == "r":
            broker.records[job_id] = ("q", 0, queue.info.name)
    queue.count("taken", -len(ours))
    broker.changed.notify_all()
    return len(ours)
