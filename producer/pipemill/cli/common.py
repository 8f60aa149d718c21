"""What the commands share: their common options, and what one call was told by them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
import orjson

if TYPE_CHECKING:
    from pipemill.client import Client

_Command = TypeVar("_Command", bound=Callable[..., Any])


def connect(invocation: Invocation) -> Client:
    """Open the client that commands work with; queues of the catalogue are known to it before a worker ever ran."""
    from pipemill.catalogue import find_catalogue  # noqa: PLC0415  # it brings pydantic, which `--help` spares
    from pipemill.client import Client  # noqa: PLC0415  # it brings redis in the end

    return Client(invocation.broker, catalogue=find_catalogue(invocation.catalogue), decode=invocation.decode)


@dataclass(slots=True)
class Invocation:
    """What one call of the command line was told, whatever its command."""

    #: URL of the broker; None leaves it to the environment, the catalogue and the default.
    broker: str | None = None
    #: The catalogue's file; None leaves it to the environment and the default.
    catalogue: Path | None = None
    #: Whether to print JSON, for programs.
    json: bool = False
    #: Whether errors show where they were raised.
    traceback: bool = False
    #: Whether answers come with their media as objects, to be saved, not as JSON.
    decode: bool = False
    #: Opens the client; tests put one in memory here.
    connect: Callable[[Invocation], Client] = connect


pass_invocation: Final = click.make_pass_decorator(Invocation, ensure=True)


def _note(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
    setattr(ctx.ensure_object(Invocation), str(parameter.name), value)


def broker_options(command: _Command) -> _Command:
    """Add ``--broker`` and ``--catalogue``."""
    command = click.option(
        "--catalogue",
        metavar="FILE",
        type=click.Path(path_type=Path),
        expose_value=False,
        callback=_note,
        help="The catalogue; else PIPEMILL_CATALOGUE, else ./pipemill.yaml.",
    )(command)
    return click.option(
        "--broker",
        metavar="URL",
        expose_value=False,
        callback=_note,
        help="The broker; else PIPEMILL_BROKER, else the catalogue's, else redis://localhost:6379/0.",
    )(command)


def json_option(command: _Command) -> _Command:
    """Add ``--json``."""
    return click.option(
        "--json",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_note,
        help="Print JSON, and errors as JSON on stderr.",
    )(command)


class Seconds(click.FloatRange):
    """A finite number of seconds, not below 0."""

    name = "seconds"

    def __init__(self) -> None:
        super().__init__(min=0)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read a number of seconds."""
        seconds = super().convert(value, param, ctx)
        if not math.isfinite(seconds):
            self.fail(f"{value} isn't a finite number; leave the option out for no limit", param, ctx)
        return seconds


def read_parameters(ctx: click.Context, parameter: click.Parameter, given: Sequence[str]) -> dict[str, Any]:
    """Read ``name=value`` pairs: a value that is JSON counts as what it says, any other as text."""
    read: dict[str, Any] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not name or not equals:
            text = f"{each[:80]!r} isn't of the form name=value, such as -p top_k=3"
            raise click.BadParameter(text, ctx, parameter)
        if name in read:
            raise click.BadParameter(f"{name[:80]!r} is given twice; keep one", ctx, parameter)
        read[name] = _json_or_text(value)
    return read


def _json_or_text(value: str) -> Any:
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return value


def parameters_option(command: _Command) -> _Command:
    """Add ``-p``/``--parameter``."""
    return click.option(
        "-p",
        "--parameter",
        "parameters",
        multiple=True,
        metavar="NAME=VALUE",
        callback=read_parameters,
        help="A parameter of the pipeline; a value that is JSON counts as what it says, any other as text. Repeatable.",
    )(command)


def show_version(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:  # noqa: FBT001  # click's signature
    """Print the version and end, when ``--version`` was given."""
    if value:
        click.echo(f"pipemill {version('pipemill')}")
        ctx.exit()


def tenant_option(command: _Command) -> _Command:
    """Add ``--tenant``."""
    return click.option(
        "--tenant", metavar="NAME", callback=_read_tenant, help="On whose behalf; tenants of a queue take turns."
    )(command)


def _read_tenant(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    from pipemill.jobs import check_tenant  # noqa: PLC0415  # it brings the codec, which `--help` spares

    try:
        return None if value is None else check_tenant(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
