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
        #: What the broker didn't take when it was last told.
        self._untold: set[str] = set()

    def run(self) -> None:
        """Beat until the engine is closed."""
        pulse = self._wiring.pulse
        while not self._wiring.closed.wait(self._interval):
            renewed = [self._beat(lane) for lane in self._lanes]
            if all(renewed):
                pulse.renewed_at = time.monotonic()

    def _beat(self, lane: Lane) -> bool:
        """Keep one lane's lease; whether it was renewed."""
        self._wiring.pulse.tried_at = time.monotonic()
        renewed = self._tried(partial(self._renew, lane), f"queue {lane.name}: renew")
        if renewed:
            lane.update_rate()
            self._tried(partial(self._report, lane), f"queue {lane.name}: report")
        return renewed

    def _tried(self, call: Callable[[], None], what: str) -> bool:
        """Tell the broker something, once; whether it took it, else it is told with the next beat.

        It may be out of memory for hours, or refuse one queue, and other lanes' leases are to be renewed meanwhile.
        """
        try:
            call()
        except BrokerError as error:
            if what not in self._untold:
                log.warning("%s: %s; trying again", what, error, extra={"event": "broker_unavailable"})
            self._untold.add(what)
            return False
        if what in self._untold:
            log.warning("%s: the broker answers again", what, extra={"event": "broker_back"})
            self._untold.discard(what)
        return True

    @staticmethod
    def _renew(lane: Lane) -> None:
        with lane.changed:
            held = list(lane.held.values())
        # Also between the passes of its items, and until its answer is stored: who asks must not take it for unstarted.
        running = {work.field: work.job.id for work in held if work.started and work.job.id}
        renewal = lane.store.renew(running)
        lane.set_clock(renewal.now)
        lane.note_cancelled(renewal.cancelled)
        if not renewal.stands:
            lane.lose(held)

    @staticmethod
    def _report(lane: Lane) -> None:
        """Publish what the lane says of itself, by the broker's clock."""
        lane.store.report({"at": lane.now(), **lane.facts()})


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
