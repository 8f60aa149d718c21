"""Dead letters: what a store tells of them, what is said to Redis, and how its answers are read. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final

import orjson

from pipemill.errors import MalformedJob, PayloadMissing
from pipemill.protocol import (
    History,
    IncidentKind,
    decode_arguments,
    decode_message,
    names,
    split_deliveries,
)
from pipemill.protocol.history import INCIDENTS_KEPT, decode_history, encode_incident, encode_letter

#: What a letter says that an older worker kept, which wrote nothing down but the message.
TAKEN_OVER: Final = encode_letter(text="given up by an older worker, which kept no history")
#: What the history says of a replay.
REPLAY: Final = encode_incident(IncidentKind.REPLAYED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much is kept of one queue's dead letters; the oldest go first."""

    letters: int = 10_000
    #: Of messages, payloads and histories together: a letter of a job with media may have 32 MB.
    size: int = 256 * 1024 * 1024
    #: A week, as long as the broker remembers a job.
    seconds: int = 7 * 24 * 3600


#: The bounds in force.
BOUNDS: Final = Bounds()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A job that was given up, with all that a replay needs."""

    #: The job's id; ``unreadable-...`` where the message had none.
    id: str
    queue: str
    #: When it was given up, in seconds since the epoch by the broker's clock.
    at: float
    #: The class of the error it ended with.
    error: str
    #: What the error said, with the history in short.
    text: str
    #: Workers that died with it.
    deliveries: int
    #: Attempts that failed with what might have passed.
    attempts: int
    #: Bytes kept of it.
    size: int
    #: Its priority step.
    step: int
    #: What happened to it, oldest first; empty in a list of letters.
    history: History = ()
    #: Its message, and its payload if that was sent by reference; None in a list of letters.
    message: bytes | None = field(default=None, repr=False)
    payload: bytes | None = field(default=None, repr=False)

    def arguments(self) -> tuple[Any, dict[str, Any]]:
        """The job's inputs and parameters; media stay as they came, as JSON.

        Raises
        ------
        MalformedJob
            When the message can't be read as a job, or the letter came from a list.
        PayloadMissing
            When the inputs were sent by reference and are gone.

        """
        if self.message is None:
            raise MalformedJob("a letter from a list has no message: ask for this one by its id")
        job = decode_message(self.message, self.queue)
        if not job.by_reference:
            return job.inputs, job.parameters
        if self.payload is None:
            raise PayloadMissing("the inputs were sent by reference and are gone; submit the job again")
        inputs, parameters, _ = decode_arguments(self.payload)
        return inputs, parameters


class ReplayCode(IntEnum):
    """What became of one letter in a replay."""

    FULL = 0
    DONE = 1
    WAITS = 2
    UNKNOWN = 3
    ENDED = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What became of a call to ``replay``."""

    #: One for each id, in order.
    codes: Sequence[ReplayCode]
    depth: int
    max_depth: int


def letter_keys(queue: str) -> list[str]:
    """The two keys of a queue's letters, as the scripts take them."""
    return [names.dead_times_key(queue), names.dead_letters_key(queue)]


def list_call(queue: str, limit: int) -> tuple[list[str], list[Any]]:
    """Keys and arguments of ``letters.lua``."""
    return [*letter_keys(queue), names.dead_key(queue)], [BOUNDS.seconds, limit, TAKEN_OVER]


def read_list(queue: str, reply: Sequence[bytes]) -> list[DeadLetter]:
    """Read the reply of ``letters.lua``."""
    return [_letter(queue, str(reply[i], "utf-8"), reply[i + 1]) for i in range(0, len(reply), 2)]


def read_whole(
    queue: str, letter_id: str, stored: bytes | None, history: Sequence[bytes], payload: bytes | None
) -> DeadLetter | None:
    """Read a letter with all that belongs to it."""
    if stored is None:
        return None
    says, _, message = stored.partition(b"\n")
    raw = split_deliveries(message)[1]
    return _letter(queue, letter_id, says, history=decode_history(history), message=raw, payload=payload)


def _letter(queue: str, letter_id: str, says: bytes, **whole: Any) -> DeadLetter:
    said = orjson.loads(says)
    return DeadLetter(
        id=letter_id,
        queue=queue,
        at=said["at"],
        error=said.get("error", ""),
        text=said.get("text", ""),
        deliveries=said.get("deliveries", 0),
        attempts=said.get("attempts", 0),
        size=said["size"],
        step=said["step"],
        **whole,
    )


def replay_call(queue: str, letter_ids: Sequence[str], payload_seconds: int) -> tuple[list[str], list[Any]]:
    """Keys and arguments of ``replay.lua``."""
    keys = [names.QUEUES_KEY, names.counters_key(queue), names.delayed_key(queue)]
    keys += [*letter_keys(queue), *names.list_keys(queue)]
    prefixes = [names.record_key(""), names.result_key(""), names.payload_key(""), names.history_key("")]
    prefixes += [names.dead_payload_key(""), names.dead_history_key("")]
    seconds = [names.RECORD_TTL_SECONDS, payload_seconds, BOUNDS.seconds]
    steps = ",".join(map(str, names.PRIORITY_STEPS))
    return keys, [queue, steps, *prefixes, *seconds, INCIDENTS_KEPT, REPLAY, *letter_ids]


def read_replay(reply: Sequence[int]) -> Replay | None:
    """Read the reply of ``replay.lua``; None for an unknown queue."""
    if reply[0] == -1:
        return None
    return Replay(codes=[ReplayCode(code) for code in reply[2:]], depth=reply[1], max_depth=reply[0])


def drop_call(queue: str, letter_ids: Sequence[str]) -> tuple[list[str], list[Any]]:
    """Keys and arguments of ``drop.lua``."""
    return letter_keys(queue), [names.dead_payload_key(""), names.dead_history_key(""), *letter_ids]


def end_arguments() -> list[Any]:
    """What ``complete.lua`` is told of histories and dead letters."""
    prefixes = [names.history_key(""), INCIDENTS_KEPT, names.RECORD_TTL_SECONDS]
    return [
        *prefixes,
        names.dead_payload_key(""),
        names.dead_history_key(""),
        BOUNDS.letters,
        BOUNDS.size,
        BOUNDS.seconds,
    ]


def death_arguments(owner: str) -> list[Any]:
    """What ``release.lua`` is told of the death of an owner."""
    died = encode_incident(IncidentKind.LOST, worker=owner)
    return [names.history_key(""), INCIDENTS_KEPT, names.RECORD_TTL_SECONDS, died]
