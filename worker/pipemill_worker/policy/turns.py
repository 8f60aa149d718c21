"""Whose item comes next inside a worker, where several tenants share it."""

from __future__ import annotations


class Turns:
    """Turns counted in the cost of what ran before: a tenant's next item comes when the others had as much.

    The broker hands jobs out so, too; but what was taken before a tenant's first job came must not stand before it.
    Who comes anew is next at once, for a batch is composed around the first item.
    """

    def __init__(self) -> None:
        self._last = 0.0
        #: By tenant, when it will have had what it was given turns for, as long as that is still to come.
        self._had: dict[str, float] = {}

    def give(self, tenant: str, cost: float) -> float:
        """The turn of a tenant's item that comes now; lower ones are first."""
        turn = max(self._had.get(tenant, 0.0), self._last)
        self._had[tenant] = turn + cost
        return turn

    def note_taken(self, turn: float) -> None:
        """An item with this turn runs; those that come later stand behind it."""
        self._last = max(self._last, turn)
        self._had = {tenant: had for tenant, had in self._had.items() if had > self._last}
