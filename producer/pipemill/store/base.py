"""The seam between pipemill and its broker: what a store does, whatever it is made of.

A ``JobStore`` is what one lane of a worker needs, a ``QueueStore`` (and its asynchronous twin) what a producer needs.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from pipemill.protocol import History, Outcome, Result
from pipemill.store.dead import DeadLetter, Replay
from pipemill.store.streams import AsyncReadsStreams, Piece, ReadsStreams, WritesStreams

#: How long a job taken and not renewed stays with its owner, in seconds.
DEFAULT_LEASE_SECONDS: Final = 15.0
#: How long more urgent jobs may keep others waiting, in seconds for each priority step between.
DEFAULT_AGEING_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueInfo:
    """What a queue announces of itself, so that producers need no catalogue."""

    name: str
    #: The pipeline's task, ``text-classification`` for one.
    task: str
    model: str = ""
    #: Most jobs that may wait, parked ones included.
    max_depth: int = 100_000
    #: Most bytes that may wait in the lists, and most jobs and bytes of one tenant; None for no bound.
    max_bytes: int | None = None
    max_tenant_depth: int | None = None
    max_tenant_bytes: int | None = None
    #: Share of the broker's memory in use from which jobs are refused; 1 leaves that to the broker.
    max_memory_share: float = 0.9
    #: Whether tenants take turns; if not, jobs are taken in the order they came.
    fair: bool = True
    #: How long more urgent jobs may keep others waiting, in seconds for each priority step between; 0 for ever.
    priority_ageing_seconds: float = DEFAULT_AGEING_SECONDS
    #: Largest inputs and parameters of one job as JSON, in bytes.
    max_input_bytes: int = 1_048_576
    #: How long results are kept, in seconds.
    result_ttl_seconds: int = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """One encoded job on its way into a queue."""

    job_id: str
    #: Index of its list in ``protocol.names.PRIORITY_STEPS``.
    list_index: int
    message: bytes
    #: Jobs of one queue with equal keys are one job; empty for none.
    idempotency_key: str = ""
    #: What travels by reference, or None.
    payload: bytes | None = None
    #: Seconds since the epoch after which it ends as expired if it hasn't started, for the broker to know; or None.
    expires: float | None = None

    def is_over(self, now: float) -> bool:
        """Whether its deadline has passed, at a time in seconds since the epoch."""
        return self.expires is not None and self.expires < now


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """What became of a call to ``enqueue``: the first ``len(job_ids)`` submissions were accepted."""

    #: The id each accepted job is known by; another than its own if its idempotency key was known.
    job_ids: Sequence[str]
    depth: int
    max_depth: int
    #: The bound that kept the others out, as `QueueInfo` calls it; empty when all were accepted.
    bound: str = ""
    #: That bound: jobs, bytes, or per cent of the memory.
    limit: int = 0
    #: What stands under that bound, in its unit and in jobs.
    standing: int = 0
    standing_jobs: int = 0
    #: Bytes that the first refused job counts for.
    refused_bytes: int = 0
    #: Tenants that share the workers.
    tenants: int = 1
    #: Jobs a second that the queue's workers ended lately; 0 when nobody works. Known only if some were refused.
    rate: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What the store knows of a job."""

    #: Set when it has ended.
    result: Result | None = None
    queue: str | None = None  #: Of a job that hasn't ended; None if there is no trace of it.
    running: bool = False
    #: How many jobs were to be taken before it, at last sight; None unless it waits in its list.
    position: int | None = None
    #: When a job that waits ends as expired, in seconds since the epoch; None if it may wait for ever.
    expires: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueReport:
    """A queue as it stands."""

    info: QueueInfo
    #: Jobs waiting, by priority step.
    waiting: Mapping[int, int]
    #: Jobs waiting in lists of their tenants' own, by tenant.
    tenants: Mapping[str, int] = field(default_factory=dict)
    #: Bytes that waiting jobs of our own clients count for.
    waiting_bytes: int = 0
    #: Jobs parked until their time.
    parked: int
    #: Jobs leased to workers.
    leased: int
    #: Dead letters kept.
    dead: int
    #: Running totals by the name of the outcome, and ``enqueued``, ``taken``, ``redelivered``.
    totals: Mapping[str, int]
    #: What each lane last said of itself, by owner.
    lanes: Mapping[str, Mapping[str, Any]]


@dataclass(slots=True, eq=False)
class Leased:
    """A job in our hands for the length of a lease."""

    #: Names the lease; whoever lost it changes nothing.
    field: str
    #: The message, without its delivery count.
    raw: bytes
    #: How often it was delivered before to a worker that then died.
    deliveries: int = 0


@dataclass(slots=True, eq=False)
class Taken:
    """The reply of ``take``."""

    jobs: list[Leased]
    #: The server's clock, in seconds since the epoch.
    now: float
    #: The lease stood until now; if it didn't, jobs taken before are others' by now.
    stood: bool
    blocked: bool = False  #: A job that was delivered before waits until this owner holds nothing.
    by_bytes: bool = False  #: Others were there, and would have had too many bytes.
    #: Jobs of this queue that were cancelled since the last look.
    cancelled: list[str] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Renewal:
    """The reply of ``renew``."""

    now: float
    #: False when the lease ran out and its jobs were given to others.
    stands: bool
    cancelled: list[str] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Completion:
    """The end of one lease."""

    field: str
    #: Empty when the message had none to answer to.
    job_id: str
    outcome: Outcome
    #: Celery's result document; None stores nothing (ignored results, parked jobs).
    document: bytes | None = None
    #: When a parked job is due, in seconds since the epoch.
    due: float = 0.0
    #: How long a job that is retried waits, in seconds.
    delay: float = 0.0
    #: What is added to the history of a job that is retried or given up: ``protocol.history.encode_incident``.
    incident: bytes = b""
    #: What the dead letter of a job says: ``protocol.history.encode_letter``.
    letter: bytes = b""
    #: Messages to push when, and only if, the lease was still ours: (list key, message).
    follow_ups: Sequence[tuple[str, bytes]] = ()
    streamed: bool = False  #: The job has a stream, which ends with it.
    piece: Piece | None = None  #: What is still to be told there before.


class BlobStore(Protocol):
    """Where large bytes lie. Thread-safe. A reference is ``<kind>:<name>``; the name can't be guessed."""

    def put(self, data: bytes, ttl_seconds: int) -> str:
        """Keep bytes for at least so many seconds; returns their reference."""
        ...

    def get(self, reference: str, max_bytes: int | None = None) -> bytes | None:
        """Read what a reference stands for; None when it is gone.

        Raises
        ------
        PayloadTooLarge
            When it has more than ``max_bytes``; it is not read then.
        ValueError
            When it is no reference of this store.

        """
        ...

    def delete(self, references: Sequence[str]) -> None:
        """Forget them; those that are gone are no error."""
        ...


class JobStore(WritesStreams, Protocol):
    """One lane's hold on its queue. Thread-safe; ``wait`` and ``take`` are called from one thread."""

    @property
    def owner(self) -> str:
        """The lease owner's name, new for every start."""
        ...

    @property
    def blobs(self) -> BlobStore:
        """Where bytes lie that are too large for a message or a result."""
        ...

    def announce(self, info: QueueInfo) -> None:
        """Make the queue known to producers."""
        ...

    def wait(self, timeout: float) -> bool:
        """Block until a job is within reach of ``take``, or for ``timeout`` seconds; whether one is."""
        ...

    def take(self, n: int, held_elsewhere: int = 0, *, patience: float = 0.0, most_bytes: int = sys.maxsize) -> Taken:
        """Lease up to ``n`` jobs, most urgent first, tenants by turns; ``n = 0`` only extends the lease.

        With ``patience``, ``wait`` for so many seconds comes first, in the same round trip. The first job may have more
        than ``most_bytes``, payload included; all together may not.
        A job that was delivered before is leased first and alone, and only while nothing else is held: neither by this
        owner, nor by others of its process, of whose jobs ``held_elsewhere`` is the number.
        """
        ...

    def payloads(self, job_ids: Sequence[str]) -> list[bytes | None]:
        """Fetch payloads sent by reference; None for each that is gone."""
        ...

    def histories(self, job_ids: Sequence[str]) -> list[History]:
        """What happened to each job so far, other than well."""
        ...

    def complete(self, completions: Sequence[Completion]) -> list[bool]:
        """End leases atomically, each only if it is still ours; False for each that changed nothing."""
        ...

    def release(self, fields: Sequence[str]) -> int:
        """Give jobs back to the head of the queue; how many were still ours."""
        ...

    def renew(self, running: Mapping[str, str]) -> Renewal:
        """Extend the lease if it still stands; ``running`` maps the fields of running jobs to their ids."""
        ...

    def hear_cancelled(self, timeout: float) -> list[str]:
        """Wait until jobs of this queue are cancelled, for ``timeout`` seconds at most; their ids.

        Called from one thread. What was cancelled while nobody listened is told by ``take`` and ``renew``.
        """
        ...

    def reap(self) -> int:
        """Give back the jobs of owners whose lease ran out, on any queue; how many."""
        ...

    def report(self, facts: Mapping[str, Any]) -> None:
        """Publish facts about this lane for a few lease lengths."""
        ...

    def close(self, *, blame: bool = False) -> int:
        """Give everything back and end the lease; how many jobs were given back.

        With ``blame``, each counts as delivered to a worker that died.
        """
        ...


class QueueStore(ReadsStreams, Protocol):
    """A producer's view of the broker. Thread-safe."""

    @property
    def blobs(self) -> BlobStore:
        """Where bytes lie that are too large for a message or a result."""
        ...

    def enqueue(self, queue: str, submissions: Sequence[Submission]) -> Accepted | None:
        """Accept jobs as long as no bound is met; None for an unknown queue. Those past their deadline expire."""
        ...

    def declare(self, info: QueueInfo) -> None:
        """Make a queue known, unless it is."""
        ...

    def info(self, queue: str) -> QueueInfo | None:
        """What the queue announced of itself."""
        ...

    def standings(self, job_ids: Sequence[str]) -> list[Standing]:
        """What is known of each job, in order. One that was to have started by now, and hasn't, ends as expired."""
        ...

    def wait(self, job_id: str, timeout: float) -> Standing:
        """What is known of a job once it has ended, or after ``timeout`` seconds."""
        ...

    def cancel(self, job_id: str) -> bool | None:
        """End a job as cancelled: True if so, False if it had ended, None if there is no trace of it."""
        ...

    def reports(self) -> list[QueueReport]:
        """All known queues that this client may see, by name."""
        ...

    def dead_letters(self, queue: str, limit: int) -> list[DeadLetter]:
        """The last dead letters, the latest first, without message, payload and history."""
        ...

    def dead_letter(self, queue: str, letter_id: str) -> DeadLetter | None:
        """One dead letter, whole."""
        ...

    def replay(self, queue: str, letter_ids: Sequence[str]) -> Replay | None:
        """Put dead letters back into their queue, up to the depth cap; None when the queue is unknown."""
        ...

    def drop(self, queue: str, letter_ids: Sequence[str]) -> list[bool]:
        """Forget dead letters; whether each was there."""
        ...

    def close(self) -> None:
        """Close connections."""
        ...


class AsyncQueueStore(AsyncReadsStreams, Protocol):
    """``QueueStore`` for asyncio."""

    @property
    def blobs(self) -> BlobStore:
        """Where bytes lie that are too large for a message or a result; it blocks."""
        ...

    async def enqueue(self, queue: str, submissions: Sequence[Submission]) -> Accepted | None:
        """Accept jobs as long as no bound is met; None for an unknown queue. Those past their deadline expire."""
        ...

    async def declare(self, info: QueueInfo) -> None:
        """Make a queue known, unless it is."""
        ...

    async def info(self, queue: str) -> QueueInfo | None:
        """What the queue announced of itself."""
        ...

    async def standings(self, job_ids: Sequence[str]) -> list[Standing]:
        """What is known of each job, in order. One that was to have started by now, and hasn't, ends as expired."""
        ...

    async def wait(self, job_id: str, timeout: float) -> Standing:
        """What is known of a job once it has ended, or after ``timeout`` seconds."""
        ...

    async def cancel(self, job_id: str) -> bool | None:
        """End a job as cancelled: True if so, False if it had ended, None if there is no trace of it."""
        ...

    async def reports(self) -> list[QueueReport]:
        """All known queues that this client may see, by name."""
        ...

    async def dead_letters(self, queue: str, limit: int) -> list[DeadLetter]:
        """The last dead letters, the latest first, without message, payload and history."""
        ...

    async def dead_letter(self, queue: str, letter_id: str) -> DeadLetter | None:
        """One dead letter, whole."""
        ...

    async def replay(self, queue: str, letter_ids: Sequence[str]) -> Replay | None:
        """Put dead letters back into their queue, up to the depth cap; None when the queue is unknown."""
        ...

    async def drop(self, queue: str, letter_ids: Sequence[str]) -> list[bool]:
        """Forget dead letters; whether each was there."""
        ...

    async def close(self) -> None:
        """Close connections."""
        ...
