"""When a forward pass counts as stuck."""

from __future__ import annotations

import pytest

from pipemill_worker.policy.stuck import Patience, stuck_after


@pytest.mark.parametrize(("least", "predicted", "expected"), [(300.0, 0.0, 300.0), (300.0, 60.0, 1_200.0), (5, 0.2, 5)])
def test_a_pass_has_the_catalogues_time_and_more_if_it_is_long(least: float, predicted: float, expected: float) -> None:
    """At least what the catalogue says; twenty times what was predicted if that is more."""
    assert stuck_after(least, predicted) == expected


def test_time_counts_from_the_last_sign_of_life() -> None:
    """A new sign, or none at all, begins anew."""
    patience = Patience(1.0)
    seen = [patience.look(sign, now) for sign, now in (("a", 10.0), ("a", 11.0), ("a", 12.5), ("b", 13.0), ("b", 14.0))]
    assert seen == [0.0, 1.0, 2.5, 0.0, 1.0]
    assert patience.look(None, 15.0) == 0.0


def test_a_process_that_slept_counts_what_it_was_awake() -> None:
    """Paused for an hour in the middle of a pass, it hasn't watched it for an hour."""
    patience = Patience(1.0)
    assert [patience.look("a", now) for now in (0.0, 1.0, 3_600.0)] == [0.0, 1.0, 3.0]
