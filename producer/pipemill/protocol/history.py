"""What went wrong with a job so far: a few lines of JSON beside its record, which its dead letter takes along."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, TypeAlias

import orjson

#: Most incidents kept of one job, the last ones: a text each, of at most ``TEXT_CHARACTERS``.
INCIDENTS_KEPT: Final = 32
#: The longest text of an incident, in characters.
TEXT_CHARACTERS: Final = 200
#: The longest text of a dead letter, in characters: it tells several incidents.
LETTER_CHARACTERS: Final = 2_000
#: Incidents that a sentence for people tells, the last ones.
TOLD: Final = 5


class IncidentKind(StrEnum):
    """What happened to a job."""

    #: An attempt ended with an error that may pass.
    FAILED = "failed"
    #: The worker that held it died.
    LOST = "lost"
    #: Somebody put its dead letter back into the queue: attempts and deliveries count anew.
    REPLAYED = "replayed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """One thing that happened to a job, other than well. Nothing of its inputs is in it."""

    #: When, in seconds since the epoch by the broker's clock.
    at: float
    kind: IncidentKind
    #: The owner of the lease; empty for a replay.
    worker: str = ""
    #: Which attempt failed, counted from 1; 0 where none did.
    attempt: int = 0
    #: The error's class.
    error: str = ""
    #: What the error said, cut short.
    text: str = ""


#: What happened to a job, oldest first.
History: TypeAlias = Sequence[Incident]


def encode_incident(
    kind: IncidentKind, *, worker: str = "", attempt: int = 0, error: str = "", text: str = ""
) -> bytes:
    """Write an incident without its time, which the script that stores it puts in front."""
    said = {"kind": kind.value, "worker": worker, "attempt": attempt, "error": error, "text": _clean(text)}
    return orjson.dumps({name: value for name, value in said.items() if value})


def at_time(incident: bytes, now: float) -> bytes:
    """An incident with its time in front, as the scripts write it."""
    return b'{"at":%.3f,' % now + incident[1:]


def decode_history(entries: Iterable[bytes]) -> tuple[Incident, ...]:
    """Read what happened to a job; lines that can't be read, such as a newer version's, are left out."""
    return tuple(incident for incident in map(_incident, entries) if incident is not None)


def _incident(entry: bytes) -> Incident | None:
    try:
        said: dict[str, Any] = orjson.loads(entry)
        return Incident(
            at=float(said["at"]),
            kind=IncidentKind(said["kind"]),
            worker=str(said.get("worker", "")),
            attempt=int(said.get("attempt", 0)),
            error=str(said.get("error", "")),
            text=str(said.get("text", "")),
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def attempts_in(history: History) -> int:
    """How many attempts failed so far, since the last replay."""
    for incident in reversed(history):
        if incident.kind is IncidentKind.REPLAYED:
            return 0
        if incident.kind is IncidentKind.FAILED:
            return incident.attempt
    return 0


def tell(history: History) -> str:
    """The last of what happened, in a sentence for people; empty when nothing did."""
    return "; ".join(map(_told, history[-TOLD:]))


def _told(incident: Incident) -> str:
    when = f"{datetime.fromtimestamp(incident.at, UTC):%Y-%m-%d %H:%M:%S} UTC"
    if incident.kind is IncidentKind.LOST:
        return f"{when} worker {incident.worker} died"
    if incident.kind is IncidentKind.REPLAYED:
        return f"{when} replayed"
    return f"{when} attempt {incident.attempt}: {incident.error}: {incident.text}"


def encode_letter(*, error: str = "", text: str = "", deliveries: int = 0, attempts: int = 0) -> bytes:
    """Write what a dead letter says of its job's end; its time, size and list are put in front by the script."""
    return orjson.dumps(
        {"error": error, "text": _clean(text, LETTER_CHARACTERS), "deliveries": deliveries, "attempts": attempts}
    )


def _clean(text: str, most: int = TEXT_CHARACTERS) -> str:
    """A text cut short, without half surrogate pairs, which JSON has no form for."""
    return text[:most].encode(errors="replace").decode()
