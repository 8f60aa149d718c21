"""A forward pass that doesn't come back: told with its stack, and ended with the process.

Python can't end a thread, and a model that hangs keeps its device. So the process gives way to another: what the pass
holds is blamed, as after a crash, and all else goes back unblamed.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Final

from pipemill_worker.engine.forward import Forward, Pass
from pipemill_worker.engine.wiring import Wiring, log
from pipemill_worker.policy.stuck import Patience, stuck_after

#: Longest time between two looks, in seconds.
LOOK_SECONDS: Final = 1.0
#: Looks before a pass counts as stuck, at least.
LEAST_LOOKS: Final = 4.0


class Stuck(RuntimeError):
    """A forward pass doesn't come back."""


class Watchdog:
    """Looks whether passes get on; it has no lock in common with those that run them."""

    def __init__(
        self, forwards: Sequence[Forward], wiring: Wiring, seconds: float, on_stuck: Callable[[Forward, Pass], None]
    ):
        self._wiring = wiring
        self._seconds = seconds
        self._on_stuck = on_stuck
        self._interval = min(LOOK_SECONDS, seconds / LEAST_LOOKS)
        self._patience = [(forward, Patience(self._interval)) for forward in forwards]

    def run(self) -> None:
        """Look until the engine stops: from then on, the drain has a bound of its own. The first stuck pass is told."""
        while not self._wiring.stopping.wait(self._interval):
            for forward, patience in self._patience:
                underway = forward.underway
                still = patience.look(underway and (underway.since, underway.alive_at), time.monotonic())
                if underway is not None and still > stuck_after(self._seconds, underway.predicted):
                    self._tell(forward, underway, still)
                    self._on_stuck(forward, underway)
                    return

    @staticmethod
    def _tell(forward: Forward, underway: Pass, still: float) -> None:
        text = (
            "queue %s: a forward pass of %d items on %s hasn't got on for %.0f s; this worker gives way to another. "
            "Its jobs run alone next, and fail after worker.max_deliveries. It hangs here:\n%s"
        )
        log.critical(
            text,
            underway.lane.name,
            len(underway.batch),
            underway.lane.device,
            still,
            stack_of(forward.thread_id),
            extra={"event": "forward_stuck", "queue": underway.lane.name, "jobs": sorted(underway.job_ids)},
        )


def stack_of(thread_id: int | None) -> str:
    """Where a thread is at this moment, as a traceback; without the values of its variables, which may be inputs."""
    frame = None if thread_id is None else sys._current_frames().get(thread_id)  # noqa: SLF001  # there is no public way
    return "(the thread is gone)" if frame is None else "".join(traceback.format_stack(frame)).rstrip()
