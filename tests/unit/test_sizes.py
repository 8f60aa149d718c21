"""Sizes that passes are rounded to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipemill_worker.policy.sizes import rounded_down, rounded_up


@pytest.mark.parametrize(
    ("size", "down", "up"),
    [(0, 0, 0), (1, 1, 1), (17, 17, 17), (32, 32, 32), (33, 32, 36), (668, 640, 704), (1_024, 1_024, 1_024)],
)
def test_sizes_are_rounded_to_eight_for_each_doubling(size: int, down: int, up: int) -> None:
    """Those up to 32 stay."""
    assert (rounded_down(size), rounded_up(size)) == (down, up)


@given(st.integers(1, 1 << 40))
def test_little_is_added_or_lost(size: int) -> None:
    """At most an eighth; what was rounded stays as it is."""
    assert size <= rounded_up(size) <= size * 9 / 8
    assert size * 7 / 8 <= rounded_down(size) <= size
    assert rounded_up(rounded_up(size)) == rounded_up(size)
    assert rounded_down(rounded_down(size)) == rounded_down(size)


def test_there_are_few() -> None:
    """Of all passes of up to 2,048 tokens."""
    assert len({rounded_up(size) for size in range(1, 2_049)}) == 80
