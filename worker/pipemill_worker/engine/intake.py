"""Intake: lease jobs, read them, and pass them on; one thread per lane."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pipemill.errors import (
    BrokerError,
    DeliveryLimitReached,
    InvalidInput,
    JobError,
    PayloadMissing,
    SignatureRefused,
)
from pipemill.protocol import Job, Outcome, decode_arguments, decode_message, message_id
from pipemill.protocol.signing import check_payload
from pipemill.store.base import Leased, Taken
from pipemill_worker.engine.lane import Lane
from pipemill_worker.engine.wiring import Wiring, log
from pipemill_worker.engine.work import End, Work

#: How long an idle intake waits for a job before it looks at other priorities and parked jobs, in seconds.
IDLE_SECONDS: Final = 0.1
#: How long an intake waits for its turn while a job that was delivered before has the process for itself, in seconds.
SUSPECT_SECONDS: Final = 0.01
#: How long an intake without room waits for a job of another tenant before it looks for room, in seconds.
LISTEN_SECONDS: Final = 0.02
#: How long an intake without room waits before it looks at the stop signal again, in seconds.
NO_ROOM_SECONDS: Final = 0.2


class Intake:
    """The loop of one lane."""

    def __init__(self, lane: Lane, wiring: Wiring):
        self._lane = lane
        self._wiring = wiring
        #: The last take left nothing behind: wait for something to come before the next.
        self._drained = False
        #: It left some behind that would have been too many bytes.
        self._more = False
        #: The broker doesn't know the queue: the lane is new, or the broker came back without its data.
        self._unknown = False

    def run(self) -> None:
        """Lease jobs whenever there is room, until the engine stops."""
        lane, stopping = self._lane, self._wiring.stopping
        while not stopping.is_set():
            if lane.wait_for_room(0.0 if lane.listens else NO_ROOM_SECONDS):
                self._wiring.retrying(self._step, f"queue {lane.name}: take", stopping)
            elif lane.listens:
                self._wiring.retrying(self._listen, f"queue {lane.name}: listen", stopping)

    def _step(self) -> None:
        """Take what is there, once something is there or a little time has passed."""
        lane, patience = self._lane, IDLE_SECONDS if self._drained else 0.0
        if patience and not self._wiring.gate.may_linger:
            came, patience = lane.store.wait(patience), 0.0
        else:
            came = patience > 0
        # What came within reach is ours, even if the lane was paused meanwhile.
        room = max(lane.room(), int(came))
        took = self._take(room, patience)
        self._drained = took is not None and took < min(room, lane.limits.max_items) and not self._more
        if took is None:
            # A job that was delivered before is held, or its turn is next.
            self._wiring.stopping.wait(SUSPECT_SECONDS)

    def _listen(self) -> None:
        """Take a job although there is no room: its tenant has no other, and is owed the next turn."""
        gate = self._wiring.gate
        with gate.taking:
            may_take = gate.may_take(self._lane)
        if not may_take or (self._lane.store.wait(LISTEN_SECONDS) and self._take(1, 0.0) is None):
            self._wiring.stopping.wait(SUSPECT_SECONDS)

    def _take(self, n: int, patience: float) -> int | None:
        """Take up to ``n`` jobs, as soon as there are some within ``patience`` seconds, and pass them on.

        How many there were; None if it isn't this lane's turn.
        """
        lane, gate = self._lane, self._wiring.gate
        with gate.taking:
            if not gate.may_take(lane):
                return None
            held = list(lane.held.values())
            taken = lane.store.take(n, gate.held_elsewhere(lane), patience=patience, most_bytes=lane.held.bytes_left)
            gate.note(lane, blocked=taken.blocked)
            self._more = taken.by_bytes
            if not taken.stood:
                lane.lose(held)
            works, ends = self._read_all(taken)
        self._pass_on(works, ends)
        if self._unknown or not taken.stood:
            self._announce(again=self._unknown)
        return None if taken.blocked else len(works)

    def _announce(self, *, again: bool) -> None:
        """Make the queue known; a broker that refuses (it is out of memory) is asked again after the next take."""
        lane = self._lane
        try:
            lane.store.announce(lane.info)
            self._unknown = False
        except BrokerError as error:
            self._unknown = True
            if not again:
                text = "queue %s: announce: %s; trying again"
                log.warning(text, lane.name, error, extra={"event": "broker_unavailable"})

    def _read_all(self, taken: Taken) -> tuple[list[Work], list[End]]:
        lane = self._lane
        lane.set_clock(taken.now)
        lane.note_cancelled(taken.cancelled)
        read = [self._read(leased) for leased in taken.jobs]
        works = [work for work, _ in read]
        lane.hold(works)
        return works, [end for _, end in read if end]

    def _pass_on(self, works: Sequence[Work], ends: list[End]) -> None:
        lane = self._lane
        alive = self._with_payloads([work for work in works if not work.ended], ends)
        if ends:
            lane.to_end.put(ends)
        soon = lane.note_taken(alive)
        lane.to_prepare.put(soon, self._wiring.settings.preprocess_threads, fair=lane.info.fair)
        if len(soon) < len(alive):
            self._wiring.ready[lane.device].set()  # Maybe the device is free for them after all.

    def _read(self, leased: Leased) -> tuple[Work, End | None]:
        """Read one message; a job that can't start has its end with it."""
        lane = self._lane
        try:
            job = decode_message(leased.raw, lane.name, self._verify)
        except JobError as error:
            job = _nameless(message_id(leased.raw) or "", lane.name)
            work = Work(leased, job)
            event = "signature_refused" if isinstance(error, SignatureRefused) else "job_malformed"
            log.warning("queue %s: %s", lane.name, error, extra={"event": event, "job": job.id})
            return work, End(work, Outcome.FAILED if job.id else Outcome.DEAD, error)
        work = Work(leased, job)
        if job.size > lane.info.max_input_bytes:
            return work, End(work, Outcome.FAILED, _too_large(lane))
        if leased.deliveries >= self._wiring.settings.max_deliveries:
            text = f"{leased.deliveries} workers died while they held this job"
            return work, End(work, Outcome.DEAD, DeliveryLimitReached(text))
        if (end := lane.untimely(work, self._wiring.hooks.is_revoked)) is not None:
            return work, end
        if job.eta is not None and job.eta > lane.now():
            # Past its deadline it ends, though its time never came.
            due = job.eta if job.expires is None else min(job.eta, job.expires)
            return work, End(work, Outcome.PARKED, due=due)
        return work, None

    def _verify(self, headers: Mapping[str, Any], body: bytes) -> str | None:
        """See that a job is signed as the queue asks; the key that it is signed with.

        Raises
        ------
        SignatureRefused
            When it isn't.

        """
        lane = self._lane
        if lane.verifier is None:
            return None
        try:
            return lane.verifier.check(headers, lane.name, body, lane.now())
        except SignatureRefused:
            lane.gauges.refused_signatures += 1
            raise

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
                work.job.inputs, work.job.parameters = _arguments(lane, work.job, payload)
            except JobError as error:
                ends.append(End(work, Outcome.FAILED, error))
        return [] if payloads is None else [work for work in works if not work.ended]


def _arguments(lane: Lane, job: Job, payload: bytes | None) -> tuple[object, dict[str, object]]:
    if payload is None:
        text = "the inputs were sent by reference and are gone (ended before, or kept too long); submit the job again"
        raise PayloadMissing(text)
    if len(payload) > lane.info.max_input_bytes:
        raise _too_large(lane)
    check_payload(job.headers, payload)
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
