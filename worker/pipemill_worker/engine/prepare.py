"""Preprocessing: jobs become items in their lane's pool; k threads per lane."""

from __future__ import annotations

import time
import traceback
from functools import partial
from typing import Final

from pipemill.errors import InferenceFailed, InferenceInterrupted, InvalidInput, JobError, OutOfMemory
from pipemill.protocol import Outcome
from pipemill_worker.engine.lane import Lane
from pipemill_worker.engine.watched import Watched
from pipemill_worker.engine.wiring import Wiring, log
from pipemill_worker.engine.work import End, Entry, Work
from pipemill_worker.policy.retries import passing
from pipemill_worker.seams import PipelineRunner, Prepared

#: Items handed over at a time while the device has other work; a lock per item would cost more than the item.
HAND_OVER: Final = 16


class Preparer(Watched):
    """The loop of one preprocessing thread of one lane."""

    def __init__(self, lane: Lane, wiring: Wiring):
        self._lane = lane
        self._wiring = wiring

    def run(self) -> None:
        """Preprocess until the engine stops; what is left then is released with the lease."""
        self.note_thread()
        while (works := self._lane.to_prepare.get()) is not None:
            if not self._wiring.stopping.is_set():
                self._prepare_all(works)

    def _prepare_all(self, works: list[Work]) -> None:
        lane, entries, ends = self._lane, list[Entry](), list[End]()
        for work in works:
            started = time.perf_counter()
            made = self._prepare(work)
            if made is None:
                return  # The engine stops while what a job refers to can't be reached.
            if isinstance(made, End):
                ends.append(made)
                made = []
            entries += made
            lane.note_prepared(made, time.perf_counter() - started)
            if entries and (not lane.pool or len(entries) >= HAND_OVER):
                self._hand_over(entries)
                entries = []
        if ends:
            lane.to_end.put(ends)
        self._hand_over(entries)

    def _prepare(self, work: Work) -> list[Entry] | End | None:
        """A job's items, or its end if it can't have any; ``None`` when the engine stops before it is prepared."""
        lane = self._lane
        if work.ended:
            return []
        if (end := lane.untimely(work, self._wiring.hooks.is_revoked)) is not None:
            return end
        try:
            prepare = partial(self._run_stage, work)
            prepared = self._wiring.retrying(prepare, f"queue {lane.name}: prepare", self._wiring.stopping)
            if prepared is None:
                return None
            if not prepared.items:
                raise InvalidInput("the inputs give the model nothing to do: give some")  # noqa: TRY301  # ends like others
            return work.set_prepared(prepared)
        except JobError as error:
            return End(work, Outcome.FAILED, error)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is this job's
            return End(work, Outcome.FAILED, noted_failure(lane, work.job.id, "preprocess_failed", error))

    def _run_stage(self, work: Work) -> Prepared:
        """Preprocess it while the watchdog looks; that a broker is waited for between two attempts is none of its."""
        with self.at("preprocess", self._lane, [work]):
            return self._lane.runner.prepare(work.job.inputs, work.job.parameters)

    def _hand_over(self, entries: list[Entry]) -> None:
        self._lane.add(entries)
        self._wiring.ready[self._lane.device].set()


#: Longest error text of a pipeline that is passed on, in characters: some carry the whole input.
ERROR_TEXT: Final = 300


def noted_failure(lane: Lane, job_id: str, event: str, error: BaseException) -> InferenceFailed:
    """Log where a stage raised, without the error's own text, which may hold the whole input; say it, cut short."""
    failure = inference_failed(lane.runner, error)
    where = "".join(traceback.format_tb(error.__traceback__))
    log.error("queue %s: %s\n%s", lane.name, failure, where, extra={"event": event, "job": job_id})
    return failure


def inference_failed(runner: PipelineRunner, error: BaseException) -> InferenceFailed:
    """Say what the pipeline raised, cut short; the class tells whether it may pass."""
    text = str(error).encode(errors="replace").decode()  # A log can't write half surrogate pairs, as of a file's name.
    cut = text if len(text) <= ERROR_TEXT else f"{text[:ERROR_TEXT]}…"
    kind = InferenceFailed
    if runner.is_out_of_memory(error):
        kind = OutOfMemory
    elif passing(error) or runner.is_transient(error):
        kind = InferenceInterrupted
    return kind(f"the pipeline raised {type(error).__name__}: {cut}")
