"""Whose item comes next inside a worker, where several tenants share it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

#: How long a light tenant is remembered after its last job, in seconds: who asks now and then finds passes short.
REMEMBERED_SECONDS: Final = 60.0
#: A tenant with such a part of what waits is a heavy one.
HEAVY: Final = 0.25
#: How much longer than one item's a pass of heavy tenants' may be beside light ones: at 2 a light tenant's 95th
#: percentile was 2.4 times what it is alone, at 1.5 it was 1.7 times (two layers, Zen 3).
SHARED_ITEMS: Final = 1.5
#: What such a pass may take in any case, in seconds.
SHARED_SECONDS: Final = 0.005


def shared_seconds(item_seconds: float) -> float:
    """Longest pass of heavy tenants' items beside light ones, in seconds: who comes meanwhile waits for its end."""
    return max(SHARED_ITEMS * item_seconds, SHARED_SECONDS)


def heavy_ones(waiting: Mapping[str, float]) -> set[str]:
    """The heavy tenants, by what waits of each, in cost: a few at most."""
    return {tenant for tenant, cost in waiting.items() if cost >= HEAVY * sum(waiting.values())}


#: Tenants whose turns are remembered: those who had least are forgotten, and with them what they owe.
TENANTS_KEPT: Final = 1_000


class Turns:
    """Turns counted in the cost of what ran before: a tenant's next item comes when the others had as much.

    The broker hands jobs out so, too; but what was taken before a tenant's first job came must not stand before it.
    Who comes anew is next at once, for a batch is composed around the first item.
    """

    def __init__(self) -> None:
        self._last = 0.0
        #: By tenant, when it will have had what it was given turns for, as long as that is still to come.
        self._had: dict[str, float] = {}

    def waits(self, tenant: str) -> bool:
        """Whether the others are still to have as much as a tenant was given turns for."""
        return self._had.get(tenant, 0.0) > self._last

    def give(self, tenant: str, cost: float) -> float:
        """The turn of a tenant's item that comes now; lower ones are first."""
        turn = max(self._had.get(tenant, 0.0), self._last)
        self._had[tenant] = turn + cost
        if len(self._had) > TENANTS_KEPT:
            self.note_taken(sorted(self._had.values())[TENANTS_KEPT // 2])
        return turn

    def note_taken(self, turn: float) -> None:
        """An item with this turn runs; those that come later stand behind it."""
        self._last = max(self._last, turn)
        self._had = {tenant: had for tenant, had in self._had.items() if had > self._last}
