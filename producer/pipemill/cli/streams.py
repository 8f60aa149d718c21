"""The command that follows a job's text, and how its events are printed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

import click

from pipemill.cli.common import Invocation, Seconds, broker_options, json_option, pass_invocation
from pipemill.cli.media import in_words
from pipemill.cli.output import printable, show, to_json
from pipemill.streams import StreamEvent


@click.command()
@click.argument("job_id", metavar="ID")
@click.option("--after", metavar="EVENT", help="Follow on behind this event, whose id `--json` printed.")
@click.option("--timeout", type=Seconds(), help="Wait this long at most for its end; the job goes on.")
@broker_options
@json_option
@pass_invocation
def follow(invocation: Invocation, job_id: str, after: str | None, timeout: float | None) -> None:
    """Print a job's text while it is written.

    The job must have been submitted with --stream. A job without one has its answer printed when it ends. With --json,
    each event is a line.
    """
    invocation.decode = False
    with invocation.connect(invocation) as client:
        try:
            show_events(invocation, client.follow(job_id, after=after, timeout=timeout))
        except ValueError as error:
            raise click.UsageError(str(error)) from error


def show_events(invocation: Invocation, events: Iterable[StreamEvent]) -> None:
    """Print a text as it comes, or each event as JSON; an answer without a text at its end."""
    told = False
    for event in events:
        if invocation.json:
            click.echo(to_json(_said(event)))
            continue
        if event.restarted:
            click.echo("\nthe text begins anew" if told else "the text begins anew", err=True)
            told = told and not event.ended
        if event.text:
            click.echo(printable(event.text), nl=False)
            told = True
        if event.ended and told:
            click.echo()
        elif event.ended:
            show(in_words(event.result))


def _said(event: StreamEvent) -> dict[str, object]:
    """An event for programs: what isn't said is left out, but a result."""
    said = {"id": event.id, "job_id": event.job_id, "text": event.text, "restarted": event.restarted}
    said = {name: value for name, value in said.items() if value}
    if not event.ended:
        return said
    return {**said, "result": event.result, "usage": asdict(event.usage) if event.usage else None}
