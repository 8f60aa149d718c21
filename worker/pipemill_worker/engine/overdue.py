"""Jobs whose time is over end while the device is busy, not only when its pass is."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from pipemill_worker.engine.lane import Lane
from pipemill_worker.engine.wiring import Wiring

#: Longest time between two looks, in seconds. A cancel by a client is heard at once; a deadline, and what a host alone
#: knows (Celery's revoke), is seen with the next look.
LOOK_SECONDS: Final = 0.5
#: How long one wait for cancels may take, in seconds: so soon the thread notices that the engine is closed.
LISTEN_SECONDS: Final = 0.25


class Overdue:
    """Ends what is cancelled or has expired, in all lanes' pools."""

    def __init__(self, lanes: Sequence[Lane], wiring: Wiring):
        self._lanes = lanes
        self._wiring = wiring

    def run(self) -> None:
        """Look until the engine is closed."""
        wiring = self._wiring
        while not wiring.closed.is_set():
            wiring.cancels.wait(LOOK_SECONDS)
            wiring.cancels.clear()
            for lane in self._lanes:
                if ends := lane.drop(wiring.hooks.is_revoked):
                    lane.to_end.put(ends)


class Listener:
    """Hears at once which of one lane's jobs are cancelled. What it misses is told with the next take or renewal."""

    def __init__(self, lane: Lane, wiring: Wiring):
        self._lane = lane
        self._wiring = wiring

    def run(self) -> None:
        """Listen until the engine is closed."""
        lane, wiring = self._lane, self._wiring
        hear = partial(lane.store.hear_cancelled, LISTEN_SECONDS)
        while not wiring.closed.is_set():
            if heard := wiring.retrying(hear, f"queue {lane.name}: listen", wiring.closed):
                lane.note_cancelled(heard)
                wiring.cancels.set()
