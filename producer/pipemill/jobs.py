"""How both clients make jobs: options, checks, encoding. Pure; no store is called."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import repeat
from typing import Any, Final, TypedDict
from uuid import uuid4

import orjson

from pipemill.codec import encoder
from pipemill.errors import NotSerialisable, ParameterRefused, PayloadTooLarge, UnknownQueue
from pipemill.protocol import dumps, encode_arguments, encode_message, names
from pipemill.store.base import QueueInfo, Submission

#: Jobs sent by one call of a script; larger chunks save little and keep the server from others for longer.
CHUNK: Final = 64
#: Most jobs that may be sent by one call of a script.
CHUNK_AT_MOST: Final = 1000
#: Bytes of payloads sent ahead of one call: they take room at the broker before it can say that there is none.
UPLOAD_AT_MOST: Final = 4 << 20
#: Characters of a name that a message repeats.
SHOWN_CHARACTERS: Final = 80

#: By priority, the index of its list.
_LIST_INDEX: Final = {priority: names.PRIORITY_STEPS.index(names.priority_step(priority)) for priority in range(10)}
_TENANT: Final = re.compile(names.TENANT_FORM)
#: The last second that a message's times can name: the end of the year 9999.
_LAST_SECOND: Final = 253_402_300_799.0


class JobOptions(TypedDict, total=False):
    """What may be said of a job besides its inputs and parameters."""

    #: 0 (most urgent) to 9, as in Celery on Redis, which files them under four steps: 0, 3, 6, 9.
    priority: int
    #: Seconds from now before which it must not start.
    countdown: float | None
    #: The moment before which it must not start: an aware datetime, or seconds since the epoch.
    eta: datetime | float | None
    #: When it is pointless to start it: an aware datetime, or seconds from now. A job whose time is over is accepted,
    #: and has expired.
    expires: datetime | float | None
    #: Whether to store no result: there is nothing to wait for.
    ignore_result: bool
    #: Whether its text can be followed while it is written: ``Client.follow``.
    stream: bool
    #: On whose behalf: tenants of a queue take turns. 1 to 64 letters, digits and ``._1913-``; empty for nobody's.
    tenant: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The options of a call, checked; moments are in seconds since the epoch."""

    priority: int
    eta: float | None
    expires: float | None
    ignore_result: bool
    tenant: str = ""
    stream: bool = False


def mine(options: JobOptions, tenant: str) -> JobOptions:
    """Options that say whose the jobs are, if they didn't."""
    return {**options, "tenant": tenant} if options.get("tenant") is None else options


def check_options(  # noqa: PLR0913  # each is an option of the job
    *,
    priority: int = 0,
    countdown: float | None = None,
    eta: datetime | float | None = None,
    expires: datetime | float | None = None,
    ignore_result: bool = False,
    tenant: str | None = None,
    stream: bool = False,
) -> Terms:
    """Check the options of a call.

    Raises
    ------
    ValueError
        When one is out of bounds.

    """
    if priority not in _LIST_INDEX:
        raise ValueError(f"priority must be a whole number from 0 (most urgent) to 9, not {cut(priority)}")
    if stream and ignore_result:
        raise ValueError("a stream ends with the job's result: give stream or ignore_result, not both")
    return Terms(
        priority=int(priority),
        eta=_eta(countdown, eta),
        expires=_moment("expires", expires, time.time()),
        ignore_result=ignore_result,
        tenant=check_tenant(tenant),
        stream=stream,
    )


def check_tenant(tenant: str | None) -> str:
    """Return a tenant's name, empty for none.

    Raises
    ------
    ValueError
        When no tenant can have it.

    """
    if tenant and not _TENANT.fullmatch(str(tenant)):
        raise ValueError(f"a tenant is named by 1 to 64 letters, digits and any of . _ @ + -, not {cut(tenant)}")
    return tenant or ""


def _eta(countdown: float | None, eta: datetime | float | None) -> float | None:
    if countdown is not None and eta is not None:
        raise ValueError("give countdown or eta, not both: each says when the job may start")
    moment = _moment("eta", eta, 0.0) if countdown is None else _moment("countdown", countdown, time.time())
    if moment is not None and moment - time.time() > names.RECORD_TTL_SECONDS:
        days = names.RECORD_TTL_SECONDS // 86_400
        raise ValueError(f"a job can wait {days} days at most, the broker forgets it then: submit it nearer its time")
    return moment


def _moment(name: str, given: datetime | float | None, origin: float) -> float | None:
    """Seconds since the epoch; numbers count from ``origin``."""
    if given is None:
        return None
    if isinstance(given, datetime):
        if given.tzinfo is None:
            raise ValueError(f"{name} must say its time zone: datetime.now(UTC) + timedelta(...), for one")
        return given.timestamp()
    moment = origin + given
    if not 0 <= moment <= _LAST_SECOND:
        raise ValueError(f"{name} must be a number of seconds that leads to a date before 10000, not {cut(given)}")
    return moment


def new_id() -> str:
    """Name a job."""
    return str(uuid4())


def is_id(name: Any) -> bool:
    """Whether a job or a queue can have this name: it becomes part of key names."""
    return isinstance(name, str) and 0 < len(name) <= names.MAX_ID_LENGTH and name.isprintable()


def check_id(what: str, name: str) -> str:
    """Return a job id or an idempotency key that a caller chose.

    Raises
    ------
    ValueError
        When it can't be one.

    """
    if not is_id(name):
        raise ValueError(f"{what} must be 1 to {names.MAX_ID_LENGTH} printable characters, not {cut(name)}")
    return name


def check_queue(name: str) -> str:
    """Return the name of a queue.

    Raises
    ------
    UnknownQueue
        When no queue can have it.

    """
    if not is_id(name):
        raise UnknownQueue(
            f"a queue's name is 1 to {names.MAX_ID_LENGTH} printable characters, not {cut(name)}: "
            "the catalogue and `pipemill queues` say which there are"
        )
    return name


def check_parameters(parameters: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return parameters as a dict."""
    if parameters is None:
        return {}
    if not isinstance(parameters, Mapping):
        raise TypeError(f"parameters must be a mapping of names to values, not {cut(parameters)}")
    return parameters if isinstance(parameters, dict) else dict(parameters)


def check_task_takes(info: QueueInfo, parameters: dict[str, Any]) -> None:
    """Refuse parameters that the queue's task doesn't take, as the worker would; tasks unknown here take all.

    Raises
    ------
    ParameterRefused
        When one is unknown, refused or out of its bounds. What a job must have isn't asked for: the queue's own
        parameters may have it.

    """
    from pipemill.parameters.validate import tell_mistakes  # noqa: PLC0415  # it brings pydantic, which `import pipemill` spares

    try:
        received = orjson.loads(dumps(parameters, encoder()))
    except (TypeError, ValueError):
        return  # they can't be written, which is told when they are
    if text := tell_mistakes(info.task, received):
        raise ParameterRefused(text)


def check_many(inputs: Iterable[Any]) -> Iterable[Any]:
    """Return the inputs of many jobs; a string would be one job for each character."""
    if isinstance(inputs, str | bytes | Mapping) or not isinstance(inputs, Iterable):
        raise TypeError(f"inputs must be an iterable, one element per job; for one job use submit: {cut(inputs)}")
    return inputs


def encode_many(inputs: Iterable[Any], parameters: dict[str, Any], default: Callable[[Any], Any]) -> list[bytes]:
    """Encode the arguments of many jobs; an error names the one at fault."""
    encoded = []
    for index, each in enumerate(inputs):
        try:
            encoded.append(encode_arguments(each, parameters, default))
        except NotSerialisable as error:
            raise NotSerialisable(f"inputs {index} (counted from 0): {error}") from error
    return encoded


def check_size(arguments: bytes, info: QueueInfo) -> None:
    """Refuse arguments larger than the queue takes.

    Raises
    ------
    PayloadTooLarge
        With the size and the limit.

    """
    if len(arguments) > info.max_input_bytes:
        raise PayloadTooLarge(
            f"inputs and parameters are {len(arguments)} bytes as JSON and queue {info.name!r} takes "
            f"{info.max_input_bytes}: split them, or raise the queue's limits.max_input_bytes in the catalogue"
        )


def submission(queue: str, job_id: str, arguments: bytes, terms: Terms, key: str = "") -> Submission:
    """Encode a job; large arguments go beside the message."""
    large = len(arguments) > names.REFERENCE_BYTES
    message = encode_message(
        job_id,
        queue,
        arguments,
        by_reference=large,
        tenant=terms.tenant,
        priority=terms.priority,
        eta=terms.eta,
        expires=terms.expires,
        ignore_result=terms.ignore_result,
        stream=terms.stream,
    )
    return Submission(
        job_id=job_id,
        list_index=_LIST_INDEX[terms.priority],
        message=message,
        idempotency_key=key,
        payload=arguments if large else None,
        expires=None if terms.ignore_result else terms.expires,  # there is nobody to tell
    )


def submissions(
    queue: str, encoded: Sequence[bytes], terms: Terms, keys: Sequence[str] | None = None
) -> list[Submission]:
    """Encode many jobs, each with its idempotency key if there are keys."""
    if keys is None:
        return [submission(queue, new_id(), arguments, terms) for arguments in encoded]
    if len(keys) != len(encoded):
        raise ValueError(f"give one idempotency key for each of the {len(encoded)} inputs, not {len(keys)}")
    checked = [check_id("each idempotency key", key) for key in keys]
    return [submission(queue, new_id(), *job) for job in zip(encoded, repeat(terms), checked, strict=False)]


def parts(jobs: Sequence[Submission], chunk: int) -> list[Sequence[Submission]]:
    """Cut jobs into chunks, each for one call of a script.

    Raises
    ------
    ValueError
        When a chunk would hold nothing, or keep the server from others for long.

    """
    if not 1 <= chunk <= CHUNK_AT_MOST:
        raise ValueError(f"chunk must be from 1 to {CHUNK_AT_MOST} jobs, not {chunk}")
    found, start = [], 0
    while start < len(jobs):
        end = part_end(jobs, start, chunk)
        found.append(jobs[start:end])
        start = end
    return found


def part_end(jobs: Sequence[Submission], start: int, chunk: int) -> int:
    """Where a part ends: after ``chunk`` jobs, or ``UPLOAD_AT_MOST`` bytes of payloads unless its first has more."""
    uploaded = 0
    for end in range(start, min(start + chunk, len(jobs))):
        uploaded += len(jobs[end].payload or b"")
        if uploaded > UPLOAD_AT_MOST and end > start:
            return end
    return min(start + chunk, len(jobs))


def cut(value: Any) -> str:
    """Write a value as a message may repeat it."""
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 1]}…"
