"""Which waiting items share the next forward pass.

The batch is composed at the moment the device is free, from all that waits then: late arrivals join, and nobody waits
for a window to close.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

#: Times the budget that packed items may take where they still are padded: before and behind the encoder's layers,
#: where a place costs about a hundredth. Short sentences with a long text among 64 went 1.2 times as fast as with 32.
PACKED_SPREAD: Final = 8


class Candidate(Protocol):
    """A waiting item, as far as composing is concerned."""

    @property
    def group(self) -> Hashable | None:
        """Only items with equal keys share a batch; None runs alone."""

    @property
    def cost(self) -> int:
        """What the item costs, in the task's own unit; at least 1."""

    @property
    def urgency(self) -> int:
        """Priority step: 0 before 3 before 6 before 9."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """Bounds of one forward pass."""

    #: Most items.
    max_items: int
    #: Most padded cost: the number of items times the largest cost among them; of packed items, the sum of their costs.
    max_cost: int
    #: Most quadratic amplification by padding: ``n · max² / Σ cost²``; 1.5 after mcp-local-rag PR #179, 1 allows none.
    max_amplification: float
    #: Whether items are laid end to end, so that padding costs nothing.
    packed: bool = False


def padded_cost(costs: Sequence[int], *, packed: bool) -> int:
    """What a batch of items costs: laid end to end the sum, else as much for each as for the largest."""
    return sum(costs) if packed else len(costs) * max(costs)


def compose(waiting: Sequence[Candidate], limits: BatchLimits) -> list[int]:
    """Choose the items of the next batch, as indices into ``waiting`` (whose turn is first, first).

    The first item of the most urgent priority is always in, even if it alone is over the budget: nothing starves.
    Items of its group join it while the bounds hold: nearest costs first and older ones first among equals, or if they
    are packed, older ones first.
    """
    if not waiting:
        return []
    head = min(range(len(waiting)), key=lambda index: (waiting[index].urgency, index))
    group, cost = waiting[head].group, waiting[head].cost
    chosen = [head]
    if group is None or limits.max_items == 1:
        return chosen
    others = [index for index, item in enumerate(waiting) if index != head and item.group == group]
    if limits.packed:
        return chosen + _packed(waiting, others, cost, limits)
    others.sort(key=lambda index: abs(waiting[index].cost - cost))
    largest, squares = cost, cost * cost
    for index in others:
        if len(chosen) == limits.max_items:
            break
        own = waiting[index].cost
        if _fits(len(chosen) + 1, max(largest, own), squares + own * own, limits):
            chosen.append(index)
            largest, squares = max(largest, own), squares + own * own
    return chosen


def _packed(waiting: Sequence[Candidate], others: Sequence[int], cost: int, limits: BatchLimits) -> list[int]:
    """Which of the others join an item of this cost end to end."""
    joined: list[int] = []
    total = largest = cost
    for index in others:
        if len(joined) + 1 == limits.max_items or total >= limits.max_cost:
            break
        own = waiting[index].cost
        padded = (len(joined) + 2) * max(largest, own)
        if total + own <= limits.max_cost and padded <= limits.max_cost * PACKED_SPREAD:
            joined.append(index)
            total, largest = total + own, max(largest, own)
    return joined


def _fits(count: int, largest: int, squares: int, limits: BatchLimits) -> bool:
    return count * largest <= limits.max_cost and count * largest * largest <= limits.max_amplification * squares
