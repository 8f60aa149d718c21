"""The engine's life: start its threads, watch over them, drain in bounded time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from pipemill.health import Health
from pipemill_worker.engine.completion import Completer
from pipemill_worker.engine.forward import Forward
from pipemill_worker.engine.health import Signs, judge
from pipemill_worker.engine.hooks import Hooks
from pipemill_worker.engine.intake import Intake
from pipemill_worker.engine.keeper import Heartbeat, Reaper, Sweeper
from pipemill_worker.engine.lane import Lane
from pipemill_worker.engine.overdue import Listener, Overdue
from pipemill_worker.engine.prepare import Preparer
from pipemill_worker.engine.streamer import Streamer
from pipemill_worker.engine.watchdog import Stuck, Watchdog
from pipemill_worker.engine.watched import Underway, Watched
from pipemill_worker.engine.wiring import CLOSED, EngineSettings, Gate, Wiring, log
from pipemill_worker.engine.work import Work

__all__ = ["Engine", "EngineSettings"]

#: How long an intake may take to notice the stop, in seconds; what it took by then is given back too.
INTAKE_SECONDS: Final = 1.0
#: How long a drain that waits for running jobs may take to notice that it is hurried, in seconds.
HURRY_SECONDS: Final = 0.1
#: What remains for giving back jobs after the drain's bound, in seconds.
LAST_SECONDS: Final = 5.0


class Engine:
    """Runs lanes. ``start`` it once, ``drain`` it once."""

    def __init__(
        self,
        lanes: Sequence[Lane],
        settings: EngineSettings | None = None,
        hooks: Hooks | None = None,
        sweep: Callable[[], int] | None = None,
    ):
        #: Deletes large media whose retention is over, and says of how many days; None if there is no such place.
        self._sweep = sweep
        self.lanes = {lane.name: lane for lane in lanes}
        self.failure: BaseException | None = None
        self._wiring = Wiring(settings=settings or EngineSettings(), hooks=hooks or Hooks(), gate=Gate(lanes))
        self._wiring.ready = {lane.device: threading.Event() for lane in lanes}
        self._threads: dict[str, list[threading.Thread]] = {}
        #: One for each device; `underway` tells what runs and since when.
        self.forwards = [
            Forward(device, [lane for lane in lanes if lane.device == device], self._wiring)
            for device in self._wiring.ready
        ]
        #: What doesn't come back, and its thread: nobody waits for it, and its jobs alone are blamed.
        self._stuck: tuple[Watched, Underway] | None = None
        self._started = False
        self._drained = threading.Lock()
        self._hurried = False

    def start(self) -> None:
        """Start all threads; jobs are taken from now on."""
        lanes, wiring = list(self.lanes.values()), self._wiring
        wiring.pulse.tried_at = time.monotonic()
        for forward in self.forwards:
            self._start("forward", forward.run, forward.device)
        watched: list[Watched] = [*self.forwards]
        for lane in lanes:
            completer = Completer(lane, wiring)
            preparers = [Preparer(lane, wiring) for _ in range(wiring.settings.preprocess_threads)]
            self._start("complete", completer.run, lane.name)
            self._start("stream", Streamer(lane).run, lane.name)
            for number, preparer in enumerate(preparers):
                self._start("prepare", preparer.run, f"{lane.name}-{number}")
            watched += (completer, *preparers)
        self._start("heartbeat", Heartbeat(lanes, wiring).run)
        self._start("overdue", Overdue(lanes, wiring).run)
        if (seconds := wiring.settings.stuck_seconds) is not None:
            self._start("watchdog", Watchdog(watched, wiring, seconds, self._give_way).run)
        self._start("reap", Reaper(lanes, wiring).run)
        if self._sweep is not None:
            self._start("sweep", Sweeper(self._sweep, wiring).run)
        for lane in lanes:
            self._start("listen", Listener(lane, wiring).run, lane.name)
            self._start("intake", Intake(lane, wiring).run, lane.name)
        self._started = True

    def _start(self, kind: str, loop: Callable[[], None], suffix: str = "") -> None:
        thread = threading.Thread(
            target=self._supervised, args=(loop,), name=f"{kind}-{suffix}".strip("-"), daemon=True
        )
        self._threads.setdefault(kind, []).append(thread)
        thread.start()

    def _supervised(self, loop: Callable[[], None]) -> None:
        """Run a thread's loop; if it dies, the process must not live on, deaf."""
        try:
            loop()
        except BaseException as error:  # noqa: BLE001  # whatever it is, the process ends with it
            log.critical(
                "thread %s died: %s",
                threading.current_thread().name,
                error,
                exc_info=True,
                extra={"event": "thread_died"},
            )
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self.failure = error
        self._wiring.hooks.on_failure(error)

    def _give_way(self, stage: Watched, underway: Underway) -> None:
        """It doesn't come back: its process is to end, and its jobs alone are blamed."""
        self._stuck = stage, underway
        self._fail(Stuck(f"queue {underway.lane.name}: {underway.told} doesn't come back"))

    @property
    def stuck(self) -> bool:
        """Whether a stage doesn't come back: its thread can't be ended but with the process."""
        return self._stuck is not None

    @property
    def alive(self) -> bool:
        """Whether every thread runs."""
        return self.failure is None and all(thread.is_alive() for kind in self._threads.values() for thread in kind)

    def health(self) -> Health:
        """Whether it is live and ready, and why not. It takes no lock: it answers even where a thread hangs in one."""
        wiring, pulse, now = self._wiring, self._wiring.pulse, time.monotonic()
        threads = [thread for kind in self._threads.values() for thread in kind] if self._started else []
        return judge(
            Signs(
                started=self._started,
                stopping=wiring.stopping.is_set(),
                closed=wiring.closed.is_set(),
                failure=None if self.failure is None else type(self.failure).__name__,
                ended=tuple(thread.name for thread in threads if not thread.is_alive()),
                tried_seconds=now - pulse.tried_at,
                renewed_seconds=now - pulse.renewed_at if pulse.renewed_at else None,
                lease_seconds=wiring.settings.lease_seconds,
            )
        )

    def pause(self, queue: str) -> None:
        """Take no more jobs from a queue; those in hand are finished."""
        self._set_paused(queue, paused=True)

    def resume(self, queue: str) -> None:
        """Take jobs from a queue again."""
        self._set_paused(queue, paused=False)

    def _set_paused(self, queue: str, *, paused: bool) -> None:
        lane = self.lanes[queue]
        with lane.changed:
            lane.paused = paused
            lane.changed.notify_all()
        if paused:
            self._wiring.gate.note(lane, blocked=False)  # others needn't wait for what it won't take

    def works(self) -> list[tuple[Lane, Work, bool]]:
        """Every job in hand, its lane, and whether it runs at this moment."""
        found: list[tuple[Lane, Work, bool]] = []
        for lane in self.lanes.values():
            with lane.changed:
                running = {entry.work.field for entry in lane.running}
                found += [(lane, work, field in running) for field, work in lane.held.items()]
        return found

    def facts(self) -> dict[str, Any]:
        """What there is to say about each lane."""
        return {name: lane.facts() for name, lane in self.lanes.items()}

    def drain(self, seconds: float | None = None) -> int:
        """Stop: take no more, finish what runs within the bound, give back the rest. How many were given back.

        Idempotent; must be called from outside the engine's threads.
        """
        if not self._drained.acquire(blocking=False):
            return 0
        wiring = self._wiring
        bound = wiring.settings.drain_seconds if seconds is None else seconds
        deadline = time.monotonic() + bound
        wiring.stopping.set()
        for ready in wiring.ready.values():
            ready.set()
        for lane in self.lanes.values():
            for _ in range(wiring.settings.preprocess_threads):
                lane.to_prepare.close()
        self._join("intake", max(deadline, time.monotonic() + INTAKE_SECONDS))
        for kind in ("prepare", "forward"):
            self._join(kind, deadline, hurried=True)
        for lane in self.lanes.values():
            lane.to_end.put(CLOSED)
            lane.streams.news.put(CLOSED)
        self._join("complete", deadline, hurried=True)
        wiring.closed.set()
        wiring.cancels.set()
        for kind in ("complete", "stream", "heartbeat", "reap", "listen", "overdue"):
            self._join(kind, time.monotonic() + LAST_SECONDS)
        return self._give_back()

    def hurry(self) -> None:
        """Make a drain wait no longer for what runs: it is given back. May be called from a signal's handler."""
        self._hurried = True

    def _join(self, kind: str, deadline: float, *, hurried: bool = False) -> None:
        """Wait for threads until the deadline; ``hurried`` says whether ``hurry`` ends the wait."""
        stuck = self._stuck and self._stuck[0].thread_id
        for thread in self._threads.get(kind, ()):
            if stuck is not None and thread.ident == stuck:
                continue
            while thread.is_alive() and not (hurried and self._hurried):
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                thread.join(min(left, HURRY_SECONDS))
            if thread.is_alive():
                log.warning(
                    "thread %s is still busy at the end of the drain", thread.name, extra={"event": "drain_bound"}
                )

    def _give_back(self) -> int:
        """Give back what is held; if the engine died, every job is a suspect, as after a crash of the process.

        If something doesn't come back, its jobs are the suspects, and no others.
        """
        return sum(self._give_back_of(lane) for lane in self.lanes.values())

    def _give_back_of(self, lane: Lane) -> int:
        others: list[str] = []
        blame = self.failure is not None
        if self._stuck is not None:
            suspects = {work.field for work in self._stuck[1].works}
            with lane.changed:
                others = [field for field in lane.held if field not in suspects]
            blame = lane is self._stuck[1].lane

        def give_back() -> int:
            return lane.store.release(others) + lane.store.close(blame=blame)

        deadline = threading.Event()
        timer = threading.Timer(LAST_SECONDS, deadline.set)
        timer.start()
        count = self._wiring.retrying(give_back, f"queue {lane.name}: release", deadline) or 0
        timer.cancel()
        if count:
            log.info("queue %s: %d jobs given back", lane.name, count, extra={"event": "released"})
        return count
