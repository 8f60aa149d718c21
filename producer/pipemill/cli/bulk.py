"""The command that runs a file of inputs through a queue."""

from __future__ import annotations

import signal
import sys
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from pipemill.cli.common import (
    Invocation,
    broker_options,
    json_option,
    parameters_option,
    pass_invocation,
    tenant_option,
)
from pipemill.cli.exits import Exit
from pipemill.cli.lines import Done, Line, open_output, raw_lines, read_lines, write_line
from pipemill.cli.output import console, to_json
from pipemill.client import Client
from pipemill.errors import PipemillError

#: The name that stands for stdin or stdout.
STANDARD: Final = "-"


@dataclass(slots=True, kw_only=True)
class Tally:
    """How far a run has come."""

    #: Answers that were there before.
    resumed_at: int
    #: Answers written, with those that were there before.
    lines: int
    #: Those that are errors.
    failed: int
    #: The output to run again with, None when the run can't be resumed.
    resumable: Path | None

    def __str__(self) -> str:
        """One sentence for people."""
        before = f" ({self.resumed_at} of them before)" if self.resumed_at else ""
        return f"{self.lines} done{before}, {self.failed} failed"


@click.command("map")
@click.argument("queue")
@click.argument("source", metavar="INPUT", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.argument("target", metavar="OUTPUT", type=click.Path(dir_okay=False, writable=True, allow_dash=True))
@click.option("--text", is_flag=True, help="Take each line as it is, as text.")
@parameters_option
@click.option("--priority", type=click.IntRange(0, 9), default=0, show_default=True, help="0 is the most urgent.")
@tenant_option
@click.option(
    "--window", type=click.IntRange(1), default=512, show_default=True, help="Most jobs on their way at once."
)
@broker_options
@json_option
@pass_invocation
def map_lines(  # noqa: PLR0913  # each is an option of the command
    invocation: Invocation,
    /,
    queue: str,
    source: str,
    target: str,
    *,
    text: bool,
    parameters: Mapping[str, Any],
    **options: Any,
) -> None:
    """Run a file of inputs through a queue.

    INPUT has one JSON value a line: the inputs of a job, or an object {"inputs": ..., "parameters": {...}, "id": ...}.
    OUTPUT gets one line for each, in order: {"index": n, "result": ...} or {"index": n, "error": {...}}, with the
    line's id if it has one. When OUTPUT has lines already, the run goes on after them. A dash stands for stdin or
    stdout.
    """
    _check_files(source, target)
    with ExitStack() as stack:
        output, done = stack.enter_context(_open_target(source, target))
        tally = Tally(
            resumed_at=done.lines,
            lines=done.lines,
            failed=done.failed,
            resumable=None if STANDARD in {source, target} else Path(target),
        )
        stack.enter_context(_told(tally, invocation))
        lines = read_lines(stack.enter_context(click.open_file(source, "rb")), parameters, text=text, skip=done.lines)
        client = stack.enter_context(invocation.connect(invocation))
        progress = stack.enter_context(_bar(invocation, target))
        bar = progress.add_task(
            queue, total=_count(source, text=text, shown=not progress.disable), completed=done.lines
        )
        for line, answer in stack.enter_context(closing(answers(client, queue, lines, options))):
            output.write(write_line(line, answer))
            output.flush()
            tally.lines += 1
            tally.failed += isinstance(answer, PipemillError)
            progress.update(
                bar, advance=1, description=queue if not tally.failed else f"{queue}, {tally.failed} failed"
            )
    _sum_up(invocation, tally)


def answers(
    client: Client, queue: str, lines: Iterator[Line], options: Mapping[str, Any]
) -> Generator[tuple[Line, Any], None, None]:
    """Give each line with its answer or error, in order; lines that can't be jobs keep their place."""
    drawn: deque[Line] = deque()
    parameters: dict[str, Any] = {}

    def feed() -> Iterator[Any]:
        for line in lines:
            drawn.append(line)
            if line.error is None:
                # map reads the parameters when it draws an input: the dict holds those of this line then.
                parameters.clear()
                parameters.update(line.parameters)
                yield line.inputs

    with closing(client.map(queue, feed(), parameters, return_errors=True, **options)) as found:
        for answer in found:
            yield from _malformed(drawn)
            yield drawn.popleft(), answer
    yield from _malformed(drawn)


def _malformed(drawn: deque[Line]) -> Iterator[tuple[Line, Any]]:
    while drawn and drawn[0].error is not None:
        line = drawn.popleft()
        yield line, line.error


def _check_files(source: str, target: str) -> None:
    if STANDARD in {source, target} or not Path(target).exists():
        return
    if Path(source).samefile(target):
        raise click.BadParameter("it is INPUT itself; name another file", param_hint="OUTPUT")


@contextmanager
def _open_target(source: str, target: str) -> Iterator[tuple[IO[bytes], Done]]:
    if target == STANDARD:
        yield sys.stdout.buffer, Done()
        return
    with open_output(Path(target)) as (file, done):
        if source == STANDARD and done.lines:
            text = f"it has {done.lines} lines already, and stdin can't be resumed; name another file"
            raise click.BadParameter(text, param_hint="OUTPUT")
        yield file, done


@contextmanager
def _told(tally: Tally, invocation: Invocation) -> Iterator[None]:
    """Let SIGTERM end the run as Ctrl-C does; say how to go on with a run that was broken off, whatever broke it."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except click.ClickException:
        raise
    except BaseException:
        if tally.resumable is not None and tally.lines and not invocation.json:
            text = f"{tally.resumable}: {tally}; run the same command again to go on from there"
            click.echo(text, err=True)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _bar(invocation: Invocation, target: str) -> Progress:
    hidden = invocation.json or not sys.stderr.isatty() or (target == STANDARD and sys.stdout.isatty())
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
        console=console(sys.stderr),
        disable=hidden,
    )


def _count(source: str, *, text: bool, shown: bool) -> int | None:
    """How many inputs there are, if that is shown and can be known."""
    if source == STANDARD or not shown:
        return None
    with Path(source).open("rb") as file:
        return sum(1 for _ in raw_lines(file, text=text))


def _sum_up(invocation: Invocation, tally: Tally) -> None:
    facts = {"lines": tally.lines, "failed": tally.failed, "resumed_at": tally.resumed_at}
    click.echo(to_json(facts) if invocation.json else str(tally), err=True)
    if tally.failed:
        click.get_current_context().exit(Exit.JOB)
