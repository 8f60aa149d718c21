"""What the demo prints."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from pipemill_worker.demo.run import Outcome

#: Characters of a sentence that fit into the table.
SHOWN_CHARACTERS: Final = 72


def print_outcome(console: Console, outcome: Outcome, rows: int) -> None:
    """Print answers, one generated text, the batches, and the rates."""
    step = max(len(outcome.lines) // max(rows, 1), 1)
    table = Table("sentence", "answer", "score", title=f"{rows} of {len(outcome.answers)} answers")
    for index in range(0, len(outcome.lines), step)[:rows]:
        label, score = _label(outcome.answers[index])
        table.add_row(_cut(outcome.lines[index]), label, score)
    if rows:
        console.print(table)
    labels = Counter(_label(answer)[0] for answer in outcome.answers)
    console.print("answers: " + ", ".join(f"{count} {label}" for label, count in labels.most_common()))
    console.print(f"generated: {outcome.generated!r}", markup=False)
    console.print(_batches(outcome.batch_sizes))
    console.print(_rates(outcome))


def _label(answer: Any) -> tuple[str, str]:
    if isinstance(answer, Exception):
        return type(answer).__name__, "–"
    return answer[0]["label"], f"{answer[0]['score']:.3f}"


def _cut(line: str) -> str:
    return line if len(line) <= SHOWN_CHARACTERS else f"{line[: SHOWN_CHARACTERS - 1]}…"


def _batches(sizes: Counter[int]) -> str:
    passes, items = sum(sizes.values()), sum(size * count for size, count in sizes.items())
    if not passes:
        return "batches: the worker reported none in time"
    largest = max(sizes)
    return f"batches: {items} jobs in {passes} forward passes, {items / passes:.1f} a pass, at most {largest}"


def _rates(outcome: Outcome) -> str:
    queued = len(outcome.lines) / outcome.seconds
    text = f"queue: {queued:,.0f} jobs/s"
    if outcome.direct_seconds is None:
        return text
    direct = len(outcome.lines) / outcome.direct_seconds
    return f"{text}, {queued / direct:.1f} times one pipeline call per job on this machine: {direct:,.0f} jobs/s"


def as_document(outcome: Outcome) -> dict[str, Any]:
    """The same for machines."""
    return {
        "jobs": len(outcome.lines),
        "answers": [
            {"error": type(answer).__name__, "message": str(answer)} if isinstance(answer, Exception) else answer
            for answer in outcome.answers
        ],
        "generated_text": outcome.generated,
        "batch_sizes": {str(size): count for size, count in sorted(outcome.batch_sizes.items())},
        "jobs_per_second": len(outcome.lines) / outcome.seconds,
        "direct_calls_per_second": len(outcome.lines) / outcome.direct_seconds if outcome.direct_seconds else None,
    }


def print_invitation(console: Console, url: str) -> None:
    """Say how to play with what is left up."""
    console.print("\nStill up, until Ctrl-C. In another terminal:", style="bold")
    for line in (
        f"export PIPEMILL_BROKER={url}",
        "pipemill submit sentiment 'A warm, funny, generous film.' --wait",
        "pipemill submit generator 'The plot' --wait -p max_new_tokens=20",
        "pipemill queues",
    ):
        console.print(f"  {line}", markup=False)
