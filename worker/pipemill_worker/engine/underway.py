"""What a thread is at that may not come back: what the watchdog looks at, and whom it blames."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from pipemill_worker.engine.lane import Lane
from pipemill_worker.engine.work import Entry, Work

T = TypeVar("T")


class Underway(Protocol):
    """A stage that works on jobs at this moment."""

    @property
    def lane(self) -> Lane:
        """Whose jobs they are."""
        ...

    @property
    def works(self) -> Sequence[Work]:
        """The jobs that it holds."""
        ...

    @property
    def stage(self) -> str:
        """Its name, as events have it."""
        ...

    @property
    def told(self) -> str:
        """What it is, for people."""
        ...

    @property
    def since(self) -> float:
        """Since when it runs, in seconds of the monotonic clock."""
        ...

    @property
    def alive_at(self) -> float:
        """When it began, or last got a step further, as far as it tells; in seconds of the monotonic clock."""
        ...

    @property
    def predicted(self) -> float:
        """How long it should take, in seconds; 0 while nothing is known."""
        ...


class Watched:
    """A loop in a thread of its own that the watchdog looks at."""

    #: What it is at; None between two jobs.
    underway: Underway | None = None
    #: The thread of this loop, once it runs.
    thread_id: int | None = None

    def note_thread(self) -> None:
        """Tell which thread this is."""
        self.thread_id = threading.get_ident()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """A forward pass that runs."""

    lane: Lane
    batch: Sequence[Entry]
    since: float
    predicted: float
    stage: str = "forward"

    @property
    def works(self) -> Sequence[Work]:
        """The jobs that it holds; one that has several items in it as often."""
        return [entry.work for entry in self.batch]

    @property
    def told(self) -> str:
        """How many items it has, and where it runs."""
        return f"a forward pass of {len(self.batch)} items on {self.lane.device}"

    @property
    def alive_at(self) -> float:
        """As of its items, the one that got on last."""
        return max(self.since, *(entry.item.alive_at for entry in self.batch))


@dataclass(frozen=True, slots=True)
class Step:
    """One job's preprocessing or postprocessing."""

    lane: Lane
    work: Work
    stage: str
    since: float
    predicted: float = 0.0

    @property
    def works(self) -> Sequence[Work]:
        """The job."""
        return [self.work]

    @property
    def told(self) -> str:
        """What is done."""
        return f"the {self.stage}ing of a job"

    @property
    def alive_at(self) -> float:
        """It tells of no steps."""
        return self.since


def watched(who: Watched, stage: str, lane: Lane, work: Work, do: Callable[[], T]) -> T:
    """Do something for a job while the watchdog looks."""
    who.underway = Step(lane, work, stage, time.monotonic())
    try:
        return do()
    finally:
        who.underway = None
