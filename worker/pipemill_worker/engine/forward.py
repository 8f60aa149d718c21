"""Forward: compose a batch when the device is free, run it, isolate failures; one thread per device."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from pipemill.errors import JobError
from pipemill.protocol import Outcome
from pipemill_worker.engine.lane import Lane
from pipemill_worker.engine.prepare import inference_failed
from pipemill_worker.engine.watched import Watched
from pipemill_worker.engine.wiring import Wiring, log
from pipemill_worker.engine.work import End, Entry
from pipemill_worker.engine.writing import Writing, hand_out


class DeviceLost(RuntimeError):
    """The device can't be used until the process restarts."""


class Forward(Watched):
    """The loop of one device: the only thread that touches its models."""

    def __init__(self, device: str, lanes: Sequence[Lane], wiring: Wiring):
        self._lanes = list(lanes)
        self._wiring = wiring
        self._ready = wiring.ready[device]
        self.device = device
        self._writing = {
            lane.name: Writing(lane, writer, wiring.hooks.is_revoked, self)
            for lane in lanes
            if (writer := lane.runner.writer) is not None
        }

    def run(self) -> None:
        """Run batches until the engine stops; the batch that runs is finished."""
        self.note_thread()
        while not self._wiring.stopping.is_set():
            self._ready.wait()
            self._ready.clear()
            while not self._wiring.stopping.is_set() and (lane := self._next_lane()):
                self._run_lane(lane)
        self._write_out()

    def _write_out(self) -> None:
        """Finish the texts that are being written, as long as the drain waits."""
        for lane in self._lanes:
            writing = self._writing.get(lane.name)
            while writing is not None and lane.running and not self._wiring.closed.is_set():
                self._pass_on(lane, writing.turn(stopping=True))

    def _next_lane(self) -> Lane | None:
        """A lane with waiting items; lanes take turns."""
        waiting = next((lane for lane in self._lanes if lane.has_work), None)
        if waiting is None:
            for lane in self._lanes:
                lane.take_up()
            return None
        self._lanes.remove(waiting)
        self._lanes.append(waiting)
        return waiting

    def _run_lane(self, lane: Lane) -> None:
        if (writing := self._writing.get(lane.name)) is not None:
            self._pass_on(lane, writing.turn())
            return
        wait = 0.0 if any(other.has_work for other in self._lanes if other is not lane) else lane.wait_seconds()
        if wait and self._ready.wait(wait):
            self._ready.clear()
            return  # Something came: look again.
        batch, ends = lane.next_batch(self._wiring.hooks.is_revoked)
        if batch:
            try:
                ends += self.run_batch(lane, batch)
            finally:
                lane.running = []
        self._pass_on(lane, ends)

    @staticmethod
    def _pass_on(lane: Lane, ends: list[End]) -> None:
        if ends:
            lane.to_end.put(ends)

    @contextmanager
    def watching(self, lane: Lane, batch: Sequence[Entry]) -> Iterator[None]:
        """Tell the watchdog of a pass over these items while it runs."""
        works, items = [entry.work for entry in batch], [entry.item for entry in batch]
        with self.at("forward", lane, works, items, lane.predicted_seconds(batch)):
            yield

    def run_batch(self, lane: Lane, batch: Sequence[Entry]) -> list[End]:
        """Run one forward pass; when it fails, find out whose fault it was."""
        started = time.perf_counter()
        with self.watching(lane, batch):
            outputs = _outputs(lane, batch)
        if isinstance(outputs, Exception):
            return self._isolate(lane, batch, outputs)
        lane.note_forward(batch, time.perf_counter() - started)
        return hand_out(batch, outputs, partial(lane.untimely, is_revoked=self._wiring.hooks.is_revoked))

    def _isolate(self, lane: Lane, batch: Sequence[Entry], error: Exception) -> list[End]:
        runner = lane.runner
        if runner.is_device_lost(error):
            raise DeviceLost(f"queue {lane.name}: {error}") from error
        if len(batch) == 1:
            work = batch[0].work
            failure = error if isinstance(error, JobError) else inference_failed(runner, error)
            log.warning(
                "queue %s: a job failed: %s",
                lane.name,
                failure,
                extra={"event": "job_failed", "job": work.job.id},
            )
            return [] if work.ended else [End(work, Outcome.FAILED, failure)]
        if runner.is_out_of_memory(error):
            half = len(batch) // 2
            lane.lower_ceiling(half)
            log.warning(
                "queue %s: out of memory with %d items, at most %d from now on",
                lane.name,
                len(batch),
                half,
                extra={"event": "ceiling_lowered"},
            )
            parts: list[Sequence[Entry]] = [batch[:half], batch[half:]]
        else:
            log.warning(
                "queue %s: a batch of %d failed (%s), running its items alone",
                lane.name,
                len(batch),
                type(error).__name__,
                extra={"event": "batch_failed"},
            )
            parts = [[entry] for entry in batch]
        ends: list[End] = []
        for part in parts:
            alive = [entry for entry in part if not entry.work.ended]
            ends += self.run_batch(lane, alive) if alive else []
        return ends


def _outputs(lane: Lane, batch: Sequence[Entry]) -> Sequence[Any] | Exception:
    """One output per item, or the error without its frames: they hold tensors whose memory the next pass needs."""
    try:
        outputs = lane.runner.forward([entry.item for entry in batch])
        if len(outputs) != len(batch):
            raise RuntimeError(f"{len(outputs)} outputs for {len(batch)} items")  # noqa: TRY301  # a failure like any other
    except Exception as error:  # noqa: BLE001  # whatever it is, it belongs to one of the jobs
        error.__cause__ = error.__context__ = None
        return error.with_traceback(None)
    return outputs
