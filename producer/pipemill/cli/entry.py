"""The entry point."""

from __future__ import annotations

from typing import Final

import click

from pipemill.cli.common import Invocation, show_version
from pipemill.cli.exits import MEANINGS
from pipemill.cli.group import LazyGroup

_EPILOG: Final = "\n".join(
    ["\b", "Exit codes:", *(f"  {code.value:>3}  {meaning}" for code, meaning in MEANINGS.items())]
)


@click.group(cls=LazyGroup, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=show_version, help="Print the version."
)
@click.option("--traceback", is_flag=True, help="On an error, show where in pipemill it was raised.")
@click.pass_context
def main(ctx: click.Context, *, traceback: bool) -> None:
    """Hugging Face pipelines behind a durable queue."""
    ctx.ensure_object(Invocation).traceback = traceback
