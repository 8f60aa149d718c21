"""Reading the file as YAML: what YAML would let pass in silence, and what it can't read."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipemill.catalogue.document import parse_document, read_document

#: Text, line, column and reason of what isn't YAML.
NOT_YAML = [
    ("queues: [a", 1, 11, "expected ',' or ']'"),
    ("a: 1\nb: c: d\n", 2, 5, "mapping values are not allowed here"),
    ("a:\n\t- 1\n", 2, 1, "cannot start any token"),
    ("a: 'x", 1, 6, "unexpected end of stream"),
    ("a: *nobody", 1, 4, "undefined alias"),
    ("a: !!python/object/apply:os.getcwd []", 1, 4, "could not determine a constructor"),
    ("a: 1\n---\nb: 2\n", 2, 1, "but found another document"),
    ("? [a, b]\n: 1\n", 1, 3, "found unhashable key"),
]


@pytest.mark.parametrize(("text", "line", "column", "reason"), NOT_YAML)
def test_not_yaml_is_told_with_its_place(text: str, line: int, column: int, reason: str) -> None:
    """What can't be parsed is a mistake with line, column and reason."""
    document = parse_document(text)
    (mistake,) = document.mistakes
    assert not document.readable
    assert mistake.line == line
    assert mistake.problem.startswith(f"not YAML at line {line}, column {column} (")
    assert reason in mistake.problem
    assert mistake.mend


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "the file is empty"),
        ("# only a comment\n", "the file is empty"),
        ("null", "the file is empty"),
        ("- a\n", "the file holds a list, not a mapping"),
        ("hello", 'the file holds "hello", not a mapping'),
        ("a: \x00", "not YAML"),
        ("[" * 5_000, "nested too deeply"),
        ("a: " + "1" * 5_000, "a number in it has too many digits"),
    ],
)
def test_file_of_no_use_is_told(text: str, problem: str) -> None:
    """A file that holds nothing of use is one mistake with a mend."""
    (mistake,) = parse_document(text).mistakes
    assert mistake.problem.startswith(problem)
    assert mistake.mend


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("absent.yaml", "can't be read (No such file or directory)"),
        (".", "can't be read (Is a directory)"),
        ("latin.yaml", "not UTF-8 text (byte 3)"),
    ],
)
def test_file_that_cannot_be_read_is_told(tmp_path: Path, name: str, problem: str) -> None:
    """A file that isn't there, is none or isn't text is one mistake with a mend."""
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9")
    (mistake,) = read_document(tmp_path / name).mistakes
    assert mistake.problem == problem
    assert mistake.mend


def test_every_duplicate_key_is_told_at_its_path() -> None:
    """Keys that stand twice are told wherever they are, at the later line."""
    document = parse_document("a: 1\nb:\n  - c: 1\n    c: 2\na: 2\n")
    assert {(each.path, each.line) for each in document.mistakes} == {("b[0].c", 4), ("a", 5)}


@pytest.mark.parametrize("key", ["yes", "on", "1", "1.5", "null", "~"])
def test_key_that_is_no_text_is_told_and_read_on(key: str) -> None:
    """A key that YAML reads as a number, a truth or nothing is a mistake, and what stands under it is still read."""
    document = parse_document(f"{key}: {{a: 1}}")
    assert [each.mend for each in document.mistakes] == ["put it in quotes"]
    assert document.data == {key: {"a": 1}}


def test_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    """A file that an editor began with a byte order mark is read like any other."""
    (tmp_path / "pipemill.yaml").write_bytes(b"\xef\xbb\xbfa: 1")
    assert read_document(tmp_path / "pipemill.yaml").data == {"a": 1}


def test_dates_are_text() -> None:
    """What looks like a date stays what it looks like."""
    assert parse_document("a: 2024-02-30").data == {"a": "2024-02-30"}


def test_merged_mappings_are_no_duplicates() -> None:
    """YAML's own way to share settings works, an own key wins, and each key's line is that of where it stands."""
    document = parse_document("a: &base\n  x: 1\n  y: 2\nb:\n  <<: *base\n  x: 3\n")
    assert document.mistakes == []
    assert document.data["b"] == {"x": 3, "y": 2}
    assert [document.line_of(["b", key]) for key in ("x", "y")] == [6, 3]


def test_circles_end() -> None:
    """A mapping that holds itself is read, not followed for ever."""
    document = parse_document("a: &a\n  b: *a\n  c: [*a]\n")
    assert document.readable
    assert document.mistakes == []


@pytest.mark.parametrize(
    ("keys", "line"),
    [(["a"], 1), (["a", "b"], 2), (["a", "b", 1], 4), (["a", "b", 9], 2), (["a", "x", "y"], 1), (["x"], None)],
)
def test_line_of_a_path(keys: list[str | int], line: int | None) -> None:
    """A path's line is its key's, or that of the nearest key above what isn't there."""
    assert parse_document("a:\n  b:\n    - 1\n    - 2\n").line_of(keys) == line
