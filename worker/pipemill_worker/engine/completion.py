"""Completion: postprocess, encode, and end leases, many in one call; one thread per lane."""

from __future__ import annotations

import queue
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from pipemill.errors import JobError
from pipemill.protocol import History, Job, Outcome, encode_failure
from pipemill.store.base import Completion
from pipemill_worker.engine.keep import EngineClosed, Keep, encode_answer, links_of
from pipemill_worker.engine.lane import Lane
from pipemill_worker.engine.prepare import noted_failure
from pipemill_worker.engine.retries import fate_of, histories_of, needs_history
from pipemill_worker.engine.watched import Watched
from pipemill_worker.engine.wiring import CLOSED, Wiring, log
from pipemill_worker.engine.work import End
from pipemill_worker.seams import Account, Prepared

#: Most leases ended by one call.
END_AT_MOST: Final = 128
#: Of an answer that no model wrote.
NOTHING_TOLD: Final = Account()


@dataclass(slots=True)
class _Answer:
    """What is to be stored of a job."""

    end: End
    keep: Keep
    outcome: Outcome
    error: JobError | None
    value: Any = None
    document: bytes = b""
    #: What can be told of how the answer was written.
    account: Account = NOTHING_TOLD


class Completer(Watched):
    """The loop that ends one lane's jobs."""

    def __init__(self, lane: Lane, wiring: Wiring):
        self._lane = lane
        self._wiring = wiring

    def run(self) -> None:
        """End jobs until the engine is closed; what piles up meanwhile shares a call."""
        self.note_thread()
        while (ends := self._lane.to_end.get()) is not CLOSED:
            ends, closed = self._with_more(ends)
            for start in range(0, len(ends), END_AT_MOST):
                self._complete(self._lane, ends[start : start + END_AT_MOST])
            if closed:
                return

    def _with_more(self, ends: list[End]) -> tuple[list[End], bool]:
        """These and what else waits, up to a full call; and whether the end of all came out with it."""
        while len(ends) < END_AT_MOST:
            try:
                more = self._lane.to_end.get_nowait()
            except queue.Empty:
                break
            if more is CLOSED:
                return ends, True
            ends = ends + more
        return ends, False

    def _complete(self, lane: Lane, ends: list[End]) -> None:
        completions: list[Completion] = []
        keeps: list[Keep] = []
        for answer, history in self._answers(lane, ends):
            with suppress(EngineClosed):
                completions.append(self._completion(lane, answer, history))
                keeps.append(answer.keep)
        done, answered = self._end_leases(lane, completions)
        lane.let_go([end.work for end in ends])
        lost = done.count(False)
        if answered:
            for keep, ours in zip(keeps, done, strict=True):
                if not ours:
                    keep.forget()
        if lost:
            log.info("queue %s: %d jobs had ended or belong to others", lane.name, lost, extra={"event": "lease_lost"})

    def _answers(self, lane: Lane, ends: Sequence[End]) -> list[tuple[_Answer, History]]:
        """What is to be stored of each job, and what happened to it before, if that matters.

        None, if the engine ended while the broker could not be asked: the jobs go back with their leases.
        """
        answers: list[_Answer] = []
        for end in ends:
            with suppress(EngineClosed):
                answers.append(self._answer(lane, end))
        asked = [each.end.work for each in answers if needs_history(lane, each.end.work, each.outcome, each.error)]
        look = partial(histories_of, lane, asked)
        histories = self._wiring.retrying(look, f"queue {lane.name}: histories", self._wiring.closed)
        if histories is None:
            return []
        return [(each, histories.get(each.end.work.job.id, ())) for each in answers]

    def _end_leases(self, lane: Lane, completions: Sequence[Completion]) -> tuple[list[bool], bool]:
        """Which leases were still ours, and whether the first call told so.

        When a reply was lost, a lease that isn't ours any more may have been ended by the call without a reply.
        """
        calls = 0

        def complete() -> list[bool]:
            nonlocal calls
            calls += 1
            return lane.store.complete(completions)

        done = self._wiring.retrying(complete, f"queue {lane.name}: complete", self._wiring.closed)
        return done or [], done is not None and calls == 1

    def _answer(self, lane: Lane, end: End) -> _Answer:
        """Postprocess and encode what a job came to.

        Raises
        ------
        EngineClosed
            When the engine ended while a part of the answer could not be put aside.

        """
        job, keep = end.work.job, Keep(lane, self._wiring, end.work.job)
        answer = _Answer(end, keep, end.outcome, end.error)
        if end.outcome is Outcome.PARKED or end.error is not None:
            return answer
        try:
            with self.at("postprocess", lane, [end.work]):
                value = lane.runner.finish(*_prepared(end))
            answer.account = _account(lane, end)
            answer.value, answer.document = encode_answer(job, value, keep, answer.account.usage)
        except EngineClosed:
            raise
        except JobError as problem:
            answer.error = problem
        except Exception as problem:  # noqa: BLE001  # whatever it is, it is this job's
            answer.error = noted_failure(lane, job.id, "postprocess_failed", problem)
        if answer.error is not None and answer.outcome is Outcome.SUCCEEDED:
            answer.outcome = Outcome.FAILED
        return answer

    def _completion(self, lane: Lane, answer: _Answer, history: History) -> Completion:
        """How the store is to end a job's lease; a job that is tried again hasn't ended, so nothing follows it yet."""
        work, outcome, error, document = answer.end.work, answer.outcome, answer.error, answer.document
        job = work.job
        ended = Completion(
            field=work.field,
            job_id=job.id,
            outcome=outcome,
            due=answer.end.due,
            streamed=work.stream is not None,
            piece=lane.streams.last(work, answer.account.text if error is None else None),
        )
        if outcome is Outcome.PARKED:
            return ended
        if error is not None:
            fate = fate_of(lane, work, outcome, error, history)
            error = fate.error
            ended = replace(ended, outcome=fate.outcome, delay=fate.delay, incident=fate.incident, letter=fate.letter)
            answer.keep.forget()
            if fate.outcome is Outcome.RETRIED:
                return ended
        if job.has_canvas:
            ended.follow_ups, error = self._follow_ups(job, answer.value, error)
        if error is not None:
            answer.keep.forget()
            ended.outcome = Outcome.FAILED if ended.outcome is Outcome.SUCCEEDED else ended.outcome
            document = encode_failure(job.id, error, links=links_of(job)) if job.id else b""
        ended.document = None if job.ignore_result or not job.id else document
        return ended

    def _follow_ups(
        self, job: Job, value: Any, error: JobError | None
    ) -> tuple[Sequence[tuple[str, bytes]], JobError | None]:
        """What is pushed together with the job's end; a job whose follow-up can't be sent fails.

        Raises
        ------
        EngineClosed
            When the engine ended while the host could not tell.

        """
        try:
            found = self._wiring.retrying(
                lambda: self._wiring.hooks.before_end(job, value, error),
                f"job {job.id}: follow-up",
                self._wiring.closed,
            )
        except JobError as problem:
            return (), error or problem
        if found is None:
            raise EngineClosed
        return found, error


def _account(lane: Lane, end: End) -> Account:
    """What can be told of how an answer was written. That it can't be told fails no job."""
    try:
        return lane.runner.account(*_prepared(end), followed=end.work.stream is not None)
    except Exception as problem:  # noqa: BLE001  # whatever it is, the answer is there
        noted_failure(lane, end.work.job.id, "account_failed", problem)
        return NOTHING_TOLD


def _prepared(end: End) -> tuple[Prepared, list[Any]]:
    if end.work.prepared is None:
        text = "a job can't succeed before it was prepared"
        raise RuntimeError(text)
    return end.work.prepared, end.work.outputs
