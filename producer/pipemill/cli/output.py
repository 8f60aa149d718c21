"""What people and programs see: tables or JSON on stdout, one line for an error on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TextIO

import click
import orjson

from pipemill.errors import JobError, PipemillError, QueueFull

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from pipemill.cli.common import Invocation

#: Columns of a table that no terminal shows: enough that no cell is broken.
UNBOUNDED_WIDTH: Final = 100_000


def to_json(value: Any) -> str:
    """Write one line of JSON. NaN and infinities, which JSON doesn't have, become null."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        return json.dumps(value)  # half a surrogate pair, or a whole number beyond 64 bits


def printable(text: str) -> str:
    """Make control characters visible: what a model wrote must not steer the terminal."""
    return "".join(each if each.isprintable() or each in "\n\t" else ascii(each)[1:-1] for each in text)


def console(file: TextIO | None = None) -> Console:
    """Open a console, on stdout unless a file is given; colours and width are the terminal's, if it is one."""
    from rich.console import Console  # noqa: PLC0415  # `--help` needs it not

    file = file or sys.stdout
    width = None if file.isatty() else UNBOUNDED_WIDTH
    return Console(file=file, width=width, markup=False, highlight=False, emoji=False, soft_wrap=False)


def report(error: Exception | str, invocation: Invocation) -> None:
    """Print an error on stderr, as a line or as JSON."""
    kind, text = _describe(error)
    if invocation.json:
        more = {"retry_after": error.retry_after} if isinstance(error, QueueFull) else {}
        click.echo(to_json({"error": {"type": kind, "message": text, **more}}), err=True)
    else:
        text = f"{kind}: {text}" if isinstance(error, JobError) else text
        click.echo(f"{click.style('Error:', fg='red')} {printable(text)}", err=True)


def _describe(error: Exception | str) -> tuple[str, str]:
    if isinstance(error, str):
        return "Interrupted", error
    kind = type(error).__name__
    if isinstance(error, PipemillError):
        return kind, str(error)
    return kind, f"unexpected {kind}: {str(error)[:500]} (`pipemill --traceback ...` shows where)"


def show(answer: Any) -> None:
    """Print an answer for people: text as it is, records as a table, anything else as indented JSON."""
    rows = _records(answer)
    if isinstance(answer, str):
        click.echo(printable(answer) if sys.stdout.isatty() else answer.encode(errors="backslashreplace"))
    elif rows is not None:
        show_table(list(rows[0]), [list(row.values()) for row in rows])
    elif isinstance(answer, dict) and answer and all(map(_is_plain, answer.values())):
        show_facts(answer)
    else:
        click.echo(json.dumps(answer, indent=2, ensure_ascii=False).encode(errors="backslashreplace"))


def _records(answer: Any) -> Sequence[Mapping[str, Any]] | None:
    """The answer as the rows of a table, if it is a list of like records of plain values."""
    if not isinstance(answer, list) or not answer or not all(isinstance(each, dict) for each in answer):
        return None
    like = all(each.keys() == answer[0].keys() for each in answer) and answer[0]
    return answer if like and all(_is_plain(value) for each in answer for value in each.values()) else None


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool | None)


def show_facts(facts: Mapping[str, Any]) -> None:
    """Print named values, one a line."""
    show_table(["", ""], list(facts.items()))


def show_table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table, without blanks at the ends of its lines."""
    screen = console()
    with screen.capture() as captured:
        screen.print(table(head, rows))
    for line in captured.get().splitlines():
        click.echo(line.rstrip())


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> RenderableType:
    """Build a table; numbers stand to the right."""
    from rich.table import Table  # noqa: PLC0415  # `--help` needs it not
    from rich.text import Text  # noqa: PLC0415  # as above

    built = Table(box=None, show_header=any(head), pad_edge=False)
    for position, name in enumerate(head):
        numeric = all(isinstance(row[position], int | float | None) for row in rows)
        built.add_column(Text(name), justify="right" if numeric else "left", no_wrap=numeric, overflow="fold")
    for row in rows:
        built.add_row(*(Text(_cell(value)) for value in row))
    return built


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, bool | None):
        return "" if value is None else str(value).lower()
    return printable(str(value))
