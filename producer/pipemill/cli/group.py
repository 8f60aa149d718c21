"""The command group: loads a command when it is called, and turns every error into one line and an exit code."""

from __future__ import annotations

import errno
from typing import Any, NoReturn

import click
from click.shell_completion import CompletionItem

from pipemill.cli.commands import COMMANDS, load, missing_extra
from pipemill.cli.common import Invocation
from pipemill.cli.exits import Exit, exit_of
from pipemill.cli.output import report
from pipemill.errors import PipemillError


class LazyGroup(click.Group):
    """A group whose commands are listed, and completed, without being imported."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        """All names, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  # as above
        """Import one command."""
        return load(cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  # as above
        """List the commands from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete a command's name from the table alone."""
        names = [
            CompletionItem(name, help=entry.help) for name, entry in COMMANDS.items() if name.startswith(incomplete)
        ]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; what goes wrong becomes one line on stderr and an exit code."""
        invocation = ctx.ensure_object(Invocation)
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            report("interrupted", invocation)
            ctx.exit(Exit.INTERRUPTED)
        except Exception as error:  # noqa: BLE001  # the outermost place: nothing may end in a bare traceback
            _end(ctx, invocation, error)


def _end(ctx: click.Context, invocation: Invocation, error: Exception) -> NoReturn:
    """End the call for an error.

    Raises
    ------
    Exception
        The error itself when a traceback was asked for, or when whoever reads our output went away.

    """
    if invocation.traceback or (isinstance(error, OSError) and error.errno == errno.EPIPE):
        raise error
    if isinstance(error, ImportError):
        error = missing_extra(ctx.invoked_subcommand or "", error) or error
    report(error, invocation)
    ctx.exit(exit_of(error) if isinstance(error, PipemillError) else Exit.UNEXPECTED)
