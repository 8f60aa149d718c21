"""Intake: lease jobs, read them, and pass them on; one thread per lane."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pipemill.errors import DeliveryLimitReached, InvalidInput, JobError, PayloadMissing
from pipemill.protocol import Job, Outcome, decode_arguments, decode_message, message_id
from pipemill.store.base import Leased, Taken
from pipemill_worker.engine.lane import Lane
from pipemill_worker.engine.wiring import Wiring, log
from pipemill_worker.engine.work import End, Work

#: How long an idle intake waits for a job before it looks at other priorities and parked jobs, in seconds.
IDLE_SECONDS: Final = 0.1
#: How long an intake without room waits before it looks at the stop signal again, in seconds.
NO_ROOM_SECONDS: Final = 0.2


class Intake:
    """The loop of one lane."""

    def __init__(self, lane: Lane, wiring: Wiring):
        self._lane = lane
        self._wiring = wiring

    def run(self) -> None:
        """Lease jobs whenever there is room, until the engine stops."""
        lane, stopping = self._lane, self._wiring.stopping
        self._announce()
        while not stopping.is_set():
            least = min(lane.limits.max_items, lane.prefetch)
            if lane.wait_for_room(least, NO_ROOM_SECONDS):
                taken = self._wiring.retrying(self._take, f"queue {lane.name}: take", stopping)
                if taken is not None:
                    self._pass_on(taken)

    def _announce(self) -> None:
        lane, stopping = self._lane, self._wiring.stopping
        self._wiring.retrying(lambda: lane.store.announce(lane.info), f"queue {lane.name}: announce", stopping)

    def _take(self) -> Taken:
        lane = self._lane
        taken = lane.store.take(lane.room())
        if not taken.jobs and taken.blocked:
            lane.wait_until_empty(IDLE_SECONDS)
        elif not taken.jobs and lane.store.wait(IDLE_SECONDS):
            # What came within reach is ours now, even if the lane was paused meanwhile.
            taken = self._merged(taken, lane.store.take(max(lane.room(), 1)))
        return taken

    @staticmethod
    def _merged(before: Taken, after: Taken) -> Taken:
        stood = before.stood and after.stood
        return Taken(after.jobs, after.now, stood, after.blocked, before.cancelled + after.cancelled)

    def _pass_on(self, taken: Taken) -> None:
        lane = self._lane
        lane.set_clock(taken.now)
        lane.note_cancelled(taken.cancelled)
        if not taken.stood:
            lane.lose_all()
            self._announce()  # a broker that came back without its data knows neither lease nor queue
        works: list[Work] = []
        ends: list[End] = []
        for leased in taken.jobs:
            work, end = self._read(leased)
            ends.extend([end] if end else [])
            works.append(work)
        lane.hold(works)
        alive = self._with_payloads([work for work in works if not work.ended], ends)
        if ends:
            self._wiring.to_end.put((lane, ends))
        for part in _shares(alive, self._wiring.settings.preprocess_threads):
            self._wiring.to_prepare.put((lane, part))

    def _read(self, leased: Leased) -> tuple[Work, End | None]:
        """Read one message; a job that can't start has its end with it."""
        lane = self._lane
        try:
            job = decode_message(leased.raw, lane.name)
            if job.size > lane.info.max_input_bytes:
                raise _too_large(lane)
        except JobError as error:
            job = _nameless(message_id(leased.raw) or "", lane.name)
            work = Work(leased, job)
            log.warning("queue %s: %s", lane.name, error, extra={"event": "job_malformed", "job": job.id})
            return work, End(work, Outcome.FAILED if job.id else Outcome.DEAD, error)
        work = Work(leased, job)
        if leased.deliveries >= self._wiring.settings.max_deliveries:
            text = (
                f"{leased.deliveries} workers died while they held this job; it is kept as a dead letter. "
                "Look at its inputs and at the workers' memory"
            )
            return work, End(work, Outcome.DEAD, DeliveryLimitReached(text))
        if job.eta is not None and job.eta > lane.now():
            return work, End(work, Outcome.PARKED, due=job.eta)
        return work, None

    def _with_payloads(self, works: list[Work], ends: list[End]) -> list[Work]:
        """Fetch what was sent by reference."""
        lane = self._lane
        absent = [work for work in works if work.job.by_reference]
        if not absent:
            return works
        ids = [work.job.id for work in absent]
        payloads = self._wiring.retrying(
            lambda: lane.store.payloads(ids), f"queue {lane.name}: payloads", self._wiring.stopping
        )
        for work, payload in zip(absent, payloads or [], strict=False):
            try:
                work.job.inputs, work.job.parameters = _arguments(lane, payload)
            except JobError as error:
                ends.append(End(work, Outcome.FAILED, error))
        return [] if payloads is None else [work for work in works if not work.ended]


def _arguments(lane: Lane, payload: bytes | None) -> tuple[object, dict[str, object]]:
    if payload is None:
        text = "the inputs were sent by reference and are gone (ended before, or kept too long); submit the job again"
        raise PayloadMissing(text)
    if len(payload) > lane.info.max_input_bytes:
        raise _too_large(lane)
    inputs, parameters, _ = decode_arguments(payload)
    return inputs, parameters


def _too_large(lane: Lane) -> InvalidInput:
    limit = lane.info.max_input_bytes
    return InvalidInput(f"the inputs are larger than the {limit} bytes that queue {lane.name!r} takes: split them")


def _nameless(job_id: str, queue: str) -> Job:
    """Stand in for a message that couldn't be read as a job."""
    return Job(
        job_id,
        queue,
        None,
        {},
        None,
        None,
        ignore_result=False,
        by_reference=False,
        headers={},
        canvas={},
        priority=None,
    )


def _shares(works: Sequence[Work], threads: int) -> list[list[Work]]:
    """Split jobs evenly among threads, in order."""
    size = -(-len(works) // threads)
    return [list(works[start : start + size]) for start in range(0, len(works), size)] if works else []
