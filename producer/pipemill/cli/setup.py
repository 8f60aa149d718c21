"""Commands that set things up: a broker, the catalogue's check, the version."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from pipemill.cli.common import Invocation, broker_options, json_option, pass_invocation
from pipemill.cli.exits import Exit
from pipemill.cli.output import to_json
from pipemill.embedded import EmbeddedBroker
from pipemill.errors import BrokerUnavailable

if TYPE_CHECKING:
    from pipemill.catalogue import Mistake

#: How often the broker command looks whether its server still lives and whether it was told to stop, in seconds.
LOOK_SECONDS: Final = 0.2
_STOPPING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@click.command()
@click.option("--port", type=click.IntRange(0, 65_535), default=6379, show_default=True, help="0 takes a free one.")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep what it holds in this folder; without it, nothing outlives the server.",
)
@json_option
@pass_invocation
def broker(invocation: Invocation, port: int, folder: Path | None) -> None:
    """Run a Valkey server for trying things out.

    It listens on this machine only, without a password, until Ctrl-C or SIGTERM. It comes with the extra
    "pipemill[embedded]". In production, run Redis or Valkey as a service, with persistence.
    """
    _make(folder)
    with _stop_signals() as told, EmbeddedBroker(port=port or None, folder=folder) as server:
        if invocation.json:
            click.echo(to_json({"url": server.url, "pid": server.pid}))
        else:
            click.echo(f"broker ready at {server.url} (process {server.pid}); Ctrl-C stops it")
        while not told:
            if _has_ended(server.pid):
                raise BrokerUnavailable("the embedded broker ended by itself; start it again, and see to the memory")
            time.sleep(LOOK_SECONDS)


def _make(folder: Path | None) -> None:
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise click.BadParameter(f"can't be made ({error.strerror})", param_hint="--folder") from error


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Collect the signals that stop us, so that the server is stopped in order whenever they come."""
    told: list[int] = []
    before = {number: signal.signal(number, lambda number, _: told.append(number)) for number in _STOPPING}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _has_ended(pid: int) -> bool:
    """Whether a child process has ended; it stays to be waited for."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@broker_options
@json_option
@pass_invocation
def check(invocation: Invocation, file: Path | None) -> None:
    """Name every mistake in a catalogue.

    FILE is the catalogue; else --catalogue, PIPEMILL_CATALOGUE and ./pipemill.yaml are looked at. Models in
    directories must be there. Variables such as PIPEMILL_DEVICE are checked too.
    """
    from pipemill.catalogue import find_catalogue, find_mistakes, load_catalogue  # noqa: PLC0415  # pydantic is slow

    named = file or invocation.catalogue
    found = find_catalogue(named)
    options = {"broker": invocation.broker}
    mistakes = find_mistakes(named, overrides=options, check_files=True)
    if invocation.json:
        listed = [
            {"path": each.path, "problem": each.problem, "mend": each.mend, "line": each.line} for each in mistakes
        ]
        click.echo(to_json({"file": str(found) if found else None, "mistakes": listed}))
    elif mistakes:
        for mistake in mistakes:
            click.echo(f"{_place(found, mistake)}{mistake.problem} \N{EM DASH} {mistake.mend}")
    else:
        names = list(load_catalogue(named, overrides=options).queues)
        click.echo(f"{found}: no mistakes in {len(names)} queue{'s' * (len(names) != 1)}: {', '.join(names)}")
    if mistakes:
        click.get_current_context().exit(Exit.CONFIGURATION)


def _place(file: Path | None, mistake: Mistake) -> str:
    """Say where a mistake is, as compilers do: file, line, path."""
    line = f"{mistake.line}:" if mistake.line else ""
    return (f"{file}:{line} " if file else "") + (f"{mistake.path}: " if mistake.path else "")


@click.command()
@json_option
@pass_invocation
def version(invocation: Invocation) -> None:
    """Print the version."""
    number = installed_version("pipemill")
    click.echo(to_json({"version": number}) if invocation.json else f"pipemill {number}")
