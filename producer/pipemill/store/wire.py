"""What both the blocking and the asynchronous queue store say to Redis, and how they read the answers. Pure."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Final
from uuid import uuid4

import orjson

from pipemill.errors import JobCancelled, JobExpired
from pipemill.protocol import decode_result, encode_failure, names
from pipemill.store.base import Accepted, QueueInfo, QueueReport, Standing, Submission

#: How long an idempotency key stands for its job, in seconds: a day.
ONCE_TTL_SECONDS: Final = 24 * 3600
#: How long a cancelled job's end is kept, in seconds.
CANCELLED_TTL_SECONDS: Final = 3600
#: How long workers can learn of a cancellation, in seconds: as long as the job may wait.
CANCELLED_KEPT_SECONDS: Final = names.RECORD_TTL_SECONDS
#: How long a payload is kept for its job, in seconds: longer than the latest moment a job may be parked until.
PAYLOAD_TTL_SECONDS: Final = 2 * names.RECORD_TTL_SECONDS
#: Where a payload lies until its job is accepted.
UPLOAD_PREFIX: Final = f"{names.PREFIX}upload:"
#: How long an uploaded payload waits for its job to be accepted, in seconds.
UPLOAD_TTL_SECONDS: Final = 300
#: How long a deadline must have passed before whoever asks for the job ends it, in seconds: by then the heartbeat of a
#: worker that started it in time has said that it runs.
OVERDUE_SECONDS: Final = 5.0
#: How a result document ends that lacks its job's id.
_NO_ID: Final = b'""}'
#: Reports of lanes older than this are dropped, in seconds.
LANE_REPORT_SECONDS: Final = 60.0
#: ``names.PRIORITY_STEPS`` as the scripts read it.
STEPS: Final = ",".join(map(str, names.PRIORITY_STEPS))

#: What a server without memory answers to ``enqueue``: a script's first write is refused, so nothing was accepted.
NO_MEMORY: Final = Accepted(job_ids=(), depth=0, max_depth=0, bound="max_memory_share", limit=100, standing=100)


def uploads_of(submissions: Sequence[Submission]) -> dict[str, str]:
    """By job id, a key for each payload, of this call alone: the script moves it to its job, or it expires."""
    return {job.job_id: f"{UPLOAD_PREFIX}{uuid4().hex}" for job in submissions if job.payload is not None}


def enqueue_call(
    queue: str, submissions: Sequence[Submission], uploads: Mapping[str, str]
) -> tuple[list[str], list[Any]]:
    """Keys and arguments of ``enqueue.lua``."""
    keys = [names.QUEUES_KEY, names.counters_key(queue), names.delayed_key(queue), *names.list_keys(queue)]
    record, result = names.record_key(""), names.result_key("")
    arguments: list[Any] = [queue, record, result, names.RECORD_TTL_SECONDS, ONCE_TTL_SECONDS]
    arguments += [names.payload_key(""), PAYLOAD_TTL_SECONDS, STEPS, _expired("").removesuffix(_NO_ID)]
    for job in submissions:
        once = names.once_key(queue, job.idempotency_key) if job.idempotency_key else ""
        deadline = "" if job.expires is None else f"{job.expires:.6f}"
        arguments += (job.job_id, job.list_index, once, uploads.get(job.job_id, ""), deadline, job.message)
    return keys, arguments


def read_accepted(reply: list[Any]) -> Accepted | None:
    """Read the reply of ``enqueue.lua``."""
    if reply[0] == -1:
        return None
    max_depth, depth, bound, limit, standing, standing_jobs, refused_bytes, tenants, *job_ids = reply
    return Accepted(
        job_ids=[str(job_id, "utf-8") for job_id in job_ids],
        depth=depth,
        max_depth=max_depth,
        bound=str(bound, "utf-8"),
        limit=limit,
        standing=standing,
        standing_jobs=standing_jobs,
        refused_bytes=refused_bytes,
        tenants=tenants,
    )


def encode_info(info: QueueInfo) -> bytes:
    """Write what a queue announces."""
    return orjson.dumps({name: value for name, value in asdict(info).items() if value is not None})


def decode_info(stored: bytes) -> QueueInfo:
    """Read what a queue announced; fields of a newer version are left out."""
    known = QueueInfo.__dataclass_fields__
    return QueueInfo(**{key: value for key, value in orjson.loads(stored).items() if key in known})


def cancel_call(job_id: str) -> tuple[list[str], list[Any]]:
    """Keys and arguments of ``cancel.lua``."""
    document = encode_failure(job_id, JobCancelled("the job was cancelled"))
    keys = [names.result_key(job_id), names.record_key(job_id)]
    return keys, [job_id, document, CANCELLED_TTL_SECONDS, names.cancelled_key(""), CANCELLED_KEPT_SECONDS, ""]


def expire_call(job_id: str) -> tuple[list[str], list[Any]]:
    """Keys and arguments of ``cancel.lua`` for a job that is past its deadline, if nobody has started it."""
    keys, (_, _, *others, _) = cancel_call(job_id)
    return keys, [job_id, _expired(job_id), *others, OVERDUE_SECONDS]


def _expired(job_id: str) -> bytes:
    return encode_failure(job_id, JobExpired("the job was not started before its deadline"))


def read_cancelled(reply: int) -> bool | None:
    """Read the reply of ``cancel.lua``."""
    return {0: None, 1: True, 2: False}[reply]


def read_standing(job_id: str, document: bytes | None, record: bytes | None) -> tuple[Standing, int]:
    """What is known of a job, and its ordinal among the jobs of its queue (0 if it isn't waiting)."""
    result = decode_result(job_id, document) if document else None
    if result is not None:
        return Standing(result=result), 0
    state, _, rest = (record or b"").decode().partition("|")
    ordinal, _, rest = rest.partition("|")
    queue, _, expires = rest.partition("|")
    if not queue:
        return Standing(), 0
    standing = Standing(queue=queue, running=state == "r", expires=float(expires) if expires else None)
    return standing, int(ordinal) if state == "q" else 0


def overdue(job_ids: Sequence[str], read: Sequence[tuple[Standing, int]]) -> list[str]:
    """Which of these jobs seem to be past their deadline without having started."""
    return [job_id for job_id, (standing, _) in zip(job_ids, read, strict=True) if is_overdue(standing)]


def is_overdue(standing: Standing) -> bool:
    """Whether a job seems to be past its deadline without having started; the server's clock decides."""
    late = standing.expires is not None and standing.expires + OVERDUE_SECONDS < time.time()
    return late and standing.result is None and not standing.running


def read_published(job_id: str, message: Mapping[str, Any] | None) -> Standing | None:
    """The end of a job from what redis-py read of its channel; None if it isn't one."""
    if message is None or message["type"] != "message" or message["channel"] != names.result_key(job_id).encode():
        return None
    result = decode_result(job_id, message["data"])
    return Standing(result=result) if result else None


def standing_keys(job_ids: Sequence[str]) -> list[str]:
    """Keys whose values ``read_standings`` reads: the results, then the records."""
    return [*map(names.result_key, job_ids), *map(names.record_key, job_ids)]


def read_standings(job_ids: Sequence[str], found: Sequence[bytes | None]) -> list[tuple[Standing, int]]:
    """Read what is known of each job, and its ordinal."""
    count = len(job_ids)
    return [read_standing(*job) for job in zip(job_ids, found[:count], found[count:], strict=True)]


def queues_waited_in(read: Sequence[tuple[Standing, int]]) -> set[str]:
    """Queues in which some of these jobs wait."""
    return {standing.queue for standing, ordinal in read if ordinal and standing.queue}


def placed(read: Sequence[tuple[Standing, int]], taken: Mapping[str, int]) -> list[Standing]:
    """Add waiting jobs' positions, from their ordinals and the number of jobs taken so far from each queue."""
    return [
        replace(standing, position=max(ordinal - taken[standing.queue] - 1, 0))
        if ordinal and standing.queue and standing.queue in taken
        else standing
        for standing, ordinal in read
    ]


def fresh_lanes(stored: Mapping[bytes, bytes]) -> dict[str, dict[str, Any]]:
    """What lanes said of themselves lately, by owner."""
    lanes = {str(owner, "utf-8"): orjson.loads(facts) for owner, facts in stored.items()}
    oldest = time.time() - LANE_REPORT_SECONDS
    return {owner: facts for owner, facts in lanes.items() if facts.get("at", 0) > oldest}


def total_rate(lanes: Mapping[str, Mapping[str, Any]]) -> float:
    """Jobs a second that all lanes of a queue ended lately."""
    return float(sum(facts.get("rate", 0.0) for facts in lanes.values()))


def read_report(info: QueueInfo, replies: Sequence[Any], owners: int) -> QueueReport:
    """Put a queue's report together from the replies to ``queues.wire_report``."""
    steps = len(names.PRIORITY_STEPS)
    parked, dead, totals, lanes, of_tenants, waiting_bytes = replies[steps : len(replies) - owners]
    waiting = dict(zip(names.PRIORITY_STEPS, replies[:steps], strict=False))
    tenants: Counter[str] = Counter()
    for (step, tenant), count in _by_list(of_tenants):
        waiting[step] += count
        tenants[tenant] += count
    return QueueReport(
        info=info,
        waiting=waiting,
        tenants=tenants,
        waiting_bytes=int(waiting_bytes or 0),
        parked=parked,
        leased=sum(replies[len(replies) - owners :]),
        dead=dead,
        totals={str(name, "utf-8"): int(count) for name, count in totals.items()},
        lanes=fresh_lanes(lanes),
    )


def _by_list(counts: Mapping[bytes, bytes]) -> Iterator[tuple[tuple[int, str], int]]:
    """Read the counts of tenants' lists, by step and tenant."""
    for field, count in counts.items():
        step, bar, tenant = str(field, "utf-8").partition("|")
        if bar:
            yield (int(step), tenant), int(count)


def lease_owners(members: Sequence[bytes]) -> dict[str, list[str]]:
    """Lease owners by queue."""
    owners: dict[str, list[str]] = {}
    for member in members:
        owner = str(member, "utf-8")
        owners.setdefault(names.owner_queue(owner), []).append(owner)
    return owners
