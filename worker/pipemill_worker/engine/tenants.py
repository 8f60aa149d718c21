"""Tenants that share one lane: whose items are next, and whether light ones come beside heavy ones."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from pipemill_worker.engine.work import Entry
from pipemill_worker.policy.turns import REMEMBERED_SECONDS, Turns, heavy_ones


class Tenants:
    """Guarded by its lane."""

    def __init__(self, *, fair: bool):
        self._fair = fair
        self._turns = Turns()
        #: By tenant, when a job of its came while none waited, in seconds of the monotonic clock; the last one last.
        self._came: dict[str, float] = {}
        self._uneven_until = -math.inf

    def line_up(self, entries: Sequence[Entry], now: float) -> None:
        """Give items that come into the pool their turns."""
        fresh: dict[int, bool] = {}
        for entry in entries:
            tenant = entry.work.tenant if self._fair else ""
            entry.fresh = fresh.setdefault(id(entry.work), not self._turns.waits(tenant))
            entry.turn = self._turns.give(tenant, entry.cost)
            if entry.fresh:
                self._came.pop(tenant, None)
                self._came[tenant] = now

    def note_taken(self, entries: Sequence[Entry]) -> None:
        """Items leave the pool for the device: their turns are over."""
        if entries:
            self._turns.note_taken(min(entry.turn for entry in entries))

    def look(self, pool: Sequence[Entry], now: float) -> None:
        """See whether light tenants have come beside heavy ones, by what waits."""
        while self._came and now - self._came[first := next(iter(self._came))] > REMEMBERED_SECONDS:
            del self._came[first]
        if len(self._came) > 1:
            costs = Counter[str]()
            for entry in pool:
                costs[entry.work.tenant] += entry.cost
            heavy = heavy_ones(costs)
            light = next((tenant for tenant in reversed(self._came) if tenant not in heavy), None)
            if heavy and light is not None:
                self._uneven_until = self._came[light] + REMEMBERED_SECONDS

    def uneven(self, now: float) -> bool:
        """Whether a light tenant has come beside a heavy one within a minute."""
        return now <= self._uneven_until


def light_pass(pool: Sequence[Entry], enough: float) -> list[Entry] | None:
    """Light tenants' items, if they are next and cost enough for a pass of their own; ``None`` for whatever is next."""
    first = min(pool, key=lambda entry: entry.urgency, default=None)
    if first is None or not first.fresh:
        return None
    fresh = [entry for entry in pool if entry.fresh]
    return fresh if sum(entry.cost for entry in fresh) >= enough else None
