"""The tasks: each has a rule, a place in the docs, a row in the matrix and an allow-list."""

from __future__ import annotations

from pathlib import Path

from transformers.pipelines import SUPPORTED_TASKS

from pipemill.parameters import PARAMETERS, TASKS
from pipemill_worker.pipelines.own import OWN_PIPELINES
from pipemill_worker.pipelines.rules import TASK_RULES
from pipemill_worker.pipelines.table import task_table
from tests.tasks.matrix import ROWS

DOCS = Path(__file__).parents[3] / "docs" / "tasks.md"


def test_every_task_of_transformers_is_offered() -> None:
    """What the installed transformers registers, what it dropped, and ``echo``: no more and no less."""
    ours = set(TASK_RULES)
    assert ours == {*SUPPORTED_TASKS, *OWN_PIPELINES}
    assert set(TASKS) == ours | {"echo"}
    assert set(PARAMETERS) == set(TASKS)


def test_every_task_has_a_row_in_the_matrix() -> None:
    """No task is offered that isn't compared with its direct call."""
    assert {row.task for row in ROWS.values()} == set(TASK_RULES)


def test_the_docs_say_what_the_rules_do() -> None:
    """The table of tasks in the docs is the one that the code writes."""
    assert task_table() in DOCS.read_text(encoding="utf-8")
