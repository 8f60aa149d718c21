"""A job's text on its way from worker to producer: pieces, which become entries of a Redis Stream.

A run is one go at writing a text: every lease begins another. Entries of one run only ever add to its text, so a reader
takes of each what it lacks, whatever is told twice; an entry of another run begins anew.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final, NamedTuple, Protocol

import orjson

from pipemill.protocol import names

#: Entries kept of a stream at least, the last ones: a reader that lags further behind is told the text as a whole.
ENTRIES_KEPT: Final = 512
#: After so many entries a text is told as a whole: what is kept always has one such entry.
WHOLE_EVERY: Final = ENTRIES_KEPT // 2
#: Entries read by one call.
READ_AT_MOST: Final = 256


class Piece(NamedTuple):
    """A part of a job's text, to be told under a lease."""

    #: Names the lease; who lost it tells nothing.
    field: str
    job_id: str
    run: str
    #: Where in the run's text it begins, in characters.
    offset: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamEntry:
    """A part of a job's text as it was told, or that the job has ended."""

    id: str
    run: str = ""
    offset: int = 0
    text: str = ""
    ends: bool = False


class WritesStreams(Protocol):
    """The part of a ``JobStore`` that tells texts while they are written; called from one thread."""

    def emit(self, pieces: Sequence[Piece]) -> list[bool]:
        """Append pieces of texts to their jobs' streams, each only while its lease is ours; whether it was."""
        ...


class ReadsStreams(Protocol):
    """The part of a ``QueueStore`` that follows texts."""

    def read_stream(self, job_id: str, after: str, timeout: float) -> list[StreamEntry]:
        """Entries of a job's stream behind ``after``; waits for ``timeout`` seconds at most until there is one."""
        ...


class AsyncReadsStreams(Protocol):
    """``ReadsStreams`` for asyncio."""

    async def read_stream(self, job_id: str, after: str, timeout: float) -> list[StreamEntry]:
        """Entries of a job's stream behind ``after``; waits for ``timeout`` seconds at most until there is one."""
        ...


def entry_number(entry_id: str) -> tuple[int, int]:
    """The place of an entry's id among others."""
    milliseconds, _, rest = entry_id.partition("-")
    return int(milliseconds), int(rest or 0)


def emit_arguments(pieces: Sequence[Piece]) -> list[Any]:
    """Arguments of ``emit.lua``."""
    # One argument: the client takes longer over many than the server over this.
    said = orjson.dumps([*chain.from_iterable(pieces)])
    return [names.stream_key(""), ENTRIES_KEPT, names.RECORD_TTL_SECONDS, said]


def end_arguments(ttl_seconds: float) -> list[Any]:
    """What ``complete.lua`` is told of streams; one that ends is kept as long as its job's result."""
    return [names.stream_key(""), ENTRIES_KEPT, ttl_seconds]


def last_arguments(piece: Piece | None) -> tuple[Any, ...]:
    """What ``complete.lua`` is told of one job's stream."""
    return ("end",) if piece is None else ("last", piece.run, piece.offset, piece.text)


def read_call(job_id: str, after: str, timeout: float) -> tuple[dict[str, str], int, int | None]:
    """Arguments of ``XREAD``; without a timeout it doesn't wait."""
    return {names.stream_key(job_id): after}, READ_AT_MOST, math.ceil(timeout * 1000) if timeout > 0 else None


def read_entries(reply: Any) -> list[StreamEntry]:
    """Read the reply of ``XREAD`` on one stream, in either version of the protocol; what isn't ours is left out."""
    if not reply:
        return []
    found = next(iter(reply.values())) if isinstance(reply, Mapping) else reply[0][1]
    return list(_entries(found))


def _entries(found: Any) -> Iterator[StreamEntry]:
    for each in found:
        if isinstance(each, list) and each and not isinstance(each[0], bytes):
            yield from _entries(each)  # as RESP3 nests them
            continue
        entry_id, said = str(each[0], "ascii"), each[1]
        if b"end" in said:
            yield StreamEntry(id=entry_id, ends=True)
        elif said.keys() >= {b"r", b"o", b"t"} and said[b"o"].isdigit():
            run, text = str(said[b"r"], "utf-8"), str(said[b"t"], "utf-8")
            yield StreamEntry(id=entry_id, run=run, offset=int(said[b"o"]), text=text)
