"""A stage that doesn't come back: told with its stack, and ended with the process.

Python can't end a thread, and a model that hangs keeps its device. So the process gives way to another: what hangs is
blamed, as after a crash, and all else goes back unblamed.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Final

from pipemill_worker.engine.watched import Underway, Watched
from pipemill_worker.engine.wiring import Wiring, log
from pipemill_worker.policy.stuck import Patience, stuck_after

#: Longest time between two looks, in seconds.
LOOK_SECONDS: Final = 1.0
#: Looks before something counts as stuck, at least.
LEAST_LOOKS: Final = 4.0


class Stuck(RuntimeError):
    """A stage doesn't come back."""


class Watchdog:
    """Looks whether stages get on; it has no lock in common with them."""

    def __init__(
        self, stages: Sequence[Watched], wiring: Wiring, seconds: float, on_stuck: Callable[[Watched, Underway], None]
    ):
        self._wiring = wiring
        self._seconds = seconds
        self._on_stuck = on_stuck
        self._interval = min(LOOK_SECONDS, seconds / LEAST_LOOKS)
        self._patience = [(stage, Patience(self._interval)) for stage in stages]

    def run(self) -> None:
        """Look until the engine stops: from then on, the drain has a bound of its own. Whatever hangs first is told."""
        while not self._wiring.stopping.wait(self._interval):
            for stage, patience in self._patience:
                underway = stage.underway
                still = patience.look(underway and (underway.since, underway.alive_at), time.monotonic())
                if underway is not None and still > stuck_after(self._seconds, underway.predicted):
                    self._tell(stage, underway, still)
                    self._on_stuck(stage, underway)
                    return

    @staticmethod
    def _tell(stage: Watched, underway: Underway, still: float) -> None:
        text = (
            "queue %s: %s hasn't got on for %.0f s; this worker gives way to another. "
            "What it holds runs alone next, and fails after worker.max_deliveries. It hangs here:\n%s"
        )
        log.critical(
            text,
            underway.lane.name,
            underway.told,
            still,
            stack_of(stage.thread_id),
            extra={
                "event": f"{underway.stage}_stuck",
                "queue": underway.lane.name,
                "jobs": sorted({work.job.id for work in underway.works}),
            },
        )


def stack_of(thread_id: int | None) -> str:
    """Where a thread is at this moment, as a traceback; without the values of its variables, which may be inputs."""
    frame = None if thread_id is None else sys._current_frames().get(thread_id)  # noqa: SLF001  # there is no public way
    return "(the thread is gone)" if frame is None else "".join(traceback.format_stack(frame)).rstrip()
