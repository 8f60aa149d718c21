"""Telling: tokens become pieces, and pieces entries of streams in the broker; one thread per lane."""

from __future__ import annotations

import queue
import time
from typing import Final

from pipemill.errors import BrokerError
from pipemill_worker.engine.lane import Lane
from pipemill_worker.engine.streams import News, Stream, silent
from pipemill_worker.engine.wiring import CLOSED, log
from pipemill_worker.engine.work import Work
from pipemill_worker.policy.backoff import backoff_seconds
from pipemill_worker.seams import Speller

#: How long a text that the broker didn't take waits for its next token, in seconds, before it is told without.
AGAIN_SECONDS: Final = 1.0


class Streamer:
    """The loop that tells one lane's texts."""

    def __init__(self, lane: Lane):
        self._lane, self._streams = lane, lane.streams
        #: Streams with something to tell.
        self._full: dict[Stream, None] = {}
        #: Calls that failed one after the other, and when to try again, in seconds of the monotonic clock.
        self._failed, self._again = 0, 0.0

    def run(self) -> None:
        """Tell what comes until the engine is closed; what piles up meanwhile shares a call."""
        waiting = self._streams.news
        while (news := self._next()) is not CLOSED:
            with self._streams.telling:
                self._spell(news)
                while not waiting.empty():
                    if (news := waiting.get()) is CLOSED:
                        return
                    self._spell(news)
                self._tell()

    def _next(self) -> News | None:
        """Wait for news; none after a while, so that what couldn't be told is told without them."""
        try:
            return self._streams.news.get(timeout=AGAIN_SECONDS)
        except queue.Empty:
            return ()

    def _spell(self, news: News) -> None:
        for work, token in news:
            stream = work.stream
            if stream is None or stream.ended:
                continue
            try:
                text = (stream.speller or self._speller_of(work, stream))(token)
            except Exception as error:  # noqa: BLE001 - whatever it is, it mutes this text and ends no thread
                said = "queue %s: a text can't be spelt on while it is written (%s: %s); the rest is told with its end"
                facts = (self._lane.name, type(error).__name__, error)
                log.warning(said, *facts, extra={"event": "stream_muted", "job": work.job.id})
                stream.speller = silent
                continue
            if text:
                stream.unsaid += text
                self._full[stream] = None

    def _speller_of(self, work: Work, stream: Stream) -> Speller:
        spelling = None if work.prepared is None else self._lane.runner.spelling(work.prepared)
        stream.speller = spelling or silent
        return stream.speller

    def _tell(self) -> None:
        if not self._full or time.monotonic() < self._again:
            return
        full = [stream for stream in self._full if not stream.ended]
        if not full:
            self._full.clear()
            return
        try:
            ours = self._lane.store.emit([stream.say() for stream in full])
        except BrokerError as error:
            for stream in full:
                stream.unsay()
            self._failed += 1
            self._again = time.monotonic() + backoff_seconds(self._failed)
            if self._failed == 1:
                text = "queue %s: emit: %s; what is written is told later"
                log.warning(text, self._lane.name, error, extra={"event": "broker_unavailable"})
            return
        self._failed = 0
        for stream, mine in zip(full, ours, strict=True):
            if not mine:
                stream.ended = True
        self._full.clear()
