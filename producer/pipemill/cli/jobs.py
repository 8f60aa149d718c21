"""Commands for one job: submit, result, status, cancel."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import orjson

from pipemill.cli.common import (
    Invocation,
    Seconds,
    broker_options,
    json_option,
    parameters_option,
    pass_invocation,
    tenant_option,
)
from pipemill.cli.exits import Exit
from pipemill.cli.media import SOURCES, in_words, media_options, save_option, saved, with_media
from pipemill.cli.output import show, show_facts, to_json
from pipemill.cli.streams import show_events
from pipemill.protocol.states import JobStatus


@click.command()
@click.argument("queue")
@click.argument("text", metavar="[INPUT]", required=False)
@media_options
@parameters_option
@click.option("--json-input", is_flag=True, help="Read INPUT as JSON, for inputs that aren't text.")
@click.option("--priority", type=click.IntRange(0, 9), default=0, show_default=True, help="0 is the most urgent.")
@click.option("--countdown", type=Seconds(), help="Start no sooner than in this many seconds.")
@click.option("--expires", type=Seconds(), help="Start within this many seconds or not at all.")
@tenant_option
@click.option("--idempotency-key", metavar="KEY", help="Jobs of one queue with the same key are one job.")
@click.option("--wait", is_flag=True, help="Wait for the answer and print it.")
@click.option("--stream", is_flag=True, help="Print the text while it is written.")
@click.option("--timeout", type=Seconds(), help="Wait this long at most; the job goes on.")
@save_option
@broker_options
@json_option
@pass_invocation
def submit(  # noqa: PLR0913  # each is an option of the command
    invocation: Invocation,
    /,
    queue: str,
    text: str | None,
    *,
    json_input: bool,
    wait: bool,
    stream: bool,
    timeout: float | None,
    save: Path | None,
    parameters: dict[str, Any],
    **options: Any,
) -> None:
    """Submit one job.

    INPUT is text, or - for what stdin holds (without the newline at its end). Files of --image, --audio and --video
    are inputs without it; with it they go beside the text, as {"text": ..., "images": ...}. Prints the job's id, with
    --wait the answer, or with --stream the text while it is written.
    """
    if (timeout is not None and not (wait or stream)) or (save is not None and not wait):
        raise click.UsageError("--timeout and --save are for --wait; give it too, or none of them")
    if stream and wait:
        raise click.UsageError("--stream waits for the end, too: give it or --wait, not both")
    files = {name: options.pop(name) for name in SOURCES}
    if text is None and (json_input or not any(files.values())):
        raise click.UsageError("Missing argument 'INPUT': give text, -, or a file with --image, --audio or --video.")
    inputs = with_media(None if text is None else read_input(text, json_input=json_input), files)
    invocation.decode = save is not None
    with invocation.connect(invocation) as client:
        try:
            job = client.submit(queue, inputs, parameters, stream=stream, **options)
        except ValueError as error:
            raise click.UsageError(str(error)) from error
        if wait:
            with _told(job.id):
                answer = job.result(timeout)
            show_answer(invocation, job.id, answer, save)
        elif stream:
            with _told(job.id):
                show_events(invocation, job.follow(timeout=timeout))
        else:
            click.echo(to_json({"id": job.id, "queue": queue}) if invocation.json else job.id)


@contextmanager
def _told(job_id: str) -> Iterator[None]:
    """Name the job when Ctrl-C ends the wait for it: nothing else did."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo(f"job {job_id} goes on; `pipemill result {job_id}` waits for it again", err=True)
        raise


def read_input(text: str, *, json_input: bool) -> Any:
    """Read the inputs of one job.

    Raises
    ------
    BadParameter
        When stdin holds no text, or the text should be JSON and isn't.

    """
    if text == "-":
        try:
            text = sys.stdin.buffer.read().decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError as error:
            raise click.BadParameter("stdin isn't UTF-8 text; convert it first", param_hint="INPUT") from error
    if not json_input:
        return text
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise click.BadParameter(f"not JSON ({error}); put it in single quotes", param_hint="INPUT") from error


def show_answer(invocation: Invocation, job_id: str, answer: Any, folder: Path | None) -> None:
    """Print an answer as the call asked for; with a folder, its media are written there."""
    if folder is not None:
        try:
            answer = saved(answer, folder)
        except click.UsageError as error:
            again = f"`pipemill result {job_id} --save DIR`"
            raise click.UsageError(f"{error.message}; {again} writes the answer again") from error
    if invocation.json:
        click.echo(to_json({"id": job_id, "result": answer}))
    else:
        show(in_words(answer))


@click.command()
@click.argument("job_id", metavar="ID")
@click.option("--timeout", type=Seconds(), help="Wait this long at most, 0 only looks; without it, until the job ends.")
@save_option
@broker_options
@json_option
@pass_invocation
def result(invocation: Invocation, job_id: str, timeout: float | None, save: Path | None) -> None:
    """Print a job's answer, waiting for it."""
    invocation.decode = save is not None
    with invocation.connect(invocation) as client:
        show_answer(invocation, job_id, client.result(job_id, timeout), save)


@click.command()
@click.argument("job_id", metavar="ID")
@broker_options
@json_option
@pass_invocation
def status(invocation: Invocation, job_id: str) -> None:
    """Say where a job stands."""
    with invocation.connect(invocation) as client:
        info = client.describe(job_id)
    facts = {
        "id": job_id,
        "status": info.status.value,
        "queue": info.queue,
        "position": info.position,
        "estimate_seconds": info.estimate_seconds,
    }
    if invocation.json:
        click.echo(to_json(facts))
    else:
        show_facts({name: value for name, value in facts.items() if value is not None})
    if info.status is JobStatus.UNKNOWN:
        click.get_current_context().exit(Exit.UNKNOWN_JOB)


@click.command()
@click.argument("job_id", metavar="ID")
@broker_options
@json_option
@pass_invocation
def cancel(invocation: Invocation, job_id: str) -> None:
    """Cancel a job.

    A job that has ended stays as it ended.
    """
    with invocation.connect(invocation) as client:
        cancelled = client.cancel(job_id)
    if invocation.json:
        click.echo(to_json({"id": job_id, "cancelled": cancelled}))
    else:
        click.echo("cancelled" if cancelled else "it had already ended; `pipemill result` shows how")
