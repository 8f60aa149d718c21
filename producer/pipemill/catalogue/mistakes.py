"""A mistake in the catalogue: where, what is wrong, what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipemill.errors import CatalogueError


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """One mistake, in words."""

    #: Path in the file such as ``queues.sentiment.batch``, or an environment variable's or option's name; empty when
    #: it is the file itself.
    path: str
    #: What is wrong.
    problem: str
    #: What to do.
    mend: str
    #: Line of the file, counted from 1; ``None`` when it is in no file or in no line.
    line: int | None = None

    def __str__(self) -> str:
        """All in one line, without the line's number."""
        return ": ".join(part for part in (self.path, self.problem, self.mend) if part)


def catalogue_error(file: Path | None, mistakes: Sequence[Mistake]) -> CatalogueError:
    """Build the error that lists all mistakes, one a line."""
    count = "a mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
    lines = [f"line {each.line}: {each}" if each.line and each.path else str(each) for each in mistakes]
    return CatalogueError("\n  ".join([f"{file or 'the settings'} {'has' if file else 'have'} {count}:", *lines]))
