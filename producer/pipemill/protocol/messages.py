"""Jobs on the wire: standard Celery messages, as kombu's Redis transport stores them."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

import orjson

from pipemill.errors import MalformedJob, NotSerialisable
from pipemill.protocol.names import (
    BYTES_HEADER,
    DELIVERY_END,
    DELIVERY_MARK,
    ENVELOPE_BYTES,
    MAX_ID_LENGTH,
    PAYLOAD_HEADER,
    STREAM_HEADER,
    TASK_NAME,
    TENANT_FORM,
    TENANT_HEADER,
)
from pipemill.protocol.results import dumps, has_non_finite

#: A longer delivery count is nobody's; Python refuses to read numbers of thousands of digits.
MAX_COUNT_DIGITS: Final = 10
#: Where our headers stand in a message, read without JSON as the scripts do: quotes in a body are escaped, or base64.
_TENANT: Final = re.compile(f'"{TENANT_HEADER}": ?"({TENANT_FORM})"'.encode())
_BYTES: Final = re.compile(f'"{BYTES_HEADER}": ?([0-9]{{1,{MAX_COUNT_DIGITS}}})[,}}]'.encode())

#: Sees from a job's headers and body that it is signed as it should be, and with which key.
Verify: TypeAlias = Callable[[dict[str, Any], bytes], str | None]


@dataclass(slots=True, eq=False)
class Job:
    """One request, as read from its message."""

    id: str
    queue: str
    inputs: Any
    parameters: dict[str, Any]
    #: Seconds since the epoch before which it must not start, or None.
    eta: float | None
    #: Seconds since the epoch after which it must not start, or None.
    expires: float | None
    ignore_result: bool
    #: Whether the inputs and parameters lie under ``payload_key(id)``.
    by_reference: bool
    #: Celery's headers and the embedded canvas (callbacks, errbacks, chain, chord).
    headers: dict[str, Any]
    canvas: dict[str, Any]
    priority: int | None
    #: Bytes of the message's body: inputs, parameters and canvas as JSON.
    size: int = 0
    #: The key that it was seen to be signed with.
    signed_by: str | None = None

    @property
    def has_canvas(self) -> bool:
        """Whether something follows this job: a link, an errback, the rest of a chain, a chord."""
        return any(self.canvas.values()) or self.headers.get("group") is not None


_NO_CANVAS: Final = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def encode_arguments(inputs: Any, parameters: dict[str, Any], default: Callable[[Any], Any] | None = None) -> bytes:
    """Write inputs and parameters as a Celery message body (JSON); ``default`` writes what JSON lacks.

    Raises
    ------
    NotSerialisable
        When they hold what JSON has no form for.

    """
    try:
        encoded = dumps(((inputs,), parameters, _NO_CANVAS), default)
    except (TypeError, ValueError) as error:
        message = f"inputs and parameters must be JSON (str, int, float, bool, None, list, dict): {error}"
        raise NotSerialisable(message) from error
    if encoded.count(b"null") > len(_NO_CANVAS) and has_non_finite((inputs, parameters)):
        message = "inputs and parameters must be JSON, and JSON has no form for NaN or infinity: send None instead"
        raise NotSerialisable(message)
    return encoded


#: The headers that are the same for every job of ours.
_HEADERS: Final[dict[str, Any]] = {
    "lang": "py",
    "task": TASK_NAME,
    "shadow": None,
    "group": None,
    "group_index": None,
    "retries": 0,
    "timelimit": (None, None),
    "parent_id": None,
    "argsrepr": "",
    "kwargsrepr": "",
    "origin": "pipemill",
}


def encode_message(  # noqa: PLR0913  # each is a field of the message
    job_id: str,
    queue: str,
    arguments: bytes,
    *,
    by_reference: bool = False,
    tenant: str = "",
    priority: int = 0,
    eta: float | None = None,
    expires: float | None = None,
    ignore_result: bool = False,
    stream: bool = False,
) -> bytes:
    """Write a job as kombu's Redis transport stores a Celery message (protocol 2)."""
    body = b'[[null],{},{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]' if by_reference else arguments
    headers: dict[str, Any] = {
        **_HEADERS,
        "id": job_id,
        "root_id": job_id,
        "eta": _iso(eta),
        "expires": _iso(expires),
        "ignore_result": ignore_result,
        BYTES_HEADER: ENVELOPE_BYTES + (len(arguments) if by_reference else -(-4 * len(arguments) // 3)),
    }
    if by_reference:
        headers[PAYLOAD_HEADER] = True
    if tenant:
        headers[TENANT_HEADER] = tenant
    if stream:
        headers[STREAM_HEADER] = True
    properties = {
        "correlation_id": job_id,
        "reply_to": "",
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": queue},
        "priority": priority,
        "body_encoding": "base64",
        "delivery_tag": job_id,
    }
    return orjson.dumps(
        {
            "body": b64encode(body).decode("ascii"),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": headers,
            "properties": properties,
        }
    )


def _iso(moment: float | None) -> str | None:
    return None if moment is None else datetime.fromtimestamp(moment, UTC).isoformat()


def message_id(raw: bytes) -> str | None:
    """Find the job id in a message, even in one that is otherwise no job; None if there is none to answer to."""
    try:
        job_id = _loads_leniently(raw)["headers"]["id"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return job_id if isinstance(job_id, str) and 0 < len(job_id) <= MAX_ID_LENGTH and _has_utf8(job_id) else None


def _has_utf8(text: str) -> bool:
    """Whether it can be part of a key: half a surrogate pair, which JSON can spell, has no bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def message_tenant(raw: bytes) -> str:
    """Find the tenant in a message; empty if it names none."""
    found = _TENANT.search(raw)
    return found[1].decode() if found else ""


def message_bytes(raw: bytes) -> int:
    """Find how many bytes a message counts for while it waits; 0 if it doesn't say."""
    found = _BYTES.search(raw)
    return int(found[1]) if found else 0


def _loads_leniently(raw: bytes) -> Any:
    """Read JSON as Celery's own encoder may write it: with half a surrogate pair, say, which orjson refuses."""
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        import json  # noqa: PLC0415  # rarely needed, and it would slow down the import of every producer

        return json.loads(raw)


def decode_message(raw: bytes, queue: str, verify: Verify | None = None) -> Job:
    """Read a job from its message; what ``verify`` refuses isn't read any further.

    Raises
    ------
    SignatureRefused
        By ``verify``.
    MalformedJob
        When the message isn't a job; the text says what a job looks like.

    """
    try:
        message = orjson.loads(raw)
        headers = message["headers"]
        job_id = headers["id"]
        name = headers["task"]
    except (ValueError, TypeError, KeyError) as error:
        text = "the message isn't a Celery task message (protocol 2, JSON); send it with a pipemill client or send_task"
        raise MalformedJob(text) from error
    if not isinstance(job_id, str) or not 0 < len(job_id) <= MAX_ID_LENGTH:
        text = f"the job id must be a string of 1 to {MAX_ID_LENGTH} characters"
        raise MalformedJob(text)
    if name != TASK_NAME:
        text = f"queue {queue!r} answers to the task name {TASK_NAME!r}, not {str(name)[:80]!r}"
        raise MalformedJob(text)
    body = _body(message, headers)
    signed_by = None if verify is None else verify(headers, body)
    inputs, parameters, canvas = decode_arguments(body)
    priority = _properties(message).get("priority")
    return Job(
        id=job_id,
        queue=queue,
        inputs=inputs,
        parameters=parameters,
        eta=_moment(headers, "eta"),
        expires=_moment(headers, "expires"),
        ignore_result=bool(headers.get("ignore_result")),
        by_reference=bool(headers.get(PAYLOAD_HEADER)),
        headers=headers,
        canvas=canvas,
        priority=priority if isinstance(priority, int) else None,
        size=len(body),
        signed_by=signed_by,
    )


def _body(message: dict[str, Any], headers: dict[str, Any]) -> bytes:
    if message.get("content-type") != "application/json":
        text = f"the body must be JSON, not {str(message.get('content-type'))[:80]!r}: set task_serializer='json'"
        raise MalformedJob(text)
    if headers.get("compression"):
        text = "compressed bodies aren't read: send without compression"
        raise MalformedJob(text)
    body = message.get("body")
    if not isinstance(body, str):
        text = "the message has no body"
        raise MalformedJob(text)
    try:
        encoded = _properties(message).get("body_encoding") == "base64"
        return b64decode(body, validate=True) if encoded else body.encode()
    except ValueError as error:
        text = "the body isn't base64, though its properties say so"
        raise MalformedJob(text) from error


def _properties(message: dict[str, Any]) -> dict[str, Any]:
    properties = message.get("properties")
    return properties if isinstance(properties, dict) else {}


def decode_arguments(body: bytes) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Read inputs, parameters and canvas from a message body.

    Raises
    ------
    MalformedJob
        When it isn't ``[[inputs], {parameters}, {...}]``.

    """
    try:
        args, kwargs, canvas = orjson.loads(body)
    except (ValueError, TypeError) as error:
        text = "the body must be JSON of the form [[inputs], {parameters}, {...}]"
        raise MalformedJob(text) from error
    if not isinstance(args, list) or not isinstance(kwargs, dict) or not isinstance(canvas, dict | None):
        text = "the body must be [[inputs], {parameters}, {...}]: positional arguments first, then keyword arguments"
        raise MalformedJob(text)
    if len(args) != 1:
        text = f"a job takes exactly one positional argument, its inputs, and parameters by keyword; got {len(args)}"
        raise MalformedJob(text)
    return args[0], kwargs, canvas or {}


def _moment(headers: dict[str, Any], name: str) -> float | None:
    value = headers.get(name)
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        text = f"the header {name!r} must be an ISO 8601 time"
        raise MalformedJob(text) from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def split_deliveries(stored: bytes) -> tuple[int, bytes]:
    """Return how often a stored message was delivered to a worker that then died, and the message itself."""
    if stored[:1] != DELIVERY_MARK:
        return 0, stored
    count, _, raw = stored[1:].partition(DELIVERY_END)
    return (int(count), raw) if count.isdigit() and len(count) < MAX_COUNT_DIGITS else (0, stored)
