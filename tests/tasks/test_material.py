"""The matrix's own material: its comparison can fail, its parameters are such as a job may give."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipemill.parameters import validate_parameters
from tests.tasks.compare import assert_same
from tests.tasks.matrix import ROWS
from tests.tasks.media import drawn

GREY = Image.new("L", (2, 2), 7)


def grey(*pixels: int) -> Image.Image:
    """A grey image of 2 by 2 pixels."""
    return Image.frombytes("L", (2, 2), bytes(pixels))


@pytest.mark.parametrize(
    ("answer", "direct"),
    [
        ([1, "a", None, True], (1, "a", None, True)),
        ({"score": 0.5}, {"score": np.float32(0.50001)}),
        ([1, 2], [np.int64(1), np.int64(2)]),
        (math.nan, np.float32("nan")),
        (math.inf, math.inf),
        (np.array([0.5, math.nan], "float32"), torch.tensor([0.50001, math.nan])),
        (np.array([True, False]), np.array([True, False])),
        (drawn(1), drawn(1)),
        ([{"a": (GREY, 1.0)}], [{"a": [GREY, 1.0]}]),
    ],
)
def test_equal_answers_pass(answer: Any, direct: Any) -> None:
    """A list may stand for a tuple, a number for a NumPy number, an array for a tensor; floats may be a little off."""
    assert_same(answer, direct)


@pytest.mark.parametrize(
    ("answer", "direct", "place"),
    [
        ([1, 2], [1, 3], "answer[1]: 2, not 3"),
        ([1, 2], [1], "answer: 2 elements, not 1"),
        ({"a": {"b": "x"}}, {"a": {"b": "y"}}, "answer.a.b: 'x', not 'y'"),
        ({"a": 1}, {"b": 1}, "answer: keys ['a'], not ['b']"),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, "answer: keys"),
        (0.5, 0.5002, "answer: 0.5, not 0.5002"),
        (math.nan, 0.5, "answer: nan"),
        (0.5, math.inf, "not inf"),
        (1, 1.0, "answer: int 1, not float 1.0"),
        (1, True, "answer: int 1, not bool True"),
        (None, "x", "answer: NoneType None"),
        ("text", ["text"], "answer: str in place of list"),
        ([1], {"a": 1}, "answer: list in place of dict"),
        ([0.5], np.array([0.5]), "answer: list in place of an array"),
        (np.zeros(2, "float32"), np.zeros(2), "an array ('float32', (2,))"),
        (np.zeros((2, 1)), np.zeros(2), "an array"),
        (np.array([1, 2]), np.array([1, 3]), "answer[1]: 2, not 3; 1 of 2 differ"),
        (np.array([0.5, 0.6]), torch.tensor([0.5, 0.7], dtype=torch.float64), "answer[1]: 0.6"),
        (grey(1, 2, 3, 4), grey(1, 2, 3, 5), "answer[1, 1]: 4, not 5"),
        (drawn(1), drawn(2), "differ"),
        (drawn(1), drawn(1, mode="L"), "an image ('RGB'"),
        ("picture", drawn(1), "answer: str in place of an image"),
        ([{"a": [0, {"b": 1.0}]}], [{"a": [0, {"b": 2.0}]}], "answer[0].a[1].b: 1.0, not 2.0"),
    ],
)
def test_other_answers_fail(answer: Any, direct: Any, place: str) -> None:
    """Whatever differs fails the comparison, which says where and how."""
    with pytest.raises(AssertionError) as failure:
        assert_same(answer, direct)
    assert place in str(failure.value)


def test_grey_levels_are_allowed_one_by_one() -> None:
    """An image may be off by as many grey levels as its row allows, and no more."""
    assert_same(grey(1, 2, 3, 4), grey(2, 2, 3, 3), grey_levels=1)
    with pytest.raises(AssertionError, match="not 3"):
        assert_same(grey(1, 2, 3, 4), grey(3, 2, 3, 4), grey_levels=1)


def test_only_depths_may_be_a_grey_off() -> None:
    """No other row's images may differ by a bit."""
    assert {row.task for row in ROWS.values() if row.grey_levels} == {"depth-estimation"}


@pytest.mark.parametrize("key", ROWS)
def test_parameters_are_allowed(key: str, tmp_path: Path) -> None:
    """What a row's jobs ask for, the catalogue's rules let through."""
    row = ROWS[key]
    if reason := row.missing():
        pytest.skip(reason)
    for job in row.jobs(tmp_path):
        assert validate_parameters(row.task, job.parameters) == job.parameters
