"""How both clients read a store's replies, and how they word refusals. Pure; no store is called."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pipemill.errors import QueueFull, ResultTimeout, UnknownJob, UnknownQueue
from pipemill.jobs import SHOWN_CHARACTERS, cut
from pipemill.protocol import JobStatus, Result
from pipemill.store.base import Accepted, Standing

#: The longest wait asked of a store at a time, in seconds.
WAIT_SECONDS: Final = 60.0
#: Bounds of ``QueueFull.retry_after``, in seconds: no busy loop, and no wait much longer than a restart of workers.
RETRY_AFTER_SECONDS: Final = (0.1, 60.0)
#: ``QueueFull.retry_after`` while no worker says how fast it is (none runs, or it starts), in seconds.
UNKNOWN_RATE_SECONDS: Final = 1.0
#: ``QueueFull.retry_after`` while the broker's memory is full, in seconds: workers must catch up, or results expire.
MEMORY_FULL_SECONDS: Final = 5.0
#: Queues that a message lists.
SHOWN_QUEUES: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class JobInfo:
    """Where a job stands, in more words."""

    id: str
    status: JobStatus
    #: The queue of a job that hasn't ended.
    queue: str | None = None
    #: How many jobs are to be taken before it, while it is queued; None while it is parked until its time.
    position: int | None = None
    #: Seconds until a worker takes it, while it is queued and the queue's workers say how fast they are.
    estimate_seconds: float | None = None


class Deadline:
    """A moment that may never come."""

    def __init__(self, seconds: float | None):
        self._moment = math.inf if seconds is None else time.monotonic() + seconds

    def left(self) -> float:
        """Seconds until then; negative when it has passed."""
        return self._moment - time.monotonic()

    def next_wait(self) -> float:
        """How long to wait until then, or until it is looked again."""
        return max(min(self.left(), WAIT_SECONDS), 0.0)


def status_of(standing: Standing) -> JobStatus:
    """Where a job stands."""
    if standing.result is not None:
        return standing.result.status
    if standing.queue is None:
        return JobStatus.UNKNOWN
    return JobStatus.RUNNING if standing.running else JobStatus.QUEUED


def job_info(job_id: str, standing: Standing, rate: float | None) -> JobInfo:
    """Where a job stands; ``rate`` is what its queue's workers end, in jobs a second."""
    status = status_of(standing)
    if status is not JobStatus.QUEUED:
        return JobInfo(id=job_id, status=status, queue=standing.queue)
    position = standing.position
    estimate = position / rate if rate and position is not None else None
    return JobInfo(id=job_id, status=status, queue=standing.queue, position=position, estimate_seconds=estimate)


def ended(job_id: str, standing: Standing) -> Result | None:
    """How a job ended, None if it hasn't.

    Raises
    ------
    UnknownJob
        When there is no trace of it.

    """
    if standing.result is None and standing.queue is None:
        raise unknown_job(job_id)
    return standing.result


def unknown_job(job_id: str) -> UnknownJob:
    """Say that there is no trace of a job."""
    return UnknownJob(
        f"there is no trace of job {cut(job_id)}: it was never accepted by this broker, its result has expired, "
        "or it was submitted with ignore_result; submit it again if its answer is needed"
    )


def result_timeout(job_id: str, standing: Standing, timeout: float | None) -> ResultTimeout:
    """Say that a result didn't come in time."""
    where = "" if standing.position is None else f" (jobs before it: {standing.position})"
    return ResultTimeout(
        f"job {job_id} is still {status_of(standing)} in queue {standing.queue!r}{where} after {timeout} s; "
        "it goes on: ask for its result again, or cancel it"
    )


def results_timeout(missing: int, total: int, timeout: float | None) -> ResultTimeout:
    """Say that some of many results didn't come in time."""
    return ResultTimeout(
        f"{missing} of {total} jobs haven't ended after {timeout} s; they go on: ask for their results again"
    )


def retry_after(accepted: Accepted, refused: int) -> float:
    """Seconds until refused jobs may fit: the jobs too many ÷ the jobs a second that workers end, within bounds.

    A tenant's jobs end at its share of that; bytes are as many jobs as wait with as many bytes.
    """
    if accepted.bound == "max_memory_share":
        return MEMORY_FULL_SECONDS
    if accepted.rate <= 0:
        return UNKNOWN_RATE_SECONDS
    rate = accepted.rate / accepted.tenants if accepted.bound.startswith("max_tenant_") else accepted.rate
    too_many: float = max(accepted.standing - accepted.limit, 0) + refused
    if accepted.bound.endswith("_bytes"):
        each = max(accepted.standing / max(accepted.standing_jobs, 1), 1.0)
        too_many = max(accepted.standing + accepted.refused_bytes - accepted.limit, 0) / each + refused - 1
    shortest, longest = RETRY_AFTER_SECONDS
    return min(max(too_many / rate, shortest), longest)


def _what_is_full(queue: str, accepted: Accepted, tenant: str) -> tuple[str, str]:
    """Which bound was met, and what to do besides waiting."""
    standing, limit = max(accepted.standing, accepted.limit), accepted.limit
    whose = f"tenant {tenant!r}" if tenant else "the tenant without a name"
    more = f"start more workers, or raise the queue's limits.{accepted.bound} in the catalogue"
    return {
        "max_depth": (f"queue {queue!r} is full ({standing} jobs wait, {limit} may)", more),
        "max_bytes": (f"queue {queue!r} is full ({accepted.standing} bytes wait, {limit} may)", more),
        "max_tenant_depth": (f"queue {queue!r} is full for {whose} ({standing} of its jobs wait, {limit} may)", more),
        "max_tenant_bytes": (
            f"queue {queue!r} is full for {whose} ({accepted.standing} of its bytes wait, {limit} may)",
            more,
        ),
        "max_memory_share": (
            f"the broker's memory is full ({standing} % in use, queue {queue!r} takes jobs below {limit} %)",
            "start more workers, keep results for less long (result_ttl_seconds), or raise the broker's maxmemory",
        ),
    }[accepted.bound]


def queue_full(queue: str, accepted: Accepted, job_ids: Sequence[str], total: int, tenant: str = "") -> QueueFull:
    """Say that a queue is full; ``job_ids`` were accepted of ``total``."""
    wait = retry_after(accepted, total - len(job_ids))
    what, mend = _what_is_full(queue, accepted, tenant)
    text = f"{what}: submit again in {wait:.1f} s, {mend}"
    if total > 1:
        text += f"; {len(job_ids)} of {total} jobs were accepted, the error's `accepted` has their ids"
    return QueueFull(text, wait, tuple(job_ids), accepted.bound)


def unknown_queue(queue: str, known: Sequence[str], *, has_catalogue: bool) -> UnknownQueue:
    """Say that nobody announced a queue, and what to do."""
    from pipemill.validation import did_you_mean  # noqa: PLC0415  # it brings pydantic, which only this refusal needs

    like = did_you_mean(queue[:SHOWN_CHARACTERS], known)
    shown = ", ".join(map(repr, known[:SHOWN_QUEUES])) + (", …" if len(known) > SHOWN_QUEUES else "")
    mend = "add it to the catalogue" if has_catalogue else "give the client the catalogue that names it"
    guess = f"; did you mean {like!r}?" if like else "."
    others = f"Known queues: {shown}." if known else "This broker knows no queue yet."
    return UnknownQueue(f"queue {cut(queue)} is unknown{guess} {others} Start a worker for it, or {mend}")
