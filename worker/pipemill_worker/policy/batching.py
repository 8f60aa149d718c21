"""Which waiting items share the next forward pass.

The batch is composed at the moment the device is free, from all that waits then: late arrivals join, and nobody waits
for a window to close.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol


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
    #: Most padded cost: the number of items times the largest cost among them.
    max_cost: int
    #: Most quadratic amplification by padding: ``n · max² / Σ cost²``; 1.5 after mcp-local-rag PR #179, 1 allows none.
    max_amplification: float


def compose(waiting: Sequence[Candidate], limits: BatchLimits) -> list[int]:
    """Choose the items of the next batch, as indices into ``waiting`` (oldest first).

    The oldest item of the most urgent priority is always in, even if it alone is over the budget: nothing starves.
    Items of its group join it, nearest costs first and older ones first among equals, while the bounds hold.
    """
    if not waiting:
        return []
    head = min(range(len(waiting)), key=lambda index: (waiting[index].urgency, index))
    group, cost = waiting[head].group, waiting[head].cost
    chosen = [head]
    if group is None or limits.max_items == 1:
        return chosen
    others = [index for index, item in enumerate(waiting) if index != head and item.group == group]
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


def _fits(count: int, largest: int, squares: int, limits: BatchLimits) -> bool:
    return count * largest <= limits.max_cost and count * largest * largest <= limits.max_amplification * squares
