"""Streams: texts told while they are written. The thread that owns the device puts tokens in, and goes on.

What the broker doesn't take in time waits in memory and goes as one piece: as many tokens as a text may have, at most.
The last piece is told together with the job's end.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from pipemill.store.streams import WHOLE_EVERY, Piece
from pipemill_worker.seams import Speller

if TYPE_CHECKING:
    from pipemill_worker.engine.work import Work

#: Jobs whose text is followed, and the next token of each.
News: TypeAlias = "Sequence[tuple[Work, int]]"


class Stream:
    """The text of one job under one lease. Guarded by its lane's ``Streams.telling``."""

    __slots__ = ("_field", "_job_id", "_said", "_sent", "ended", "speller", "unsaid")

    def __init__(self, field: str, job_id: str):
        self._field, self._job_id = field, job_id
        #: What spells it, once that is known.
        self.speller: Speller | None = None
        #: What was said, an entry each.
        self._said: list[str] = []
        #: What is spelt and not yet said.
        self.unsaid = ""
        #: Characters that were said.
        self._sent = 0
        #: Nothing more is told but with the job's end.
        self.ended = False

    def say(self) -> Piece:
        """What is to be told; it counts as told unless it is taken back.

        Now and then it is the whole text, for those who missed some of it.
        """
        said, text, begins = self._said, self.unsaid, self._sent
        said.append(text)
        self._sent, self.unsaid = begins + len(text), ""
        if len(said) % WHOLE_EVERY:
            return Piece(self._field, self._job_id, self._field, begins, text)
        return self._part(0, "".join(said))

    def unsay(self) -> None:
        """Take back what was to be told last: it wasn't, or nobody knows whether it was."""
        self.unsaid = self._said.pop()
        self._sent -= len(self.unsaid)

    def last(self, text: str | None) -> Piece | None:
        """What is still to be told of the job's whole text; nothing more is told from now on.

        A text that isn't what was told so far begins anew: what was told is void.
        """
        self.ended = True
        if text is None:
            return None
        if not text.startswith("".join((*self._said, self.unsaid))):
            return Piece(self._field, self._job_id, f"{self._field}!", 0, text)
        rest = text[self._sent :]
        return self._part(self._sent, rest) if rest or not self._sent else None

    def _part(self, offset: int, text: str) -> Piece:
        return Piece(self._field, self._job_id, self._field, offset, text)


def silent(_: int) -> None:
    """Spell nothing: the text is told with the job's end."""


class Streams:
    """What one lane tells: the device's thread puts tokens in, a ``Streamer`` tells them, and completion the last."""

    def __init__(self) -> None:
        self.news: queue.SimpleQueue[News | None] = queue.SimpleQueue()
        #: Held while something is told: what is told with a job's end comes after all else.
        self.telling = threading.Lock()

    def last(self, work: Work, text: str | None) -> Piece | None:
        """What is still to be told of a job that ends, if it is followed."""
        if work.stream is None:
            return None
        with self.telling:
            return work.stream.last(text)
