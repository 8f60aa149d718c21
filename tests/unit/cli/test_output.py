"""What people and programs see."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipemill.cli import output


def test_json_has_no_nan() -> None:
    """What JSON doesn't have becomes null."""
    assert json.loads(output.to_json([float("nan"), float("inf")])) == [None, None]


@pytest.mark.parametrize("value", ["\ud800", 2**70])
def test_json_takes_whatever_an_answer_may_hold(value: Any) -> None:
    """Half a surrogate pair and huge numbers are written, and read back the same."""
    assert json.loads(output.to_json({"a": value})) == {"a": value}


def test_control_characters_are_made_visible() -> None:
    """What a model wrote can't steer a terminal; line ends and tabs stay."""
    assert output.printable("a\x1b[2Jb\n\tç\u202e\x07") == "a\\x1b[2Jb\n\tç\\u202e\\x07"


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        ("plain [bold]text[/bold]", "plain [bold]text[/bold]\n"),
        ("half \ud800", "half \\ud800\n"),
        ({"label": "good", "score": 0.123456789}, "label  good\nscore  0.123457\n"),
        ([{"a": None, "b": True}], "a     b\n   true\n"),
        ([1, 2], "[\n  1,\n  2\n]\n"),
        ({}, "{}\n"),
        ([{}], "[\n  {}\n]\n"),
        ([{"a": 1}, {"b": 2}], '[\n  {\n    "a": 1\n  },\n  {\n    "b": 2\n  }\n]\n'),
        ([{"a": [1]}], '[\n  {\n    "a": [\n      1\n    ]\n  }\n]\n'),
        ({"ç": [float("nan")]}, '{\n  "ç": [\n    NaN\n  ]\n}\n'),
        (None, "null\n"),
    ],
)
def test_answers_are_shown_by_their_form(capsys: pytest.CaptureFixture[str], answer: Any, shown: str) -> None:
    """Text as it is, like records as a table, everything else as indented JSON."""
    output.show(answer)
    assert capsys.readouterr().out == shown


def test_numbers_stand_to_the_right(capsys: pytest.CaptureFixture[str]) -> None:
    """A column of numbers is aligned to the right, gaps or not."""
    output.show_table(["n"], [[1000], [None], [5]])
    assert capsys.readouterr().out == "   n\n1000\n\n   5\n"


def test_no_cell_is_broken_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    """Output that no terminal shows has one line a row, however long."""
    output.show([{"text": "word " * 100}])
    assert len(capsys.readouterr().out.splitlines()) == 2
