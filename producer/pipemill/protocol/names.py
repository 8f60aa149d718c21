"""Names and keys: everything that is called something in Redis."""

from __future__ import annotations

import os
import socket
from typing import Final
from uuid import uuid4

#: The one Celery task name that lanes answer to.
TASK_NAME: Final = "pipemill.infer"
#: The prefix of all keys that aren't Celery's.
PREFIX: Final = "pipemill:"
#: kombu's default priority steps of the Redis transport: one list each, 0 first.
PRIORITY_STEPS: Final = (0, 3, 6, 9)
#: kombu's separator between a queue's name and a priority step other than 0.
PRIORITY_SEPARATOR: Final = "\x06\x16"
#: Celery's prefix of result keys, also the name of the channel on which a result is published.
RESULT_PREFIX: Final = "celery-task-meta-"
#: Inputs whose message body is larger travel by reference, in bytes: a script that moves 1 MB blocks Redis for 6 ms.
REFERENCE_BYTES: Final = 32 * 1024
#: How long Redis remembers an accepted job that never ends (a purged queue), in seconds: a week.
RECORD_TTL_SECONDS: Final = 7 * 24 * 3600
#: The longest job id accepted, in characters; ids become part of key names.
MAX_ID_LENGTH: Final = 255
#: The header that says where a payload sent by reference lies.
PAYLOAD_HEADER: Final = "pipemill_payload"
#: The header that names the tenant a job belongs to; a job without it belongs to the tenant without a name.
TENANT_HEADER: Final = "pipemill_tenant"
#: The header that says how many bytes a job counts for while it waits; without it a job counts for none.
BYTES_HEADER: Final = "pipemill_bytes"
#: The header of a job whose text is followed while it is written: true.
STREAM_HEADER: Final = "pipemill_stream"
#: The field of a result document with what writing the answer took.
USAGE_FIELD: Final = "pipemill_usage"
#: What a tenant may be called: part of a key, and found in a message without reading it as JSON.
TENANT_FORM: Final = r"[A-Za-z0-9._@+-]{1,64}"
#: Bytes that a waiting job takes in the broker besides its inputs and parameters: its envelope and its record.
ENVELOPE_BYTES: Final = 1024
#: What the name of each header of ours starts with. All of them are signed, so workers leave them as they were sent.
HEADER_PREFIX: Final = "pipemill_"
#: The header with a job's signature: ``<version>:<key id>:<hex>``. The only one of ours that isn't signed.
SIGNATURE_HEADER: Final = "pipemill_signature"
#: The header that says when a job was signed, in whole seconds since the epoch.
SIGNED_AT_HEADER: Final = "pipemill_signed_at"
#: The header with the SHA-256 of a signed job's payload sent by reference, in hex.
DIGEST_HEADER: Final = "pipemill_digest"
#: What every document with media in it has: the keys of their forms, and no others of ours, start so.
MEDIA_MARK: Final = b'"$'
#: First byte of a message that has been delivered before: ``\x01<count>\x02<message>``.
DELIVERY_MARK: Final = b"\x01"
DELIVERY_END: Final = b"\x02"
#: The environment variables that hold signing keys, or name their file.
KEYS_VARIABLE: Final = "PIPEMILL_SIGNING_KEYS"
KEYS_FILE_VARIABLE: Final = "PIPEMILL_SIGNING_KEYS_FILE"
#: What no queue's name starts with: keys of ours and of Celery's.
RESERVED_PREFIXES: Final = (PREFIX, RESULT_PREFIX, "celery-taskset-meta-", "_kombu.", "unacked")

QUEUES_KEY: Final = f"{PREFIX}queues"
LEASES_KEY: Final = f"{PREFIX}leases"
SEQUENCE_KEY: Final = f"{PREFIX}sequence"


def lease_key(owner: str) -> str:
    """Hash of the jobs that an owner has leased: field → message."""
    return f"{PREFIX}lease:{owner}"


def inbox_key(owner: str) -> str:
    """List into which an idle owner's blocking wait moves a job; leased like the hash."""
    return f"{PREFIX}inbox:{owner}"


def delayed_key(queue: str) -> str:
    """Sorted set of parked jobs by due time (seconds since the epoch)."""
    return f"{PREFIX}delayed:{queue}"


def dead_key(queue: str) -> str:
    """List of the messages that workers before dead letters had a history gave up, newest first."""
    return f"{PREFIX}dead:{queue}"


def dead_times_key(queue: str) -> str:
    """Sorted set of dead letters by the time they died."""
    return f"{PREFIX}dead-times:{queue}"


def dead_letters_key(queue: str) -> str:
    """Hash of dead letters: what is said of each (JSON), a line feed, its message; under the empty name, all bytes."""
    return f"{PREFIX}dead-letters:{queue}"


def dead_payload_key(job_id: str) -> str:
    """Where the payload of a dead letter lies."""
    return f"{PREFIX}dead-payload:{job_id}"


def dead_history_key(job_id: str) -> str:
    """List of what happened to a dead letter's job, oldest first."""
    return f"{PREFIX}dead-history:{job_id}"


def counters_key(queue: str) -> str:
    """Hash of running totals of a queue."""
    return f"{PREFIX}counters:{queue}"


def lanes_key(queue: str) -> str:
    """Hash owner → what the lane last said of itself (JSON)."""
    return f"{PREFIX}lanes:{queue}"


def cancelled_key(queue: str) -> str:
    """Sorted set of cancelled job ids by the time they were cancelled; also the channel on which each is published."""
    return f"{PREFIX}cancelled:{queue}"


def record_key(job_id: str) -> str:
    """The job record while it hasn't ended: ``<q|r|p>|<ordinal>|<queue>`` (queued, running or parked).

    What has a deadline and hasn't started has ``|<seconds since the epoch>`` behind that.
    """
    return f"{PREFIX}job:{job_id}"


def payload_key(job_id: str) -> str:
    """Where a large payload lies while the job hasn't ended."""
    return f"{PREFIX}payload:{job_id}"


def history_key(job_id: str) -> str:
    """List of what happened to a job that hasn't ended, oldest first; there is none as long as all goes well."""
    return f"{PREFIX}history:{job_id}"


def stream_key(job_id: str) -> str:
    """Redis Stream of a job's text as it is written: ``r`` run, ``o`` offset, ``t`` text; or ``end``."""
    return f"{PREFIX}stream:{job_id}"


def blob_key(name: str) -> str:
    """Where bytes sent by reference lie; the name is random."""
    return f"{PREFIX}blob:{name}"


def once_key(queue: str, key: str) -> str:
    """The job id that an idempotency key stands for."""
    return f"{PREFIX}once:{queue}:{key}"


def result_key(job_id: str) -> str:
    """Celery's result key, and the channel on which the result is published."""
    return f"{RESULT_PREFIX}{job_id}"


def priority_step(priority: int) -> int:
    """The step kombu files a priority under: the highest that isn't above it."""
    return max(step for step in PRIORITY_STEPS if step <= max(priority, 0))


def list_key(queue: str, step: int) -> str:
    """The list of a queue's jobs of one priority step, as kombu names it."""
    return f"{queue}{PRIORITY_SEPARATOR}{step}" if step else queue


def list_keys(queue: str) -> list[str]:
    """All lists of a queue, most urgent first."""
    return [list_key(queue, step) for step in PRIORITY_STEPS]


def tenant_list_key(queue: str, step: int, tenant: str) -> str:
    """The list of a tenant's jobs of one priority step; jobs without a tenant are in Celery's own list."""
    return f"{PREFIX}tenant:{step}:{queue}:{tenant}" if tenant else list_key(queue, step)


def ring_key(queue: str, step: int) -> str:
    """Sorted set of the tenants with jobs of one step, by turn; ``|`` has the turn of the last job taken."""
    return f"{PREFIX}ring:{step}:{queue}"


def waiting_key(queue: str) -> str:
    """Hash ``<step>|<tenant>`` → jobs waiting in that tenant's list, and ``*`` → their sum."""
    return f"{PREFIX}waiting:{queue}"


def bytes_key(queue: str) -> str:
    """Hash ``<step>|<tenant>`` → bytes of the jobs waiting in that list, and ``*`` → their sum."""
    return f"{PREFIX}bytes:{queue}"


def passed_key(queue: str) -> str:
    """Hash of the priority steps that more urgent jobs keep waiting: since when, and how many turns they are owed."""
    return f"{PREFIX}passed:{queue}"


def new_owner(queue: str) -> str:
    """Name a lease owner: one lane in one process. The queue is what stands before the bar."""
    return f"{queue}|{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"


def owner_queue(owner: str) -> str:
    """Return the queue an owner takes from."""
    return owner.partition("|")[0]
