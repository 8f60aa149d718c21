"""Whether a free device waits, and how much a worker holds."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipemill_worker.policy.lookahead import jobs_ahead
from pipemill_worker.policy.waiting import PATIENCE, Arrivals, wait_seconds

#: A loaded machine is no failure: examples may take their time.
patient = settings(deadline=None)


def flat(_: float) -> float:
    """A device that takes a second for a pass of any size: a GPU with few items."""
    return 1.0


def steep(cost: float) -> float:
    """A device that takes a second for each unit of cost: a CPU."""
    return cost


def test_a_device_that_gains_nothing_never_waits() -> None:
    """Where two items take twice as long as one, each runs as it comes."""
    assert wait_seconds(1, 1, 1, 0.01, steep) == 0.0


def test_a_device_that_gains_waits_for_an_item_that_is_near() -> None:
    """Where two take as long as one, the next is worth a short wait, and not a long one."""
    assert wait_seconds(1, 1, 1, 0.1, flat) == pytest.approx(0.1 * PATIENCE)
    assert wait_seconds(1, 1, 1, 0.6, flat) == 0.0


def test_many_dont_wait_for_one() -> None:
    """What each of many would lose by waiting outweighs what the newcomer gains."""
    assert wait_seconds(2, 2, 1, 0.1, flat) > 0
    assert wait_seconds(50, 50, 1, 0.1, flat) == 0.0


def test_nobody_waits_for_what_isnt_expected() -> None:
    """Without an item, or without another in sight, there is no wait."""
    assert wait_seconds(0, 0, 1, 0.01, flat) == 0.0
    assert wait_seconds(1, 1, 1, None, flat) == 0.0


@patient
@given(st.integers(1, 64), st.floats(1e-4, 10), st.floats(0, 1), st.floats(0, 1))
def test_a_wait_is_shorter_than_the_pass_it_saves(present: int, gap: float, fixed: float, each: float) -> None:
    """However the device's time grows with size, the expected gap waited for is shorter than the pass begun at once."""
    waited = wait_seconds(present, present, 1, gap, lambda cost: fixed + each * cost)
    assert waited in {0.0, gap * PATIENCE}
    assert not waited or gap < fixed + each * present


def test_arrivals_tell_the_gap() -> None:
    """Steady arrivals are expected at their distance; a single one tells nothing; a pause ends the expectation."""
    arrivals = Arrivals()
    assert arrivals.expected(0.0) is None
    arrivals.note(0.0, 1)
    assert arrivals.expected(0.1) is None
    for number in range(1, 40):
        arrivals.note(number * 0.5, 1)
    assert arrivals.expected(19.6) == pytest.approx(0.5)
    assert arrivals.expected(25.0) is None


def test_arrivals_at_once_share_the_gap() -> None:
    """Ten jobs a second are a tenth of a second apart, even if they come together."""
    arrivals = Arrivals()
    for second in range(60):
        arrivals.note(float(second), 10)
    assert arrivals.expected(59.1) == pytest.approx(0.1)


def test_a_worker_holds_a_few_batches() -> None:
    """Two and a half batches where any items fit, more where like lengths must be found, and never too many."""
    assert jobs_ahead(16, 20.0, 256, any_fit=True) == 40
    assert jobs_ahead(16, 1_000.0, 256, any_fit=True) == 256
    assert jobs_ahead(16, 60.0, 256, any_fit=False) == 120
    assert jobs_ahead(16, 1.0, 256, any_fit=False) == 40
    assert jobs_ahead(16, 60.0, 32, any_fit=True) == 32


@patient
@given(st.floats(1, 500), st.floats(0, 1e5), st.integers(2, 4_000), st.booleans())
def test_what_is_held_is_bounded(batch: float, rate: float, most: int, any_fit: bool) -> None:  # noqa: FBT001  # drawn by Hypothesis
    """At least two jobs, so that one is prepared while the other runs; at most what is allowed."""
    assert 2 <= jobs_ahead(batch, rate, most, any_fit=any_fit) <= most
