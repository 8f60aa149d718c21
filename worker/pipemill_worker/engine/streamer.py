"""Telling: tokens become pieces, and pieces entries of streams in the broker; one thread per lane."""

from __future__ import annotations

import queue
import time
from typing import Final

from pipemill.errors import BrokerError
from pipemill_worker.engine.lane import Lane
from pipemill_worker.engine.streams import News, Stream, silent
from pipemill_worker.engine.wiring import CLOSED, log
from pipemill_worker.policy.backoff import backoff_seconds

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
                if stream.speller is None:
                    spelling = self._lane.runner.spelling
                    stream.speller = (None if work.prepared is None else spelling(work.prepared)) or silent
                full = stream.take(token)
            except Exception as error:  # noqa: BLE001 - whatever it is, it mutes this text and ends no thread
                text = "queue %s: a text can't be spelt on while it is written (%s: %s); the rest is told with its end"
                facts = (self._lane.name, type(error).__name__, error)
                log.warning(text, *facts, extra={"event": "stream_muted", "job": work.job.id})
                stream.speller = silent
                continue
            if full:
                self._full[stream] = None

    def _tell(self) -> None:
        if not self._full or time.monotonic() < self._again:
            return
        full = [stream for stream in self._full if not stream.ended]
        if not full:
            self._full.clear()
            return
        try:
            ours = self._lane.store.emit([stream.piece() for stream in full])
        except BrokerError as error:
            self._failed += 1
            self._again = time.monotonic() + backoff_seconds(self._failed)
            if self._failed == 1:
                text = "queue %s: emit: %s; what is written is told later"
                log.warning(text, self._lane.name, error, extra={"event": "broker_unavailable"})
            return
        self._failed = 0
        for stream, mine in zip(full, ours, strict=True):
            stream.note_said()
            if not mine:
                stream.ended = True
        self._full.clear()
