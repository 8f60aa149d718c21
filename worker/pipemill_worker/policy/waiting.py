"""Whether a free device should wait for more items.

An idle device runs what is there at once. It waits only when everyone's latency together falls by it: when the next
item is near, and a pass with it takes little longer than one without. Where two items take twice as long as one, that
is never so, and nobody waits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

#: How many times the expected gap may pass without an arrival before the expectation counts as wrong.
PATIENCE: Final = 2.0
#: Weight of the last gap between arrivals in the expected one.
GAP_WEIGHT: Final = 0.2


def wait_seconds(
    present: int, cost: float, next_cost: float, gap: float | None, seconds: Callable[[float], float]
) -> float:
    """How long to wait for the next item, in seconds; 0 runs those present now.

    ``present`` items of ``cost`` together are ready; the next of ``next_cost`` is expected in ``gap`` seconds
    (``None``: not at all); ``seconds`` tells how long a pass of a cost takes. Running now, the next waits for the pass
    to end and runs after it; waiting, all run together. The sums of latencies are compared.
    """
    if not present or gap is None:
        return 0.0
    now, alone, together = seconds(cost), seconds(next_cost), seconds(cost + next_cost)
    if gap >= now:  # The device will be free again by then.
        return 0.0
    run = present * now + (now - gap + alone)
    wait = present * (gap + together) + together
    return gap * PATIENCE if wait < run else 0.0


class Arrivals:
    """How far apart jobs come."""

    def __init__(self) -> None:
        self._gap: float | None = None
        self._last: float | None = None

    def note(self, now: float, count: int) -> None:
        """Jobs came, at a time in seconds by any steady clock."""
        if count <= 0:
            return
        if self._last is not None:
            gap = (now - self._last) / count
            self._gap = gap if self._gap is None else self._gap + GAP_WEIGHT * (gap - self._gap)
        self._last = now

    def expected(self, now: float) -> float | None:
        """In how many seconds the next job is expected; ``None`` when it is unknown or overdue."""
        if self._gap is None or self._last is None:
            return None
        return self._gap if now - self._last <= self._gap * PATIENCE else None
