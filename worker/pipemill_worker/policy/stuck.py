"""When a forward pass counts as stuck: it will not come back, and the process with it."""

from __future__ import annotations

from typing import Final

#: How many times longer than predicted a pass may take: shapes that are met first, a machine that is busy with others.
STUCK_FACTOR: Final = 20.0
#: How many looks' time at most counts between two looks: a process that was paused wakes with passes as old as its
#: pause, and none of them is stuck.
MOST_LOOKS: Final = 2.0


def stuck_after(least: float, predicted: float) -> float:
    """How long a pass may be without a sign of life, in seconds; ``predicted`` is how long it should take in all."""
    return max(least, STUCK_FACTOR * predicted)


class Patience:
    """How long something was seen to stand still, in seconds, as far as the watcher itself was awake."""

    def __init__(self, interval: float):
        self._most = MOST_LOOKS * interval
        self._sign: object = None
        self._looked = 0.0
        self._still = 0.0

    def look(self, sign: object, now: float) -> float:
        """For how long the sign of life has been the same, at a time in seconds by any steady clock."""
        if sign != self._sign:
            self._sign, self._still = sign, 0.0
        else:
            self._still += min(now - self._looked, self._most)
        self._looked = now
        return self._still
