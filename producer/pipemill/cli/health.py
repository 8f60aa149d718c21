"""The command that probes a worker. It loads neither pydantic nor redis: orchestrators run it every few seconds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import click

from pipemill.cli.common import Invocation, Seconds, json_option, pass_invocation
from pipemill.cli.exits import Exit
from pipemill.cli.output import printable, to_json
from pipemill.health import STALE_SECONDS, Health, ask_health, read_health, words

#: The worker's own variables, so that a container's probe needs no options.
FILE_VARIABLE: Final = "PIPEMILL_HEALTH_FILE"
PORT_VARIABLE: Final = "PIPEMILL_HEALTH_PORT"


@click.command()
@click.option(
    "--file",
    type=click.Path(dir_okay=False, path_type=Path),
    help=f"The file that the worker writes (worker.health_file); else {FILE_VARIABLE}.",
)
@click.option(
    "--url", help=f"Ask the worker's port instead, at http://host:port; else {PORT_VARIABLE} on this machine."
)
@click.option("--ready", is_flag=True, help="Ask whether it serves jobs, and not only whether it lives.")
@click.option(
    "--max-age", type=Seconds(), default=STALE_SECONDS, show_default=True, help="Oldest file that counts, in seconds."
)
@json_option
@pass_invocation
def health(invocation: Invocation, *, file: Path | None, url: str | None, ready: bool, max_age: float) -> None:
    """Say whether a worker lives, or serves.

    For probes of Docker, Kubernetes and the like. Of several processes with a file each, all must live, and one must
    serve; --file is the name that worker.health_file gives.
    """
    found = _look(file, url, max_age)
    click.echo(to_json(found.to_json()) if invocation.json else printable(words(found)))
    if not (found.ready if ready else found.live):
        click.get_current_context().exit(Exit.UNHEALTHY)


def _look(file: Path | None, url: str | None, max_age: float) -> Health:
    named, port = os.environ.get(FILE_VARIABLE), os.environ.get(PORT_VARIABLE)
    if file is None and url is None:
        file = Path(named) if named else None
        url = f"http://127.0.0.1:{port}" if port else None
    if file is not None:
        return read_health(file, max_age=max_age)
    if url is None:
        raise click.UsageError(f"name the worker's file (--file, {FILE_VARIABLE}) or its port (--url, {PORT_VARIABLE})")
    try:
        return ask_health(url)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--url") from error
