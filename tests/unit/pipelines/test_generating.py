"""Writing in batches: what may share one, and where each answer ends."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pipemill_worker.pipelines.generating import end_tokens, may_share, trim

END, PAD = 9, 0


@pytest.mark.parametrize(
    ("settings", "shares"),
    [
        ({}, True),
        ({"num_beams": 4, "max_new_tokens": 8}, True),
        ({"do_sample": False, "stop_strings": None}, True),
        ({"do_sample": True}, False),
        ({"stop_strings": ["."]}, False),
        ({"prompt_lookup_num_tokens": 3}, False),
    ],
)
def test_what_may_share(settings: dict[str, Any], shares: bool) -> None:  # noqa: FBT001  # an expected value
    """Searches share; draws, and what stops at a text of its own, don't."""
    assert may_share(settings) is shares


@pytest.mark.parametrize(
    ("rows", "start", "expected"),
    [
        ([[1, 2, 3, END, PAD, PAD]], 2, [[1, 2, 3, END]]),
        ([[END, 2, 3, END, END, END]], 1, [[END, 2, 3, END]]),
        ([[1, 2, 3, 4, 5, 6]], 2, [[1, 2, 3, 4, 5, 6]]),
        ([[1, END, PAD, PAD], [1, 2, END, PAD]], 0, [[1, END, PAD], [1, 2, END]]),
        ([[1, END, PAD, PAD], [1, 2, 3, 4]], 0, [[1, END, PAD, PAD], [1, 2, 3, 4]]),
        ([[1, 2]], 2, [[1, 2]]),
    ],
)
def test_answers_end_where_they_would_alone(rows: list[list[int]], start: int, expected: list[list[int]]) -> None:
    """What filled a row up goes; several answers to one prompt keep the length of their longest."""
    assert trim(torch.tensor([rows]), start, frozenset({END})).tolist() == [expected]


def test_without_an_end_nothing_is_cut() -> None:
    """A model that knows no end writes all it may."""
    assert trim(torch.tensor([[1, 2, 3]]), 0, frozenset()).tolist() == [[1, 2, 3]]


@pytest.mark.parametrize(("given", "ends"), [(None, set()), (2, {2}), ([2, 3], {2, 3})])
def test_end_tokens(given: Any, ends: set[int]) -> None:
    """One end, several, or none."""
    assert end_tokens({"eos_token_id": given}) == ends
