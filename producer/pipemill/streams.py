"""What who follows a job is told, and how it is put together from the entries of the job's stream. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from pipemill.jobs import cut
from pipemill.protocol import Result, Usage
from pipemill.store.streams import StreamEntry, entry_number

#: The id of an event: that of an entry of a Redis Stream.
_ID: Final = re.compile(r"[0-9]{1,20}-[0-9]{1,20}")
#: What is before all entries.
_START: Final = "0-0"


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamEvent:
    """One thing that who follows a job is told: a piece of its text, or its end."""

    job_id: str
    #: Where to follow on from: ``Client.follow(job_id, after=event.id)``, in any process.
    id: str
    #: What is new of the text; empty at the end.
    text: str = ""
    #: The text begins anew: what was told before is void. At the end: it isn't the answer's, take the result.
    restarted: bool = False
    #: The job has ended, and this is the last event.
    ended: bool = False
    #: The job's answer, as ``Client.result`` returns it; at the end.
    result: Any = None
    #: What writing it took, if the worker can tell; at the end.
    usage: Usage | None = None


class Tail:
    """Reads a job's stream entry by entry, behind what was told before."""

    def __init__(self, job_id: str, after: str | None = None):
        """Begin behind the event ``after``, or at the beginning.

        Raises
        ------
        ValueError
            When it is no event's id.

        """
        if after is not None and not _ID.fullmatch(after):
            raise ValueError(f"after must be the id of an event, such as '1700000000000-0', not {cut(after)}")
        #: The last entry that was read. The first ones are read again: they tell how far the text had come.
        self.after = _START
        #: Whether the last entry said that the job has ended.
        self.ended = False
        self._job_id = job_id
        self._told = entry_number(after or _START)
        self._has_told = self._told > (0, 0)
        self._run, self._length = "", 0
        #: Entries were lost that the text needs, and haven't been told again yet.
        self._gap = False

    def take(self, entries: Iterable[StreamEntry]) -> list[StreamEvent]:
        """Take the next entries; what they tell that is new."""
        events = [self._take(entry) for entry in entries]
        return [event for event in events if event is not None]

    def _take(self, entry: StreamEntry) -> StreamEvent | None:
        self.after = entry.id
        self.ended = entry.ends
        if entry.ends:
            return None
        if entry_number(entry.id) <= self._told:
            self._run, self._length = entry.run, entry.offset + len(entry.text)
            return None
        known = self._length if entry.run == self._run else 0
        self._gap = entry.offset > known
        if self._gap:
            return None
        text = entry.text[known - entry.offset :]
        restarted = self._has_told and entry.run != self._run
        self._run, self._length = entry.run, known + len(text)
        if not text and not restarted:
            return None
        self._has_told = True
        return StreamEvent(job_id=self._job_id, id=entry.id, text=text, restarted=restarted)

    def end(self, result: Result) -> StreamEvent:
        """The last event of a job that ended like this.

        Raises
        ------
        JobError
            When it ended other than well.

        """
        # A worker that knows of no streams may have written the answer, after another had begun to tell its text.
        void = self._has_told and (self._gap or not self.ended)
        return StreamEvent(
            job_id=self._job_id,
            id=self.after,
            restarted=void,
            ended=True,
            result=result.get(),
            usage=result.usage,
        )
