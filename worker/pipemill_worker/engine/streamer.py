"""Telling: tokens become pieces, and pieces entries of streams in the broker; one thread per lane."""

from __future__ import annotations

import queue
import time

from pipemill.errors import BrokerError
from pipemill_worker.engine.lane import Lane
from pipemill_worker.engine.streams import News, Stream
from pipemill_worker.engine.wiring import CLOSED, log
from pipemill_worker.policy.backoff import backoff_seconds


class Streamer:
    """The loop that tells one lane's texts."""

    def __init__(self, lane: Lane):
        self._lane, self._streams = lane, lane.streams
        #: Streams with something to tell.
        self._full: dict[int, Stream] = {}
        #: Calls that failed one after the other, and when to try again, in seconds of the monotonic clock.
        self._failed, self._again = 0, 0.0

    def run(self) -> None:
        """Tell what comes until the engine is closed; what piles up meanwhile shares a call."""
        while (news := self._streams.news.get()) is not CLOSED:
            with self._streams.telling:
                self._spell(news)
                if self._spell_more():
                    return
                self._tell()

    def _spell_more(self) -> bool:
        """Spell what came meanwhile; whether it was the end of all."""
        while True:
            try:
                news = self._streams.news.get_nowait()
            except queue.Empty:
                return False
            if news is CLOSED:
                return True
            self._spell(news)

    def _spell(self, news: News) -> None:
        for work, token in news:
            stream = work.stream
            if stream is None or stream.ended:
                continue
            if not stream.began:
                stream.begin(None if work.prepared is None else self._lane.runner.spelling(work.prepared))
            if stream.take(token):
                self._full[id(stream)] = stream

    def _tell(self) -> None:
        self._full = {key: stream for key, stream in self._full.items() if not stream.ended}
        if not self._full or time.monotonic() < self._again:
            return
        try:
            ours = self._lane.store.emit([stream.piece() for stream in self._full.values()])
        except BrokerError as error:
            self._failed += 1
            self._again = time.monotonic() + backoff_seconds(self._failed)
            if self._failed == 1:
                text = "queue %s: emit: %s; what is written is told later"
                log.warning(text, self._lane.name, error, extra={"event": "broker_unavailable"})
            return
        self._failed = 0
        for stream, mine in zip(self._full.values(), ours, strict=True):
            stream.note_said()
            stream.ended = stream.ended or not mine
        self._full.clear()
