"""The files of map: what a line means, and where an output that was broken off goes on."""

from __future__ import annotations

import fcntl
import io
import json
import os
from pathlib import Path
from typing import Any

import click
import pytest

from pipemill.cli.lines import Done, Line, open_output, read_lines, scan, write_line
from pipemill.errors import JobFailed

GIVEN = {"top_k": 1}


def read(content: bytes, *, text: bool = False, skip: int = 0) -> list[Line]:
    """All inputs of a file with this content."""
    return list(read_lines(io.BytesIO(content), GIVEN, text=text, skip=skip))


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (b'"a"', Line(index=0, inputs="a", parameters=GIVEN)),
        (b"null", Line(index=0, inputs=None, parameters=GIVEN)),
        (b'{"question": "q"}', Line(index=0, inputs={"question": "q"}, parameters=GIVEN)),
        (b'{"inputs": "a"}', Line(index=0, inputs="a", parameters=GIVEN)),
        (b'{"inputs": "a", "parameters": null}', Line(index=0, inputs="a", parameters=GIVEN)),
        (b'{"inputs": ["a"], "id": 7}', Line(index=0, id=7, inputs=["a"], parameters=GIVEN)),
        (
            b'{"inputs": "a", "parameters": {"top_k": 2, "x": 3}}',
            Line(index=0, inputs="a", parameters={"top_k": 2, "x": 3}),
        ),
    ],
)
def test_a_line_is_inputs_or_an_object_with_inputs(raw: bytes, line: Line) -> None:
    """Any JSON value is the inputs; an object with `inputs` says more, and its parameters go before the given ones."""
    assert read(raw + b"\n") == [line]


@pytest.mark.parametrize("raw", [b"{", b"\xff", b'{"inputs": 1, "params": {}}', b'{"inputs": 1, "parameters": [1]}'])
def test_a_line_that_cannot_be_a_job_fails_alone(raw: bytes) -> None:
    """A malformed line is an error at its place, and the next is read."""
    bad, good = read(raw + b'\n"a"\n')
    assert (bad.index, good.index, good.inputs) == (0, 1, "a")
    assert bad.error is not None
    assert good.error is None


def test_text_is_taken_as_it_is() -> None:
    """As text a line is an input whatever it holds, a blank one too; ends of lines of either kind are cut."""
    assert [line.inputs for line in read(b'\xef\xbb\xbf"a"\r\n\n{\n', text=True)] == ['"a"', "", "{"]


def test_text_must_be_utf8() -> None:
    """Bytes that aren't text fail alone."""
    bad, good = read(b"\xff\na", text=True)
    assert bad.error is not None
    assert good.inputs == "a"


def test_blank_lines_are_no_json_inputs() -> None:
    """Blank lines between JSON lines count for nothing."""
    assert [(line.index, line.inputs) for line in read(b'\n"a"\n  \n"b"\n\n')] == [(0, "a"), (1, "b")]


def test_reading_goes_on_after_those_skipped() -> None:
    """Skipped inputs are counted, not read."""
    assert [(line.index, line.inputs) for line in read(b'{\n"b"\n"c"', skip=2)] == [(2, "c")]


def test_an_output_longer_than_its_input_is_refused() -> None:
    """More answers than inputs: the files don't belong together."""
    with pytest.raises(click.BadParameter, match="3 lines and INPUT only 2"):
        read(b'"a"\n"b"\n', skip=3)


@pytest.mark.parametrize(
    ("line", "answer", "written"),
    [
        (Line(index=3), {"label": "x"}, {"index": 3, "result": {"label": "x"}}),
        (Line(index=3, id="k"), None, {"index": 3, "id": "k", "result": None}),
        (Line(index=3), JobFailed("no"), {"index": 3, "error": {"type": "JobFailed", "message": "no"}}),
    ],
)
def test_a_line_of_output(line: Line, answer: Any, written: dict[str, Any]) -> None:
    """Each input has its index, its id if it has one, and its result or its error."""
    raw = write_line(line, answer)
    assert raw.endswith(b"\n")
    assert raw.count(b"\n") == 1
    assert json.loads(raw) == written


def output(count: int) -> bytes:
    """An output with so many answers, the second of them an error."""
    return b"".join(write_line(Line(index=n), JobFailed("no\nno") if n == 1 else "yes") for n in range(count))


@pytest.mark.parametrize("torn", [b"", b'{"index": 3, "res', b'{"index": 3, "result": 1}'])
def test_an_output_goes_on_where_it_ends(tmp_path: Path, torn: bytes) -> None:
    """Complete lines stay and are counted; a last line without its end is cut off."""
    path = tmp_path / "out"
    path.write_bytes(output(3) + torn)
    with open_output(path) as (file, done):
        assert done == Done(lines=3, failed=1, size=len(output(3)))
        file.write(b"next\n")
    assert path.read_bytes() == output(3) + b"next\n"


@pytest.mark.parametrize("wrong", [b"{}\n", b"[]\n", b"{\n", b'{"index": 2}\n', b"\n"])
def test_a_file_that_is_no_output_of_ours_stays_as_it_is(tmp_path: Path, wrong: bytes) -> None:
    """A line that isn't the answer that belongs there is told, and nothing is written."""
    path = tmp_path / "out"
    path.write_bytes(output(1) + wrong)
    with pytest.raises(click.BadParameter, match="line 2 isn't answer 1"), open_output(path):
        pass
    assert path.read_bytes() == output(1) + wrong


def test_an_output_has_one_writer(tmp_path: Path) -> None:
    """A second run to the same output is refused while the first lasts."""
    path = tmp_path / "out"
    with open_output(path), pytest.raises(click.BadParameter, match="another"), open_output(path):
        pass
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert scan(file) == Done()


def test_an_output_must_be_a_file() -> None:
    """A device can't be read again, so it is wrong usage."""
    with pytest.raises(click.BadParameter, match="stdout"), open_output(Path(os.devnull)):
        pass


def test_an_output_that_cannot_be_written(tmp_path: Path) -> None:
    """A folder that isn't there is wrong usage."""
    with pytest.raises(click.BadParameter, match="can't be written"), open_output(tmp_path / "gone" / "out"):
        pass
