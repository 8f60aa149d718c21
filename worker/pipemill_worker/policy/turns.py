"""Whose item comes next in a lane's pool, where several tenants share it."""

from __future__ import annotations


class Turns:
    """Turns counted in the cost of what ran before: a tenant's next item comes when the others had as much.

    The broker hands jobs out so, too; but what was taken before a tenant's first job came must not stand before it.
    """

    def __init__(self) -> None:
        self._last = 0.0
        #: By tenant, the turn given last, as long as it is still to come.
        self._given: dict[str, float] = {}

    def give(self, tenant: str, cost: float) -> float:
        """The turn of a tenant's item that comes now; lower ones are first."""
        turn = max(self._given.get(tenant, 0.0), self._last) + cost
        self._given[tenant] = turn
        return turn

    def note_taken(self, turn: float) -> None:
        """An item with this turn runs; those that come later stand behind it."""
        self._last = max(self._last, turn)
        self._given = {tenant: given for tenant, given in self._given.items() if given > self._last}
