"""Keeping leases alive, taking back those of the dead, and sweeping up large media."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from pipemill.errors import BrokerError
from pipemill_worker.engine.lane import Lane
from pipemill_worker.engine.wiring import Wiring, log

#: Longest time between two heartbeats, in seconds; a running job is seen to run after this at the latest.
HEARTBEAT_SECONDS: Final = 1.0
#: Longest time between two looks for expired leases, in seconds.
REAP_SECONDS: Final = 5.0
#: Time between two sweeps, in seconds: retention is counted in days.
SWEEP_SECONDS: Final = 3600.0


class Heartbeat:
    """Renews every lane's lease, marks running jobs, and publishes the lane's facts."""

    def __init__(self, lanes: Sequence[Lane], wiring: Wiring):
        self._lanes = lanes
        self._wiring = wiring
        self._interval = min(HEARTBEAT_SECONDS, wiring.settings.lease_seconds / 3)
        #: Lanes whose last report the broker didn't take.
        self._unheard: set[str] = set()

    def run(self) -> None:
        """Beat until the engine is closed."""
        closed = self._wiring.closed
        while not closed.wait(self._interval):
            for lane in self._lanes:
                self._wiring.retrying(partial(self._renew, lane), f"queue {lane.name}: renew", closed)
                self._report(lane)

    def _renew(self, lane: Lane) -> None:
        pulse = self._wiring.pulse
        pulse.tried_at = time.monotonic()
        with lane.changed:
            held = list(lane.held.values())
        # Also between the passes of its items, and until its answer is stored: who asks must not take it for unstarted.
        running = {work.field: work.job.id for work in held if work.started and work.job.id}
        renewal = lane.store.renew(running)
        pulse.renewed_at = time.monotonic()
        lane.set_clock(renewal.now)
        lane.note_cancelled(renewal.cancelled)
        if not renewal.stands:
            lane.lose(held)

    def _report(self, lane: Lane) -> None:
        """Publish what the lane says of itself, by the broker's clock; if it refuses, it is told with the next beat.

        It may be out of memory for hours, and other lanes' leases are to be renewed meanwhile.
        """
        lane.update_rate()
        try:
            lane.store.report({"at": lane.now(), **lane.facts()})
            self._unheard.discard(lane.name)
        except BrokerError as error:
            if lane.name not in self._unheard:
                log.warning("queue %s: report: %s", lane.name, error, extra={"event": "broker_unavailable"})
            self._unheard.add(lane.name)


class Reaper:
    """Gives back the jobs of workers that died, whatever their queue."""

    def __init__(self, lanes: Sequence[Lane], wiring: Wiring):
        self._store = lanes[0].store
        self._wiring = wiring
        self._interval = min(REAP_SECONDS, wiring.settings.lease_seconds / 3)

    def run(self) -> None:
        """Reap until the engine stops.

        While the broker was away nobody could renew: the living get a whole lease to do so before they are judged.
        """
        stopping, pause = self._wiring.stopping, self._interval
        while not stopping.wait(pause):
            pause = self._interval
            try:
                reaped = self._store.reap()
            except BrokerError as error:
                pause = max(self._interval, self._wiring.settings.lease_seconds)
                log.warning("reap: %s", error, extra={"event": "broker_unavailable"})
                continue
            if reaped:
                log.warning("%d jobs of dead workers given back to their queues", reaped, extra={"event": "reaped"})


class Sweeper:
    """Deletes large media whose retention is over."""

    def __init__(self, sweep: Callable[[], int], wiring: Wiring, interval: float = SWEEP_SECONDS):
        self._sweep = sweep
        self._wiring = wiring
        self._interval = interval

    def run(self) -> None:
        """Sweep at once, and again after each interval until the engine stops; a failure waits for the next time."""
        while not self._wiring.stopping.is_set():
            self._sweep_once()
            self._wiring.stopping.wait(self._interval)

    def _sweep_once(self) -> None:
        try:
            swept = self._sweep()
        except Exception as error:  # noqa: BLE001  # whatever it is, jobs can be answered without it
            log.warning("sweep: %s; trying again later", error, extra={"event": "sweep_failed"})
            return
        if swept:
            log.info("large media of %d days deleted", swept, extra={"event": "swept"})
