"""Which waiting items can still be answered in time, and how large a pass may be for it.

Under overload a queue that serves the oldest first serves nobody: each job's turn comes just before its deadline, and
its answer after it. So jobs that can't be answered in time give way to those that can.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence


def in_time(
    costs: Sequence[int], lefts: Sequence[float], max_cost: int, answered_in: Callable[[float], float]
) -> tuple[list[int], int]:
    """The items that the next pass can answer in time, as indices, and the most that the pass may cost.

    ``lefts`` are the seconds until each item's deadline (infinity without one); ``answered_in`` tells in how many
    seconds the answers of a pass of a cost are there. A large pass does more a second, but is too long for items with
    little time left: of ``max_cost``, half of it, a quarter and so on, that cost is chosen with which most that is in
    time is done a second. If nothing can be answered in time, the list is empty and the cost is the smallest tried.
    """
    total, least = sum(costs), min(costs, default=1)
    chosen: list[int] = []
    cost, budget, best = max_cost, max_cost, 0.0
    while budget >= 1:
        seconds = answered_in(min(budget, total))
        fitting = [
            index
            for index, left in enumerate(lefts)
            if left >= (seconds if costs[index] <= budget else answered_in(costs[index]))
        ]
        done = min(sum(costs[index] for index in fitting), budget)
        rate = done / max(answered_in(done), 1e-9)
        if rate > best:
            chosen, cost, best = fitting, budget, rate
        if len(fitting) == len(lefts) or budget <= least:
            break
        budget //= 2
    return (chosen, cost) if chosen else ([], budget)
