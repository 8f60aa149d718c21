"""Which items can still be answered in time, and with how large a pass."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from pipemill_worker.policy.deadlines import in_time

#: A loaded machine is no failure: examples may take their time.
patient = settings(deadline=None)


def steep(cost: float) -> float:
    """A device that takes a second for each unit of cost."""
    return cost


def saturating(cost: float) -> float:
    """A device that takes two seconds for any pass, and a hundredth for each unit of cost."""
    return 2 + cost / 100


def test_with_time_enough_all_may_share_a_full_pass() -> None:
    """Nobody gives way, and the pass may be as large as ever."""
    assert in_time([10, 20, 30], [math.inf, 61.0, 100.0], 60, steep) == ([0, 1, 2], 60)


def test_who_would_be_late_gives_way() -> None:
    """With a device whose passes take long whatever their size, a smaller pass saves nobody: the late are left out."""
    assert in_time([100, 100, 100], [1.0, 60.0, math.inf], 300, saturating) == ([1, 2], 300)


def test_a_pass_shrinks_to_what_there_is_time_for() -> None:
    """Where all have little time, a full pass would be late for each of them; a part of it is not."""
    assert in_time([10] * 8, [25.0] * 8, 80, steep) == ([*range(8)], 20)


def test_an_item_over_the_smaller_budget_needs_its_own_time() -> None:
    """What is larger than the pass takes as long as it takes."""
    assert in_time([10, 10, 40], [12.0, 12.0, 30.0], 60, steep) == ([0, 1], 7)
    assert in_time([10, 40], [12.0, 45.0], 50, steep) == ([1], 25)


def test_with_no_time_at_all_nobody_is_in_time() -> None:
    """Then the list is empty, and the pass the smallest."""
    assert in_time([16, 16], [0.5, 0.1], 64, steep) == ([], 16)
    assert in_time([], [], 64, steep) == ([], 64)


def test_a_device_that_is_not_known_makes_nobody_late() -> None:
    """Before the first pass, only what is over is late."""
    assert in_time([1, 1], [0.1, 5.0], 64, lambda _: 0.0) == ([0, 1], 64)


@patient
@given(
    items=st.lists(st.tuples(st.integers(1, 500), st.floats(0, 10)), max_size=30),
    most=st.integers(1, 2000),
    rate=st.floats(10, 1000),
)
def test_whoever_is_chosen_is_in_time(items: list[tuple[int, float]], most: int, rate: float) -> None:
    """A pass within the budget, or the item alone, ends before the deadline of each."""
    costs, lefts = [cost for cost, _ in items], [left for _, left in items]
    chosen, budget = in_time(costs, lefts, most, lambda cost: cost / rate)
    assert budget <= most
    for index in chosen:
        assert lefts[index] >= max(min(budget, sum(costs)), costs[index] if costs[index] > budget else 0) / rate
