"""The command that looks for what is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import click

from pipemill.cli.common import Invocation, broker_options, json_option, pass_invocation
from pipemill.cli.exits import Exit
from pipemill.cli.output import printable, to_json

if TYPE_CHECKING:
    from pipemill.doctor import Finding

#: Colours of verdicts, on terminals.
_COLOURS: Final[Mapping[str, str]] = {"ok": "green", "warning": "yellow", "problem": "red", "skipped": "bright_black"}


@click.command()
@broker_options
@json_option
@pass_invocation
def doctor(invocation: Invocation) -> None:
    """Look for what is wrong with the broker and this machine.

    It looks at the broker's settings, memory, clock and rights, at the queues, at the catalogue, and, where workers
    run, at packages, models and GPUs. Each line says what was seen, and what to do. It writes nothing into the broker.
    """
    from pipemill.doctor import Verdict, examine, worst  # noqa: PLC0415  # it brings pydantic and redis

    findings = examine(invocation.broker, invocation.catalogue)
    verdict = worst(findings)
    if invocation.json:
        click.echo(to_json({"verdict": verdict.value, "checks": [finding.to_json() for finding in findings]}))
    else:
        show(findings)
    if verdict is Verdict.PROBLEM:
        click.get_current_context().exit(Exit.UNHEALTHY)


def show(findings: Sequence[Finding]) -> None:
    """Print a line for each finding, its mend below, and how many there are of each verdict."""
    width = max(len(verdict) for verdict in _COLOURS)
    for finding in findings:
        verdict = click.style(f"{finding.verdict.value:<{width}}", fg=_COLOURS[finding.verdict.value])
        click.echo(f"{verdict}  {printable(f'{finding.area} · {finding.name}: {finding.seen}')}")
        if finding.mend:
            click.echo(f"{' ' * width}  \N{RIGHTWARDS ARROW} {printable(finding.mend)}")
    counts = {verdict: sum(finding.verdict.value == verdict for finding in findings) for verdict in _COLOURS}
    click.echo(", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count))
