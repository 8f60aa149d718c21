"""Large contents of an answer: put aside while it is encoded, and forgotten again if it isn't stored."""

from __future__ import annotations

from dataclasses import asdict
from hashlib import sha256
from typing import Any, Final

from pipemill.codec import encoder
from pipemill.errors import PayloadTooLarge, PipemillError, ResultNotSerialisable
from pipemill.protocol import Job, Usage, decode_result, encode_success
from pipemill.protocol.names import USAGE_FIELD
from pipemill_worker.engine.lane import Lane
from pipemill_worker.engine.wiring import Wiring, log

#: How much longer parts are kept than the result that refers to them, in seconds: it is stored after them, later still
#: when the broker is away in between, and whoever reads it at its end reads them after it.
KEPT_LONGER_SECONDS: Final = 600


class EngineClosed(Exception):
    """Raised when the engine ended before the broker answered: the job goes back with its lease."""


class Keep:
    """What is put aside of one job's answer; its references stand in the answer's document."""

    def __init__(self, lane: Lane, wiring: Wiring, job: Job):
        self._lane = lane
        self._wiring = wiring
        self._job = job
        #: The same bytes are kept once, however often the answer has them, or its encoder asks.
        self._references: dict[bytes, str] = {}

    @property
    def above(self) -> int:
        """Contents of more bytes are put aside."""
        return self._lane.keep_above

    def __call__(self, data: bytes) -> str:
        """Put bytes aside, for longer than the queue's results are kept; returns their reference.

        Raises
        ------
        ResultNotSerialisable
            When they are too many to be kept.
        EngineClosed
            When the engine ended while the place could not be reached.

        """
        digest = sha256(data).digest()
        if digest not in self._references:
            self._references[digest] = self._put(data)
        return self._references[digest]

    def _put(self, data: bytes) -> str:
        lane, wiring = self._lane, self._wiring
        what = f"queue {lane.name}: keep a part of an answer"
        kept_seconds = lane.info.result_ttl_seconds + KEPT_LONGER_SECONDS
        try:
            reference = wiring.retrying(lambda: lane.blobs.put(data, kept_seconds), what, wiring.closed)
        except PayloadTooLarge as error:
            raise ResultNotSerialisable(f"a part of the pipeline's answer is too large: {error}") from error
        if reference is None:
            raise EngineClosed
        return reference

    def forget(self) -> None:
        """Delete what was put aside. What a chord has counted stays: its body may be given the references.

        A failure is no failure of the job: what is left expires by itself.
        """
        if not self._references or self._job.canvas.get("chord"):
            return
        try:
            self._lane.blobs.delete(list(self._references.values()))
        except PipemillError as error:
            text = "queue %s: parts of an answer nobody gets could not be deleted: %s; they expire by themselves"
            log.warning(text, self._lane.name, error, extra={"event": "keep_left", "job": self._job.id})
        self._references = {}


def encode_answer(job: Job, value: Any, keep: Keep, usage: Usage | None = None) -> tuple[Any, bytes]:
    """What follows the job is given, as plain JSON, and its result document; nothing is kept for nobody.

    Raises
    ------
    ResultNotSerialisable
        When the answer holds what JSON has no form for.

    """
    if job.ignore_result and not job.has_canvas:
        return value, b""
    links = (links_of(job) or {}) | ({} if usage is None else {USAGE_FIELD: asdict(usage)})
    try:
        document = encode_success(job.id, value, links=links, default=encoder(keep, keep.above))
    except TypeError as error:
        text = f"the pipeline's answer can't be written as JSON: {error}"
        raise ResultNotSerialisable(text) from error
    read = decode_result(job.id, document) if job.has_canvas else None
    return (value if read is None else read.value), document


def links_of(job: Job) -> dict[str, Any] | None:
    """What Celery adds to the result of a job that belongs to a canvas."""
    links = {"parent_id": job.headers.get("parent_id"), "group_id": job.headers.get("group")}
    return {name: value for name, value in links.items() if value is not None} or None
