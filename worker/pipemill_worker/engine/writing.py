"""Writing: items that are continued together, a token of each in every step; they join and leave between steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from operator import attrgetter
from typing import Any, Protocol

from pipemill.protocol import Outcome
from pipemill_worker.engine.lane import Lane
from pipemill_worker.engine.wiring import log
from pipemill_worker.engine.work import End, Entry, Work
from pipemill_worker.seams import JOINS, ItemWriter


class Device(Protocol):
    """What runs passes."""

    def run_batch(self, lane: Lane, batch: Sequence[Entry]) -> list[End]:
        """Run items apart from those that are written together, and say which jobs ended."""
        ...

    def watching(self, lane: Lane, batch: Sequence[Entry]) -> AbstractContextManager[None]:
        """Tell the watchdog of a pass over these items while it runs."""
        ...


class Writing:
    """One lane's turns at the device while its runner has a writer."""

    def __init__(self, lane: Lane, writer: ItemWriter, is_revoked: Callable[[str], bool], device: Device):
        self._lane = lane
        self._writer = writer
        self._is_revoked = is_revoked
        self._device = device
        #: Seconds of steps since the last batch that ran apart, and of that batch: both kinds get half of the time.
        self._stepped = self._apart = 0.0

    def turn(self, *, stopping: bool = False) -> list[End]:
        """Let items join, go one token further in all, and run a batch of those that can't join if it is their turn."""
        ends = self._leave()
        if not stopping:
            ends += self._join()
        if self._writer.busy:
            ends += self._step()
        if not stopping and (not self._writer.busy or self._stepped >= self._apart):
            ends += self._run_others()
        return ends

    def _leave(self) -> list[End]:
        """Stop what was cancelled meanwhile, or is others' by now."""
        lane = self._lane
        ends = [end for entry in lane.running if (end := self._end_of(entry)) is not None]
        gone = [entry for entry in lane.running if entry.work.ended]
        if gone:
            self._writer.leave([entry.item for entry in gone])
            lane.running = [entry for entry in lane.running if not entry.work.ended]
        return ends

    def _end_of(self, entry: Entry) -> End | None:
        return None if entry.work.ended else self._lane.untimely(entry.work, self._is_revoked)

    def _join(self) -> list[End]:
        """Let items join as far as there is room; one that can't be offered runs alone: its failure is its own."""
        lane, ends = self._lane, list[End]()
        for entry in _joiners(lane):
            work = entry.work
            entry.item.follower = work if work.stream is not None and len(work.outputs) == 1 else None
            started = time.perf_counter()
            try:
                with self._device.watching(lane, [*lane.running, entry]):  # It may listen for a language.
                    joined = self._writer.offer(entry.item)
            except Exception as error:  # noqa: BLE001  # whatever it is, it belongs to this job
                text = "queue %s: a job can't be written with others (%s), writing it alone"
                log.warning(text, lane.name, type(error).__name__, extra={"event": "batch_failed"})
                lane.take_out([entry])
                ends += self._run_beside([entry])
            else:
                if not joined:
                    break
                lane.take_out([entry])
                lane.running = [*lane.running, entry]
            finally:
                self._stepped += time.perf_counter() - started
        return ends

    def _step(self) -> list[End]:
        lane, started = self._lane, time.perf_counter()
        try:
            with self._device.watching(lane, lane.running):
                finished = {id(item): output for item, output in self._writer.step()}
        except Exception as error:  # noqa: BLE001  # whatever it is, it belongs to one of the jobs
            return self._apart_after(error)
        seconds = time.perf_counter() - started
        self._stepped += seconds
        if told := self._writer.told:
            lane.streams.news.put(told)
        ended = [entry for entry in lane.running if id(entry.item) in finished]
        _note_step(lane, ended, seconds)
        lane.running = [entry for entry in lane.running if id(entry.item) not in finished]
        outputs = [finished[id(entry.item)] for entry in ended]
        return hand_out(ended, outputs, partial(lane.untimely, is_revoked=self._is_revoked))

    def _apart_after(self, error: Exception) -> list[End]:
        """A step failed: each of its items is written alone, from the beginning, so that the culprit is found."""
        lane, entries = self._lane, self._lane.running
        self._writer.clear()
        text = "queue %s: writing %d items together failed (%s), writing them alone"
        log.warning(text, lane.name, len(entries), type(error).__name__, extra={"event": "batch_failed"})
        ends: list[End] = []
        for entry in entries:
            if not entry.work.ended:
                ends += self._device.run_batch(lane, [entry])
        lane.running = []
        return ends

    def _run_others(self) -> list[End]:
        lane, writing = self._lane, self._lane.running
        batch, ends = lane.next_batch(self._is_revoked)
        lane.running = writing
        if batch:
            started = time.perf_counter()
            ends += self._run_beside(batch)
            self._stepped, self._apart = 0.0, time.perf_counter() - started
        return ends

    def _run_beside(self, batch: Sequence[Entry]) -> list[End]:
        """Run items apart, while others are being written."""
        lane, writing = self._lane, self._lane.running
        lane.running = [*writing, *batch]
        try:
            return self._device.run_batch(lane, batch)
        finally:
            lane.running = writing


def _note_step(lane: Lane, ended: Sequence[Entry], seconds: float) -> None:
    """Count a step over all that is written, of which some ended with it."""
    with lane.changed:
        lane.gauges.note_step(len(lane.running), [entry.cost for entry in ended], seconds)
        for entry in ended:
            entry.work.ran_at = time.monotonic()


def _joiners(lane: Lane) -> list[Entry]:
    """Items of the pool that are to be written together, most urgent first."""
    with lane.changed:
        return sorted((entry for entry in lane.pool if entry.group == JOINS), key=attrgetter("urgency", "turn"))


def hand_out(batch: Sequence[Entry], outputs: Sequence[Any], untimely: Callable[[Work], End | None]) -> list[End]:
    """Give each job its outputs; the jobs that have them all, and those that were cancelled meanwhile."""
    ends: list[End] = []
    for entry, output in zip(batch, outputs, strict=True):
        work = entry.work
        whole = work.add_output(entry.index, output)
        if work.ended:
            continue
        if (end := untimely(work)) is not None:
            ends.append(end)
        elif whole:
            ends.append(End(work, Outcome.SUCCEEDED))
    return ends
