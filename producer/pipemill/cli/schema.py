"""The command that says which parameters the tasks take."""

from __future__ import annotations

import json

import click

from pipemill.cli.common import Invocation, json_option, pass_invocation
from pipemill.cli.output import show_table, to_json


@click.command()
@click.argument("task", required=False)
@json_option
@pass_invocation
def schema(invocation: Invocation, task: str | None) -> None:
    """Say which parameters a task takes, as a JSON Schema.

    TASK is a pipeline task such as text-classification; without it, the tasks are listed. The schema is of draft
    2020-12 and holds for a job's parameters with its queue's defaults. Rules over several parameters aren't in it.
    """
    if task is None:
        _list(invocation)
        return
    from pipemill.parameters import parameter_schema  # noqa: PLC0415  # it brings pydantic, which `--help` spares

    found = parameter_schema(task)
    click.echo(to_json(found) if invocation.json else json.dumps(found, indent=2, ensure_ascii=False))


def _list(invocation: Invocation) -> None:
    from pipemill.parameters import PARAMETERS, REQUIRED  # noqa: PLC0415  # as above

    rows = [(task, list(REQUIRED.get(task, ())), list(model.model_fields)) for task, model in PARAMETERS.items()]
    if invocation.json:
        listed = [{"task": task, "required": required, "parameters": names} for task, required, names in rows]
        click.echo(to_json(listed))
    else:
        show_table(["task", "parameters", "required"], [(row[0], len(row[2]), ", ".join(row[1])) for row in rows])
