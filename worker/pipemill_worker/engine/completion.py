"""Completion: postprocess, encode, and end leases, many in one call; one thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from pipemill.errors import JobError, ResultNotSerialisable
from pipemill.protocol import Job, Outcome, encode_failure, encode_success
from pipemill.store.base import Completion
from pipemill_worker.engine.lane import Lane
from pipemill_worker.engine.prepare import noted_failure
from pipemill_worker.engine.wiring import CLOSED, Wiring, log
from pipemill_worker.engine.work import End
from pipemill_worker.seams import Prepared

#: Most leases ended by one call.
END_AT_MOST: Final = 128


class Completer:
    """The loop that ends jobs."""

    def __init__(self, wiring: Wiring):
        self._wiring = wiring

    def run(self) -> None:
        """End jobs until the engine is closed."""
        while (ended := self._wiring.to_end.get()) is not CLOSED:
            lane, ends = ended
            for start in range(0, len(ends), END_AT_MOST):
                self._complete(lane, ends[start : start + END_AT_MOST])

    def _complete(self, lane: Lane, ends: list[End]) -> None:
        completions = [self._completion(lane, end) for end in ends]
        done = self._wiring.retrying(
            lambda: lane.store.complete(completions), f"queue {lane.name}: complete", self._wiring.closed
        )
        works = [end.work for end in ends]
        lane.let_go(works)
        lost = done.count(False) if done else 0
        if lost:
            log.info("queue %s: %d jobs had ended or belong to others", lane.name, lost, extra={"event": "lease_lost"})

    def _completion(self, lane: Lane, end: End) -> Completion:
        job, outcome, error = end.work.job, end.outcome, end.error
        if outcome is Outcome.PARKED:
            return Completion(field=end.work.field, job_id=job.id, outcome=outcome, due=end.due)
        value = None
        document = b""
        if error is None:
            try:
                value = lane.runner.finish(*_prepared(end))
                document = _encode(job, value)
            except JobError as problem:
                error = problem
            except Exception as problem:  # noqa: BLE001  # whatever it is, it is this job's
                error = noted_failure(lane, job.id, "postprocess_failed", problem)
        follow_ups: Sequence[tuple[str, bytes]] = ()
        if job.has_canvas:
            follow_ups, error = self._follow_ups(job, value, error)
        if error is not None:
            outcome = Outcome.FAILED if outcome is Outcome.SUCCEEDED else outcome
            document = encode_failure(job.id, error, links=_links(job)) if job.id else b""
        return Completion(
            field=end.work.field,
            job_id=job.id,
            outcome=outcome,
            document=None if job.ignore_result or not job.id else document,
            follow_ups=follow_ups,
        )

    def _follow_ups(
        self, job: Job, value: Any, error: JobError | None
    ) -> tuple[Sequence[tuple[str, bytes]], JobError | None]:
        """What is pushed together with the job's end; a job whose follow-up can't be sent fails."""
        try:
            found = self._wiring.retrying(
                lambda: self._wiring.hooks.before_end(job, value, error),
                f"job {job.id}: follow-up",
                self._wiring.closed,
            )
        except JobError as problem:
            return (), error or problem
        return found or (), error


def _prepared(end: End) -> tuple[Prepared, list[Any]]:
    if end.work.prepared is None:
        text = "a job can't succeed before it was prepared"
        raise RuntimeError(text)
    return end.work.prepared, end.work.outputs


def _encode(job: Job, value: Any) -> bytes:
    try:
        return encode_success(job.id, value, links=_links(job))
    except TypeError as error:
        text = f"the pipeline's answer can't be written as JSON: {error}"
        raise ResultNotSerialisable(text) from error


def _links(job: Job) -> dict[str, Any] | None:
    """What Celery adds to the result of a job that belongs to a canvas."""
    links = {"parent_id": job.headers.get("parent_id"), "group_id": job.headers.get("group")}
    return {name: value for name, value in links.items() if value is not None} or None
