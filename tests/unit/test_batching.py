"""The policy of the next batch and of the next try: pure functions."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipemill_worker.policy.backoff import LONGEST_SECONDS, backoff_seconds
from pipemill_worker.policy.batching import PACKED_SPREAD, BatchLimits, compose

#: A loaded machine is no failure: examples may take their time.
patient = settings(deadline=None)


@dataclass(frozen=True)
class Waiting:
    """A waiting item."""

    cost: int = 1
    group: Hashable | None = "all"
    urgency: int = 0


#: Limits that never bind.
BOUNDLESS = BatchLimits(max_items=10_000, max_cost=10**9, max_amplification=10**6)

ITEMS = st.lists(
    st.builds(
        Waiting,
        cost=st.integers(1, 600),
        group=st.sampled_from(["a", "b", ("c", 3), None]),
        urgency=st.sampled_from([0, 3, 6, 9]),
    ),
    max_size=40,
)
LIMITS = st.builds(
    BatchLimits,
    packed=st.booleans(),
    max_items=st.integers(1, 64),
    max_cost=st.integers(1, 4_000),
    max_amplification=st.floats(1, 4, allow_nan=False),
)


def limits(*, max_items: int = 10_000, max_cost: int = 10**9, max_amplification: float = 10**6) -> BatchLimits:
    """Limits of which only those given bind."""
    return BatchLimits(max_items=max_items, max_cost=max_cost, max_amplification=max_amplification)


def costs(*each: int) -> list[Waiting]:
    """Items of one group with these costs, the oldest first."""
    return [Waiting(cost=cost) for cost in each]


def head_of(items: Sequence[Waiting]) -> int:
    """The oldest item of the most urgent priority."""
    return min(range(len(items)), key=lambda index: (items[index].urgency, index))


def test_nothing_waits() -> None:
    """An empty pool makes an empty batch."""
    assert compose([], BOUNDLESS) == []


def test_all_that_fit_share_a_batch() -> None:
    """Without a bound in the way, all items of a group run together."""
    assert sorted(compose(costs(3, 1, 2), BOUNDLESS)) == [0, 1, 2]


def test_the_oldest_is_in_even_if_it_is_over_the_budget() -> None:
    """An item that alone exceeds the token budget runs, alone."""
    assert compose(costs(5_000, 1, 1), limits(max_cost=100)) == [0]


def test_the_most_urgent_goes_first() -> None:
    """A lower priority step is more urgent than age, and age decides among equals."""
    waiting = [Waiting(urgency=9), Waiting(urgency=3), Waiting(urgency=0), Waiting(urgency=0)]
    assert compose(waiting, limits(max_items=1)) == [2]


def test_less_urgent_items_fill_the_batch() -> None:
    """What is less urgent may ride along: it takes nobody's place."""
    assert sorted(compose([Waiting(urgency=9), Waiting(urgency=0)], BOUNDLESS)) == [0, 1]


def test_nearest_lengths_first() -> None:
    """The items nearest in cost to the head join it first, the older one among equals."""
    assert compose(costs(10, 30, 12, 9, 11), limits(max_items=3)) == [0, 3, 4]
    assert compose(costs(10, 300, 50, 11), limits(max_items=3)) == [0, 3, 2]


def test_the_budget_counts_padding() -> None:
    """The number of items times the largest cost stays within the budget."""
    assert compose(costs(10, 10, 10, 10), limits(max_cost=30)) == [0, 1, 2]
    assert compose(costs(10, 16), limits(max_cost=30)) == [0]
    assert compose(costs(10, 15), limits(max_cost=30)) == [0, 1]


def test_amplification_is_bounded() -> None:
    """Items that would be padded too much wait for a batch of their own length."""
    assert compose(costs(100, 10), limits(max_amplification=1.5)) == [0]
    assert compose(costs(100, 90), limits(max_amplification=1.5)) == [0, 1]
    assert compose(costs(100, 99, 100), limits(max_amplification=1)) == [0, 2]


def test_packed_items_join_by_age_up_to_the_sum_of_their_costs() -> None:
    """Items laid end to end need no like length: the older ones join, as long as the sum stays within the budget."""
    packed = replace(limits(max_cost=600), packed=True, max_amplification=1)
    assert compose(costs(500, 5, 80, 30, 10), packed) == [0, 1, 2, 4]
    assert compose(costs(10, 500, 5), replace(packed, max_items=2)) == [0, 1]
    assert compose(costs(700, 1), packed) == [0]


def test_packed_items_are_bounded_where_they_are_padded() -> None:
    """Before and behind the layers there is padding; it, too, is bounded."""
    packed = replace(limits(max_cost=100), packed=True)
    chosen = compose(costs(60, *[1] * 60), packed)
    assert len(chosen) == 13
    assert len(chosen) * 60 <= 100 * PACKED_SPREAD
    assert len(compose(costs(90, *[1] * 60), replace(packed, max_cost=700))) == 61


def test_groups_dont_mix() -> None:
    """Only items with equal keys share a batch."""
    waiting = [Waiting(group=("a", 1)), Waiting(group=("a", 2)), Waiting(group=("a", 1))]
    assert compose(waiting, BOUNDLESS) == [0, 2]


def test_no_group_runs_alone() -> None:
    """An item without a group shares with nobody, not even with its like."""
    assert compose([Waiting(group=None), Waiting(group=None), Waiting()], BOUNDLESS) == [0]
    assert compose([Waiting(), Waiting(group=None), Waiting()], BOUNDLESS) == [0, 2]


@patient
@given(ITEMS, LIMITS)
def test_a_batch_keeps_all_rules(items: list[Waiting], bounds: BatchLimits) -> None:
    """Whatever waits: the head is in, indices are real and unique, one group, and the bounds hold or it runs alone."""
    chosen = compose(items, bounds)
    assert len(set(chosen)) == len(chosen)
    assert set(chosen) <= set(range(len(items)))
    if not items:
        return
    assert chosen[0] == head_of(items)
    batch = [items[index] for index in chosen]
    if len(batch) == 1:
        return
    largest = max(item.cost for item in batch)
    assert {item.group for item in batch} == {batch[0].group} != {None}
    assert len(batch) <= bounds.max_items
    if bounds.packed:
        assert sum(item.cost for item in batch) <= bounds.max_cost
        assert len(batch) * largest <= bounds.max_cost * PACKED_SPREAD
    else:
        assert len(batch) * largest <= bounds.max_cost
        assert len(batch) * largest**2 <= bounds.max_amplification * sum(item.cost**2 for item in batch)


@patient
@given(ITEMS, st.integers(1, 10))
def test_the_nearest_join(items: list[Waiting], most: int) -> None:
    """If only the number of items is bounded, those that join are the nearest in cost, older ones among equals."""
    chosen = compose(items, limits(max_items=most))
    if items and items[chosen[0]].group is not None:
        head = items[chosen[0]]
        like = [index for index, item in enumerate(items) if item.group == head.group and index != chosen[0]]
        like.sort(key=lambda index: (abs(items[index].cost - head.cost), index))
        assert chosen[1:] == like[: most - 1]


@patient
@given(ITEMS, LIMITS)
def test_nothing_starves(items: list[Waiting], bounds: BatchLimits) -> None:
    """Batch after batch, everything runs exactly once."""
    left, ran = list(enumerate(items)), []
    for _ in range(len(items)):
        chosen = set(compose([item for _, item in left], bounds))
        ran += [number for place, (number, _) in enumerate(left) if place in chosen]
        left = [entry for place, entry in enumerate(left) if place not in chosen]
    assert sorted(ran) == list(range(len(items)))


def test_the_first_waits_double() -> None:
    """Failures in a row are tried again after 0.1, 0.2, 0.4 seconds, and so on."""
    assert [backoff_seconds(attempt) for attempt in (1, 2, 3, 4)] == pytest.approx([0.1, 0.2, 0.4, 0.8])


@patient
@given(st.integers(1, 10**9))
def test_waits_are_bounded(attempt: int) -> None:
    """However often it failed, the wait is above nothing, at most two seconds, and no shorter than the one before."""
    assert 0 < backoff_seconds(attempt) <= backoff_seconds(attempt + 1) <= LONGEST_SECONDS
