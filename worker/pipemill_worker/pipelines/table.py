"""The table of tasks in the docs, written from the rules that the worker obeys: ``python -m`` this module prints it."""

from __future__ import annotations

from typing import Final

from pipemill_worker.pipelines.rules import TASK_RULES, Sharing

_WORDS: Final = {
    Sharing.PADDED: "batched, padded",
    Sharing.EXACT: "batched, equal shapes",
    Sharing.SOLO: "single",
}


def task_table() -> str:
    """How the items of each task share a forward pass, as a Markdown table."""
    rows = [
        f"| `{task}` | {rule.item} | {_WORDS[rule.sharing]} | {rule.why} |" for task, rule in sorted(TASK_RULES.items())
    ]
    return "\n".join(
        ["| task | an item is | items are | which share a pass, and why not more |", "|---|---|---|---|", *rows]
    )


if __name__ == "__main__":
    print(task_table())  # noqa: T201 - it is what this module is run for
