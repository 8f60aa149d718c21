"""Commands for dead letters: list, show, replay, drop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pipemill.cli.common import Invocation, broker_options, json_option, pass_invocation
from pipemill.cli.media import in_words
from pipemill.cli.output import show, show_facts, show_table, to_json

if TYPE_CHECKING:
    from pipemill.protocol import History
    from pipemill.store.dead import DeadLetter

_Command = TypeVar("_Command", bound=Callable[..., Any])

_HEAD = ("id", "died", "error", "attempts", "deliveries", "bytes", "what it said")


@click.group()
def dead() -> None:
    """Look at dead letters, replay or drop them.

    A job that was given up is kept with its inputs and its history for a week: one whose workers died too often, whose
    attempts failed too often with what might have passed, or whose message nobody can read.
    """


def _chosen(command: _Command) -> _Command:
    """Add the ids, and ``--all`` in their place."""
    command = click.option("--all", "everything", is_flag=True, help="All letters of the queue.")(command)
    command = click.argument("job_ids", metavar="[ID]...", nargs=-1)(command)
    return click.argument("queue")(command)


def _ids(job_ids: Sequence[str], *, everything: bool) -> Sequence[str] | None:
    """The ids that were given, None for all."""
    if bool(job_ids) == everything:
        raise click.UsageError("give the ids of letters, or --all for every letter of the queue")
    return None if everything else job_ids


@dead.command("list")
@click.argument("queue")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="At most so many.")
@broker_options
@json_option
@pass_invocation
def list_letters(invocation: Invocation, queue: str, *, limit: int) -> None:
    """List a queue's dead letters, the latest first."""
    with invocation.connect(invocation) as client:
        letters = client.dead.latest(queue, limit)
    if invocation.json:
        click.echo(to_json([facts(letter) for letter in letters]))
    elif letters:
        show_table(_HEAD, [_row(letter) for letter in letters])
    else:
        click.echo(f"queue {queue!r} has no dead letters")


@dead.command("show")
@click.argument("queue")
@click.argument("job_id", metavar="ID")
@click.option("--inputs", is_flag=True, help="Show the job's inputs and parameters, too.")
@broker_options
@json_option
@pass_invocation
def show_letter(invocation: Invocation, queue: str, job_id: str, *, inputs: bool) -> None:
    """Show a dead letter with its history."""
    with invocation.connect(invocation) as client:
        letter = client.dead.show(queue, job_id)
    given = letter.arguments() if inputs else None
    if invocation.json:
        more = {} if given is None else {"inputs": given[0], "parameters": given[1]}
        click.echo(to_json({**facts(letter), "history": events(letter.history), **more}))
        return
    show_facts({**facts(letter), "at": _when(letter.at)})
    if letter.history:
        click.echo()
        show_table(
            ("when", "what", "worker", "error", "what it said"), [_line(each) for each in events(letter.history)]
        )
    if given is not None:
        click.echo()
        show(in_words({"inputs": given[0], "parameters": given[1]}))


@dead.command("replay")
@_chosen
@broker_options
@json_option
@pass_invocation
def replay(invocation: Invocation, queue: str, job_ids: Sequence[str], *, everything: bool) -> None:
    """Put dead letters back into their queue, under the same ids.

    They count as tried never before, and their failures are forgotten: whoever asks for them waits again.
    """
    wanted = _ids(job_ids, everything=everything)
    with invocation.connect(invocation) as client:
        back = client.dead.replay(queue, wanted)
    click.echo(
        to_json({"queue": queue, "replayed": back}) if invocation.json else f"{len(back)} back in queue {queue!r}"
    )


@dead.command("drop")
@_chosen
@click.option("--yes", is_flag=True, help="Don't ask.")
@broker_options
@json_option
@pass_invocation
def drop(invocation: Invocation, queue: str, job_ids: Sequence[str], *, everything: bool, yes: bool) -> None:
    """Forget dead letters, inputs and all."""
    wanted = _ids(job_ids, everything=everything)
    what = "all dead letters" if wanted is None else f"{len(wanted)} dead letters"
    if not yes:
        click.confirm(f"Drop {what} of queue {queue!r} for good?", abort=True, err=True)
    with invocation.connect(invocation) as client:
        dropped = client.dead.drop(queue, wanted)
    click.echo(to_json({"queue": queue, "dropped": dropped}) if invocation.json else f"{dropped} dropped")


def facts(letter: DeadLetter) -> dict[str, Any]:
    """What is told of a letter, by name; nothing of its inputs."""
    return {
        "id": letter.id,
        "queue": letter.queue,
        "at": letter.at,
        "error": letter.error,
        "text": letter.text,
        "attempts": letter.attempts,
        "deliveries": letter.deliveries,
        "priority": letter.step,
        "bytes": letter.size,
    }


def events(history: History) -> list[dict[str, Any]]:
    """What happened to a job, by name."""
    return [
        {
            "at": each.at,
            "kind": each.kind.value,
            "worker": each.worker,
            "attempt": each.attempt,
            "error": each.error,
            "text": each.text,
        }
        for each in history
    ]


def _row(letter: DeadLetter) -> list[Any]:
    numbers = [letter.attempts, letter.deliveries, letter.size]
    return [letter.id, _when(letter.at), letter.error, *numbers, letter.text]


def _line(event: dict[str, Any]) -> list[Any]:
    what = f"attempt {event['attempt']} failed" if event["attempt"] else {"lost": "worker died"}.get(event["kind"])
    return [_when(event["at"]), what or event["kind"], event["worker"], event["error"], event["text"]]


def _when(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M:%S}"
