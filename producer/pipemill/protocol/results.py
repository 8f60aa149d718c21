"""Results on the wire: Celery's own documents, which ``AsyncResult`` reads."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime
from numbers import Real
from typing import Any

import orjson

from pipemill.errors import JOB_ERRORS, JobCancelled, JobError, JobExpired, JobFailed
from pipemill.protocol.names import MEDIA_MARK, USAGE_FIELD
from pipemill.protocol.states import JobStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What writing an answer took, in the words of OpenAI's API."""

    #: Tokens that the model was given.
    prompt_tokens: int
    #: Tokens that it wrote in all answers, those that end them included.
    completion_tokens: int
    #: ``stop``: it came to an end, or to a stop string. ``length``: it was cut off. None if its answers differ in that.
    finish_reason: str | None

    @property
    def total_tokens(self) -> int:
        """Both together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a job ended."""

    job_id: str
    status: JobStatus
    #: The answer, when it succeeded.
    value: Any = None
    #: What ``result()`` raises, when it didn't.
    error: JobError | None = None
    #: Whether the answer may hold forms of media: images, arrays and the like, as JSON has them.
    has_media: bool = False
    #: What writing the answer took, where a model wrote it and the worker can tell.
    usage: Usage | None = None

    def get(self) -> Any:
        """Return the answer.

        Raises
        ------
        JobError
            When the job ended other than well.

        """
        if self.error is not None:
            raise self.error
        return self.value


def encode_success(
    job_id: str, value: Any, *, links: dict[str, Any] | None = None, default: Callable[[Any], Any] | None = None
) -> bytes:
    """Write an answer as Celery's result document; NaN and infinities as Celery's own encoder writes them.

    ``default`` writes what JSON lacks, ``pipemill.codec.encoder()`` for one; without it arrays become lists.

    Raises
    ------
    TypeError
        When the answer holds what JSON has no form for.

    """
    encoded = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY) if default is None else dumps(value, default)
    if b"null" in encoded and has_non_finite(value):
        encoded = _dumps_with_nan(value, default)
    return _document("SUCCESS", job_id, orjson.Fragment(encoded), links)


def dumps(value: Any, default: Callable[[Any], Any] | None) -> bytes:
    """Write JSON; ``default`` writes what JSON lacks, and what it raises is raised as it is."""
    try:
        return orjson.dumps(value, default, orjson.OPT_PASSTHROUGH_DATACLASS if default else 0)
    except orjson.JSONEncodeError as error:
        if error.__cause__ is not None:
            raise error.__cause__ from None
        raise


def has_non_finite(value: Any) -> bool:
    """Whether a value holds a NaN or an infinity, which orjson writes as null."""
    if isinstance(value, dict):
        return any(map(has_non_finite, value.values()))
    if isinstance(value, list | tuple):
        return any(map(has_non_finite, value))
    if type(value) is float:
        return not math.isfinite(value)
    if value is None or isinstance(value, str | int):
        return False
    if is_dataclass(value) and not isinstance(value, type):
        return any(has_non_finite(getattr(value, each.name)) for each in fields(value) if each.name[0] != "_")
    return isinstance(value, Real) and not math.isfinite(value)


def encode_failure(job_id: str, error: JobError, *, links: dict[str, Any] | None = None) -> bytes:
    """Write an error as Celery's result document; a cancelled or expired job is Celery's REVOKED."""
    if isinstance(error, JobCancelled | JobExpired):
        reason = "expired" if isinstance(error, JobExpired) else "revoked"
        revoked = {"exc_type": "TaskRevokedError", "exc_message": [reason], "exc_module": "celery.exceptions"}
        return _document("REVOKED", job_id, revoked, links)
    text = str(error).encode(errors="replace").decode()  # without half surrogate pairs, which JSON has no form for
    failure = {"exc_type": type(error).__name__, "exc_message": [text], "exc_module": type(error).__module__}
    return _document("FAILURE", job_id, failure, links)


def _document(status: str, job_id: str, result: Any, links: dict[str, Any] | None) -> bytes:
    document = {
        "status": status,
        "result": result,
        "traceback": None,
        "children": [],
        "date_done": datetime.now(UTC).isoformat(),
        "task_id": job_id,
    }
    if links:
        document.update(links)
    return orjson.dumps(document)


def decode_result(job_id: str, document: bytes) -> Result | None:
    """Read a result document, ours or Celery's; None when the job hasn't ended."""
    try:
        meta = orjson.loads(document)
    except orjson.JSONDecodeError:
        meta = _loads_with_nan(document)
    status, value = meta.get("status"), meta.get("result")
    if status == "SUCCESS":
        return Result(
            job_id=job_id,
            status=JobStatus.SUCCEEDED,
            value=value,
            has_media=MEDIA_MARK in document,
            usage=_usage(meta.get(USAGE_FIELD)),
        )
    if status == "FAILURE":
        return Result(job_id=job_id, status=JobStatus.FAILED, error=_error(value))
    if status == "REVOKED":
        if "expired" in str(value):
            text = "the job was not started before its deadline; submit it again with a later one"
            return Result(job_id=job_id, status=JobStatus.EXPIRED, error=JobExpired(text))
        return Result(job_id=job_id, status=JobStatus.CANCELLED, error=JobCancelled("the job was cancelled"))
    return None


def _dumps_with_nan(value: Any, default: Callable[[Any], Any] | None) -> bytes:
    import json  # noqa: PLC0415  # rarely needed, and it would slow down the import of every producer

    return json.dumps(value, default=default).encode()


def _loads_with_nan(document: bytes) -> Any:
    """Read JSON with NaN and Infinity, as Celery's own encoder writes them."""
    import json  # noqa: PLC0415  # rarely needed, and it would slow down the import of every producer

    return json.loads(document)


def _usage(said: Any) -> Usage | None:
    """Read what writing took; what isn't of this form, such as a newer version's, is left out."""
    if not isinstance(said, dict):
        return None
    prompt, completion, reason = (said.get(each.name) for each in fields(Usage))
    if not isinstance(prompt, int) or not isinstance(completion, int) or not isinstance(reason, str | None):
        return None
    return Usage(prompt_tokens=prompt, completion_tokens=completion, finish_reason=reason)


def _error(value: Any) -> JobError:
    if not isinstance(value, dict):
        return JobFailed(str(value))
    name, messages = str(value.get("exc_type")), value.get("exc_message")
    text = "; ".join(map(str, messages)) if isinstance(messages, list | tuple) else str(messages)
    known = JOB_ERRORS.get(name)
    return known(text) if known else JobFailed(f"{name}: {text}")
