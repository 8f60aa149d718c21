"""What a check found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """How a thing that was looked at stands; the worst last."""

    #: It couldn't be looked at, or isn't there to be.
    SKIPPED = "skipped"
    #: As it should be.
    OK = "ok"
    #: It works, and will hurt some day.
    WARNING = "warning"
    #: Jobs are lost, refused or not answered by it.
    PROBLEM = "problem"


_ORDER = tuple(Verdict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    #: What it is part of: ``broker``, ``queues``, ``catalogue``, ``models``, ``device`` …
    area: str
    #: What it is.
    name: str
    verdict: Verdict
    #: One line: what was seen.
    seen: str
    #: One line: what to do; empty when there is nothing to do.
    mend: str = ""

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def counted(count: int, thing: str) -> str:
    """So many of a thing, in words."""
    return f"{count} {thing}{'s' * (count != 1)}"


def worst(findings: Iterable[Finding]) -> Verdict:
    """The worst verdict there is."""
    return max((finding.verdict for finding in findings), key=_ORDER.index, default=Verdict.SKIPPED)
