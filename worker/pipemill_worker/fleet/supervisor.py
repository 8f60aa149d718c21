"""Runs worker processes and watches over them: starts again what died, and ends all of them together."""

from __future__ import annotations

import logging
import selectors
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from pipemill.cli.exits import Exit
from pipemill_worker.fleet.backoff import Deaths, hopeless
from pipemill_worker.fleet.plan import ProcessPlan
from pipemill_worker.fleet.process import Child
from pipemill_worker.fleet.signals import Signals

log = logging.getLogger("pipemill.supervisor")

#: How much longer than its drain a worker may take to end before it is killed, in seconds.
GRACE_SECONDS: Final = 15.0
#: What children are sent at the first, the second and the third request to stop. Celery drains at the first; at the
#: second, the drain gives back what still runs instead of waiting for it.
STEPS: Final = (signal.SIGTERM, signal.SIGQUIT, signal.SIGKILL)


@dataclass
class Slot:
    """One process of the plan, through all its lives."""

    plan: ProcessPlan
    child: Child | None = None
    deaths: Deaths = field(default_factory=Deaths)
    #: When it is to be started, on the monotonic clock.
    due: float = 0.0
    #: It ended well without our asking (``celery control shutdown``, a signal of its own): it is wanted no more.
    dismissed: bool = False


class Supervisor:
    """Runs a plan until it is asked to stop, or can't go on. ``run`` it once, in the main thread.

    The first process starts alone, and the others all at once when it serves. So a mistake is told once, and a model is
    downloaded and measured once, by a process that has the machine for itself.
    """

    def __init__(self, plans: Sequence[ProcessPlan], start: Callable[[ProcessPlan], Child], drain_seconds: float):
        self._slots = [Slot(plan) for plan in plans]
        self._start = start
        self._drain_seconds = drain_seconds
        self._selector = selectors.DefaultSelector()
        #: Whether the others may start.
        self._open = False
        #: How many of the steps the children were told.
        self._told = 0
        #: When the next step is due, on the monotonic clock.
        self._deadline: float | None = None
        self._code = int(Exit.WELL)

    def run(self) -> int:
        """Start, watch and restart; the exit code: 0 if all ended well, else that of the first that didn't."""
        with self._selector, Signals() as signals:
            self._selector.register(signals, selectors.EVENT_READ)
            while True:
                for number in signals.requests():
                    self._asked(number)
                for slot in self._slots:
                    self._collect(slot)
                if self._over():
                    break
                for slot in self._waiting():
                    self._start_due(slot)
                self._enforce()
                for key, _ in self._selector.select(self._wait_seconds()):
                    if isinstance(key.data, Slot) and key.data.child is not None:
                        self._listen(key.data, key.data.child)
        log.info("all worker processes have ended", extra={"event": "fleet_stopped", "code": self._code})
        return self._code

    def _over(self) -> bool:
        nobody = all(slot.child is None for slot in self._slots)
        return nobody and (self._told > 0 or all(slot.dismissed for slot in self._slots))

    def _admitted(self) -> list[Slot]:
        """The processes that are wanted at this time."""
        return [slot for slot in (self._slots if self._open else self._slots[:1]) if not slot.dismissed]

    def _waiting(self) -> list[Slot]:
        """What is to be started, now or later."""
        return [] if self._told else [slot for slot in self._admitted() if slot.child is None]

    def _wait_seconds(self) -> float | None:
        """Until something is due; ``None`` waits for a signal or a child."""
        due = [slot.due for slot in self._waiting()]
        if self._deadline is not None:
            due.append(self._deadline)
        return max(min(due) - time.monotonic(), 0.0) if due else None

    def _start_due(self, slot: Slot) -> None:
        if slot.due > time.monotonic():
            return
        try:
            slot.child = self._start(slot.plan)
        except OSError as error:  # no memory, no more processes: perhaps later
            _log(logging.ERROR, slot, "start_failed", f"could not be started ({error})")
            self._died(slot, Exit.UNEXPECTED, lived_seconds=0.0, ready=False)
            return
        slot.plan = replace(slot.plan, processes=1)  # Whoever takes its place finds what the others need taken already.
        self._selector.register(slot.child.socket, selectors.EVENT_READ, slot)
        _log(logging.INFO, slot, "process_started", f"started as process {slot.child.pid}", pid=slot.child.pid)

    def _listen(self, slot: Slot, child: Child) -> None:
        """Hear the one thing that a child has to say: that it serves. The end of its stream says nothing."""
        if child.socket in self._selector.get_map():
            self._selector.unregister(child.socket)
        if child.listen():
            self._open = True
            slot.deaths = slot.deaths.served()
            _log(logging.INFO, slot, "process_ready", "serves")

    def _collect(self, slot: Slot) -> None:
        """Notice that a child has ended, and say what follows."""
        child = slot.child
        if child is None or (code := child.ended()) is None:
            return
        self._listen(slot, child)
        child.close()
        slot.child = None
        if self._told:
            self._ended_as_told(slot, code)
        elif code == Exit.WELL:
            slot.dismissed = self._open = True
            _log(logging.INFO, slot, "process_dismissed", "was stopped by others, and isn't started again")
        elif code == Exit.CONFIGURATION:
            self._give_up(
                code, f"worker process {slot.plan.number} can't serve, and no other could: see what it logged last"
            )
        else:
            self._died(slot, code, lived_seconds=time.monotonic() - child.started, ready=child.ready)

    def _ended_as_told(self, slot: Slot, code: int) -> None:
        # Told before it listened to signals, it dies of them, and holds no jobs.
        well = code == Exit.WELL or -code in STEPS[:2]
        self._code = self._code or (int(Exit.WELL) if well else shell_code(code))
        _log(logging.INFO if well else logging.WARNING, slot, "process_ended", f"ended with code {code}", code=code)

    def _died(self, slot: Slot, code: int, *, lived_seconds: float, ready: bool) -> None:
        slot.deaths = slot.deaths.after(lived_seconds=lived_seconds, ready=ready)
        _log(logging.ERROR, slot, "process_died", f"died with code {code} after {lived_seconds:.0f} s", code=code)
        if hopeless(other.deaths for other in self._admitted()):
            deaths = slot.deaths.before_ready
            self._give_up(
                code, f"no worker process comes to serve ({deaths} deaths in a row): see what they logged last"
            )
            return
        slot.due = time.monotonic() + slot.deaths.wait_seconds
        _log(logging.INFO, slot, "process_due", f"starts again in {slot.deaths.wait_seconds:.0f} s")

    def _give_up(self, code: int, reason: str) -> None:
        self._code = shell_code(code)
        log.critical("%s", reason, extra={"event": "fleet_gave_up", "code": self._code})
        self._tell(1)

    def _asked(self, number: signal.Signals) -> None:
        """Take a request to stop: the first in order, the second in haste, the third by force."""
        step = min(self._told + 1, len(STEPS))
        if number == signal.SIGQUIT:
            step = max(step, 2)
        log.info(
            "%s: stopping the worker processes (%s)",
            number.name,
            STEPS[step - 1].name,
            extra={"event": "fleet_stopping"},
        )
        self._tell(step)

    def _tell(self, step: int) -> None:
        seconds = GRACE_SECONDS + (self._drain_seconds if step == 1 else 0.0)
        self._told = step
        self._deadline = time.monotonic() + seconds if step < len(STEPS) else None
        for slot in self._slots:
            if slot.child is not None:
                slot.child.send(STEPS[step - 1])

    def _enforce(self) -> None:
        """Kill what still lives when its time is over."""
        if self._deadline is None or self._deadline > time.monotonic():
            return
        for slot in self._slots:
            if slot.child is not None:
                _log(logging.WARNING, slot, "process_killed", "didn't end in time and is killed; its leases run out")
        self._tell(len(STEPS))


def shell_code(code: int) -> int:
    """The exit code of a process as a shell would give it: a signal is 128 and its number."""
    return 128 - code if code < 0 else code


def _log(level: int, slot: Slot, event: str, text: str, **more: Any) -> None:
    number = slot.plan.number
    log.log(level, "worker process %d %s", number, text, extra={"event": event, "number": number, **more})
