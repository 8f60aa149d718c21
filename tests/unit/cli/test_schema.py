"""schema."""

from __future__ import annotations

import json

from pipemill.parameters import TASKS, parameter_schema
from tests.unit.cli.conftest import Run


def test_schema_of_a_task(run: Run) -> None:
    """A task's schema is printed, in one line with --json."""
    indented, plain = run("schema", "fill-mask"), run("schema", "fill-mask", "--json")
    assert (indented.exit_code, plain.exit_code) == (0, 0)
    assert json.loads(indented.stdout) == json.loads(plain.stdout) == parameter_schema("fill-mask")
    assert len(indented.stdout.splitlines()) > 10
    assert len(plain.stdout.splitlines()) == 1


def test_tasks_as_a_table(run: Run) -> None:
    """Without a task, each is a line: how many parameters it takes, and which it needs."""
    done = run("schema")
    assert done.exit_code == 0
    head, *lines = [line.split() for line in done.stdout.splitlines()]
    assert head == ["task", "parameters", "required"]
    assert [line[0] for line in lines] == list(TASKS)
    assert ["zero-shot-classification", "3", "candidate_labels"] in lines
    assert ["echo", "0"] in lines


def test_tasks_as_json(run: Run) -> None:
    """Programs get the names."""
    listed = json.loads(run("schema", "--json").stdout)
    assert [each["task"] for each in listed] == list(TASKS)
    assert {
        "task": "zero-shot-object-detection",
        "required": ["candidate_labels"],
        "parameters": ["candidate_labels", "threshold", "top_k"],
    } in listed


def test_an_unknown_task(run: Run) -> None:
    """A task that doesn't exist ends with the configuration's code and the one that was meant."""
    done = run("schema", "text-clasification")
    assert (done.exit_code, done.stdout) == (4, "")
    assert done.stderr == 'Error: there is no task "text-clasification": did you mean text-classification?\n'
    told = json.loads(run("schema", "x" * 500, "--json").stderr)["error"]
    assert told["type"] == "ConfigurationError"
    assert "x" * 80 not in told["message"]
