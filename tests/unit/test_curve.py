"""The measured curve: which batch is worth taking, and what a pass will take."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipemill_worker.policy.batching import BatchLimits
from pipemill_worker.policy.calibration import Calibration, sized
from pipemill_worker.policy.curve import CostModel, Point, cost_within, knee, levels_off, seconds_at

#: A loaded machine is no failure: examples may take their time.
patient = settings(deadline=None)

CURVES = st.lists(st.floats(1e-4, 10), min_size=1, max_size=12).map(
    lambda seconds: curve(*((number + 1, each) for number, each in enumerate(seconds)))
)


def curve(*passes: tuple[int, float], cost: int = 32) -> list[Point]:
    """Passes of so many items that took so many seconds."""
    return [Point(items=items, cost=items * cost, seconds=seconds) for items, seconds in passes]


def calibration(*passes: tuple[int, float], ceiling: int | None = None) -> Calibration:
    """What was measured of one way to share."""
    return Calibration(sharing="padded", curves={"padded": curve(*passes)}, ceiling=ceiling)


def test_the_knee_is_the_smallest_pass_that_is_as_fast_as_any() -> None:
    """From the knee on, larger passes gain no more; it is taken, since it answers sooner."""
    assert knee(curve((1, 1.0), (2, 1.0), (4, 1.1), (8, 2.2), (16, 4.4))).items == 4


def test_one_item_is_a_batch_where_no_larger_one_gains() -> None:
    """A device that takes twice as long for two gets one at a time; so does one that is slower with more."""
    assert knee(curve((1, 1.0), (2, 2.0), (4, 3.95))).items == 1
    assert knee(curve((1, 1.0), (2, 3.0), (4, 9.0))).items == 1


def test_one_lucky_run_is_no_knee() -> None:
    """A pass that was faster than both its neighbours counts as no faster than the better of them."""
    assert knee(curve((1, 1.0), (2, 0.5), (4, 1.6), (8, 1.8), (16, 3.5))).items == 8


def test_where_a_pass_takes_a_fixed_time_and_one_per_token_the_line_tells_the_knee() -> None:
    """Two measurements of MiniLM on one machine: by what each pass took, 16 items and 64 would have been chosen."""
    costs = ((1, 21), (2, 28), (4, 71), (8, 165), (16, 346), (32, 668), (64, 1352))
    for rates in ((1491, 1798, 2633, 3300, 3497, 3707, 3515), (1115, 1361, 2140, 2557, 2635, 2425, 3382)):
        measured = zip(costs, rates, strict=True)
        points = [Point(items=n, cost=cost, seconds=cost / rate) for (n, cost), rate in measured]
        assert knee(points).cost == 1352
        assert [levels_off(points[: passes + 1]) for passes in range(7)] == [False] * 6 + [True]


def test_where_every_measured_pass_is_far_from_an_endless_one_the_largest_is_taken() -> None:
    """A line that still rises at its end says that larger passes gain: the given budget stands."""
    rising = ((1, 10.1), (2, 10.2), (4, 10.4), (8, 10.8), (16, 11.6))
    assert knee(curve(*rising)).items == 16
    assert not levels_off(curve(*rising))
    assert calibration(*rising).still_gains
    level = tuple((items, 0.01 + items) for items in (1, 2, 4, 8, 16))
    assert levels_off(curve(*level))
    assert not calibration(*level).still_gains


def test_a_line_that_misses_a_pass_tells_nothing() -> None:
    """Passes that no longer fit a cache are slower than any line says: the measured rates count."""
    assert knee(curve((1, 1.0), (2, 1.5), (4, 2.5), (8, 4.5), (16, 8.5), (32, 36.0), (64, 72.0))).items == 8


def test_nothing_measured_has_no_knee() -> None:
    """An empty curve is an error, not a guess."""
    with pytest.raises(ValueError, match="nothing was measured"):
        knee([])


@patient
@given(CURVES)
def test_a_knee_is_one_of_the_passes(points: list[Point]) -> None:
    """Whatever was measured, the choice was measured too."""
    assert knee(points) in points


@patient
@given(CURVES.map(lambda points: points[:3]))
def test_no_pass_with_a_like_neighbour_is_much_faster_than_the_knee(points: list[Point]) -> None:
    """Three passes show no line: each counts as measured, to within what measuring can tell."""
    confirmed = max((min(one.rate, other.rate) for one, other in pairwise(points)), default=0)
    assert knee(points).rate >= confirmed * 0.97 / 1.03


@patient
@given(st.floats(0, 100), st.lists(st.floats(0.97, 1.03), min_size=7, max_size=7))
def test_noise_along_a_line_costs_little(fixed: float, noise: list[float]) -> None:
    """Passes measured 3 % too fast or too slow choose one that is nearly as fast as any, whatever a pass costs."""
    truth = curve(*((2**power, fixed + 2**power) for power in range(7)))
    seen = [
        Point(items=each.items, cost=each.cost, seconds=each.seconds * by)
        for each, by in zip(truth, noise, strict=True)
    ]
    chosen = truth[seen.index(knee(seen))]
    assert chosen.rate >= 0.92 * truth[-1].rate


def test_seconds_between_and_beyond_what_was_measured() -> None:
    """Between two passes in proportion, below the first as long as it, beyond the last at the last slope."""
    points = curve((1, 1.0), (2, 1.5), (4, 3.5))
    assert [seconds_at(points, cost) for cost in (1, 32, 48, 64, 96, 128, 192)] == pytest.approx(
        [1.0, 1.0, 1.25, 1.5, 2.5, 3.5, 5.5]
    )
    assert seconds_at(curve((2, 3.0)), 128) == pytest.approx(6.0)


@patient
@given(CURVES, st.floats(1, 1_000), st.floats(1, 1_000))
def test_time_passes(points: list[Point], one: float, other: float) -> None:
    """A predicted time is above nothing, whatever was measured."""
    assert min(seconds_at(points, one), seconds_at(points, other)) > 0


def test_a_model_follows_what_it_sees() -> None:
    """Passes twice as slow as measured double the prediction after a while; one odd pass hardly moves it."""
    model = CostModel(curve((1, 1.0), (2, 2.0)))
    assert model.seconds(64) == pytest.approx(2.0)
    model.observe(2, 64, 4.0)
    assert 2.0 < model.seconds(64) < 2.5
    for _ in range(50):
        model.observe(2, 64, 4.0)
    assert model.seconds(64) == pytest.approx(4.0, rel=0.01)


def test_a_model_without_a_curve_learns_from_its_first_pass() -> None:
    """Nothing is predicted before the first pass; then what it took."""
    model = CostModel()
    assert model.seconds(10) == 0.0
    model.observe(2, 10, 3.0)
    assert model.seconds(10) == pytest.approx(3.0)
    assert model.seconds(20) == pytest.approx(6.0)


LIMITS = BatchLimits(max_items=64, max_cost=1024, max_amplification=1.5)


def test_a_batch_is_bounded_by_what_was_measured() -> None:
    """The budget is the knee's cost; where one item at a time is best, a batch is one item."""
    found = sized(LIMITS, calibration((1, 1.0), (2, 1.1), (4, 1.2), (8, 2.4), (16, 4.8)), None)
    assert (found.max_items, found.max_cost) == (64, 128)
    assert sized(LIMITS, calibration((1, 1.0), (2, 2.0), (4, 4.0)), None).max_items == 1


def test_a_budget_of_packed_rows_is_one_that_passes_are_rounded_to() -> None:
    """Else full passes would all be filled up to the next size; padded ones would lose an item."""
    sizes = ((1, 30, 1.0), (43, 1_352, 9.0), (86, 2_704, 18.0))
    measured = tuple(Point(items=items, cost=cost, seconds=seconds) for items, cost, seconds in sizes)
    passes = Calibration(sharing="packed", curves={"packed": measured})
    assert passes.best.cost == 1_352
    packed = BatchLimits(max_items=64, max_cost=100, max_amplification=1.5, packed=True)
    assert sized(packed, passes, None).max_cost == 1_280
    last = Point(items=43, cost=1_352, seconds=9.0)
    rising = Calibration(sharing="packed", curves={"packed": (measured[0], last)})
    assert rising.still_gains
    assert sized(packed, rising, None).max_cost == 1_280
    assert sized(replace(packed, max_cost=2_000), rising, None).max_cost == 2_000
    assert sized(replace(packed, packed=False), passes, None).max_cost == 1_352


def test_a_curve_that_still_rises_leaves_the_budget_that_stands() -> None:
    """Where the largest pass tried was the fastest, larger ones may be faster still."""
    assert sized(LIMITS, calibration((1, 1.0), (2, 1.1), (4, 1.2), (8, 1.3)), None).max_cost == 1024


@pytest.mark.parametrize(
    ("measured", "kept", "expected"), [(None, None, 64), (8, None, 8), (None, 3, 3), (8, 3, 3), (2, 3, 2)]
)
def test_memory_bounds_the_items(measured: int | None, kept: int | None, expected: int) -> None:
    """The fewest items that ever ran out of memory's way are the most from then on."""
    passes = calibration((1, 1.0), (2, 1.1), (4, 1.2), (8, 1.3), ceiling=measured)
    assert sized(LIMITS, passes, kept).max_items == expected
    if measured is None:
        assert sized(LIMITS, None, kept).max_items == expected


def test_a_calibration_survives_json() -> None:
    """What is read is what was written."""
    before = calibration((1, 1.0), (2, 1.5), ceiling=7)
    after = Calibration.from_json(before.to_json())
    assert after.to_json() == before.to_json()
    assert after.best == before.best


@patient
@given(CURVES, st.floats(1e-4, 100))
def test_the_largest_pass_within_a_time_takes_that_time(measured: list[Point], seconds: float) -> None:
    """It is no smaller than the smallest measured; any will do where large ones take no longer."""
    cost = cost_within(measured, seconds)
    assert cost >= measured[0].cost
    if cost == measured[0].cost:
        assert seconds_at(measured, cost) >= seconds * (1 - 1e-6)
    elif cost < float("inf"):
        assert seconds_at(measured, cost) == pytest.approx(seconds)


def test_a_slower_machine_takes_less_in_the_same_time() -> None:
    """What passes take now counts, not what they took when they were measured; before the first one anything goes."""
    model = CostModel(curve((1, 1.0), (2, 2.0), (4, 4.0)))
    assert model.cost_within(3.0) == pytest.approx(96)
    for _ in range(100):
        model.observe(2, 64, 4.0)
    assert model.cost_within(4.0) == pytest.approx(64, rel=0.01)
    assert CostModel().cost_within(1.0) == float("inf")
