"""Preprocessing: jobs become items in their lane's pool; k threads, shared by all lanes."""

from __future__ import annotations

from typing import Final

from pipemill.errors import InferenceFailed, JobError
from pipemill.protocol import Outcome
from pipemill_worker.engine.lane import Lane
from pipemill_worker.engine.wiring import CLOSED, Wiring, log
from pipemill_worker.engine.work import End, Entry, Work

#: Items handed over at a time while the device has other work; a lock per item would cost more than the item.
HAND_OVER: Final = 16


class Preparer:
    """The loop of one preprocessing thread."""

    def __init__(self, wiring: Wiring):
        self._wiring = wiring

    def run(self) -> None:
        """Preprocess until the engine stops; what is left then is released with the lease."""
        while (chunk := self._wiring.to_prepare.get()) is not CLOSED:
            if not self._wiring.stopping.is_set():
                self._prepare_all(*chunk)

    def _prepare_all(self, lane: Lane, works: list[Work]) -> None:
        entries: list[Entry] = []
        ends: list[End] = []
        for work in works:
            if work.ended:
                continue
            try:
                entries += work.set_prepared(lane.runner.prepare(work.job.inputs, work.job.parameters))
            except JobError as error:
                ends.append(End(work, Outcome.FAILED, error))
            except Exception as error:  # noqa: BLE001  # whatever it is, it is this job's
                log.exception(
                    "queue %s: preprocessing failed",
                    lane.name,
                    extra={"event": "preprocess_failed", "job": work.job.id},
                )
                ends.append(End(work, Outcome.FAILED, inference_failed(error)))
            if entries and (not lane.pool or len(entries) >= HAND_OVER):
                self._hand_over(lane, entries)
                entries = []
        if entries:
            self._hand_over(lane, entries)
        if ends:
            self._wiring.to_end.put((lane, ends))

    def _hand_over(self, lane: Lane, entries: list[Entry]) -> None:
        lane.add(entries)
        self._wiring.ready[lane.device].set()


#: Longest error text of a pipeline that is passed on, in characters: some carry the whole input.
ERROR_TEXT: Final = 300


def inference_failed(error: BaseException) -> InferenceFailed:
    """Say what the pipeline raised, cut short."""
    text = str(error)
    cut = text if len(text) <= ERROR_TEXT else f"{text[:ERROR_TEXT]}…"
    return InferenceFailed(f"the pipeline raised {type(error).__name__}: {cut}")
