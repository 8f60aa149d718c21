"""The files of ``pipemill map``: a line in, a line out, and where a run that was broken off goes on."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any, Final

import click
import orjson

from pipemill.cli.output import to_json
from pipemill.errors import MalformedJob, PipemillError

#: The keys that an object with ``inputs`` may have.
_KEYS: Final = frozenset({"id", "inputs", "parameters"})
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the input."""

    #: Its place among the inputs, counted from 0.
    index: int
    #: The line's own id as given, None if it has none; it is handed back, and means nothing to us.
    id: Any = None
    inputs: Any = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    #: What is wrong with the line, if it can't be a job.
    error: MalformedJob | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What an output already holds."""

    #: Complete lines.
    lines: int = 0
    #: Those that are errors.
    failed: int = 0
    #: Bytes of the complete lines.
    size: int = 0


def read_lines(file: IO[bytes], parameters: Mapping[str, Any], *, text: bool, skip: int = 0) -> Iterator[Line]:
    """Read inputs, from the one after the first ``skip``; a line's own parameters go before the given ones.

    A blank line is an input as text, and nothing as JSON.

    Raises
    ------
    BadParameter
        When there are fewer than ``skip`` inputs.

    """
    inputs = raw_lines(file, text=text)
    skipped = sum(1 for _ in islice(inputs, skip))
    if skipped < skip:
        problem = f"it has {skip} lines and INPUT only {skipped}, so it is of another input; name another file"
        raise click.BadParameter(problem, param_hint="OUTPUT")
    read = _text_line if text else _json_line
    return (read(index, raw, parameters) for index, raw in enumerate(inputs, skip))


def raw_lines(file: IO[bytes], *, text: bool) -> Iterator[bytes]:
    """The lines that are inputs, without their ends."""
    for number, raw in enumerate(file):
        line = raw.removesuffix(b"\n").removesuffix(b"\r")
        if number == 0:
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if text or line.strip():
            yield line


def _text_line(index: int, raw: bytes, parameters: Mapping[str, Any]) -> Line:
    try:
        return Line(index=index, inputs=raw.decode(), parameters=parameters)
    except UnicodeDecodeError as error:
        text = f"the line isn't UTF-8 text (byte {error.start}): convert the file"
        return Line(index=index, error=MalformedJob(text))


def _json_line(index: int, raw: bytes, parameters: Mapping[str, Any]) -> Line:
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        text = f"the line isn't JSON ({error}): write one value a line, or use --text"
        return Line(index=index, error=MalformedJob(text))
    if not isinstance(value, dict) or "inputs" not in value:
        return Line(index=index, inputs=value, parameters=parameters)
    own = value.get("parameters") or {}
    if mistake := _find_mistake(value, own):
        return Line(index=index, id=value.get("id"), error=mistake)
    return Line(index=index, id=value.get("id"), inputs=value["inputs"], parameters={**parameters, **own})


def _find_mistake(value: Mapping[str, Any], own: Any) -> MalformedJob | None:
    unknown = sorted(value.keys() - _KEYS)
    if unknown:
        return MalformedJob(f"a line with inputs takes id, inputs and parameters, not {unknown[0][:80]!r}: remove it")
    if not isinstance(own, dict):
        return MalformedJob("a line's parameters must be an object of names and values")
    return None


def write_line(line: Line, answer: Any) -> bytes:
    """Write what became of an input: its answer, or the error that took its place."""
    written: dict[str, Any] = {"index": line.index}
    if line.id is not None:
        written["id"] = line.id
    if isinstance(answer, PipemillError):
        written["error"] = {"type": type(answer).__name__, "message": str(answer)}
    else:
        written["result"] = answer
    return to_json(written).encode() + b"\n"


@contextmanager
def open_output(path: Path) -> Iterator[tuple[IO[bytes], Done]]:
    """Open an output to go on where it ends; a last line without its end is cut off.

    Raises
    ------
    BadParameter
        When it can't be written, isn't of ours, or is being written by another process.

    """
    if path.exists() and not path.is_file():
        raise click.BadParameter("it isn't a file; - writes to stdout", param_hint="OUTPUT")
    try:
        file = path.open("a+b")
    except OSError as error:
        raise click.BadParameter(f"can't be written ({error.strerror})", param_hint="OUTPUT") from error
    with file:
        _lock(file)
        file.seek(0)
        done = scan(file)
        file.truncate(done.size)
        yield file, done


def _lock(file: IO[bytes]) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        text = "another `pipemill map` is writing to it; let it end, or name another file"
        raise click.BadParameter(text, param_hint="OUTPUT") from error


def scan(file: IO[bytes]) -> Done:
    """Read what an output holds.

    Raises
    ------
    BadParameter
        When a line isn't the one that belongs there.

    """
    lines = failed = size = 0
    for raw in file:
        if not raw.endswith(b"\n"):
            break
        found = _index_and_failure(raw)
        if found is None or found[0] != lines:
            text = f"its line {lines + 1} isn't answer {lines} of a `pipemill map`; name another file"
            raise click.BadParameter(text, param_hint="OUTPUT")
        lines, failed, size = lines + 1, failed + found[1], size + len(raw)
    return Done(lines=lines, failed=failed, size=size)


def _index_and_failure(raw: bytes) -> tuple[Any, bool] | None:
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    return (value.get("index"), "error" in value) if isinstance(value, dict) else None
