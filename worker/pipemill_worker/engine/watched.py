"""What a thread is at that may not come back: what the watchdog looks at, and whom it blames."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pipemill_worker.engine.lane import Lane
from pipemill_worker.engine.work import Work
from pipemill_worker.seams import Item


@dataclass(frozen=True, slots=True, kw_only=True)
class Underway:
    """A stage that works on jobs at this moment."""

    #: ``forward``, ``preprocess`` or ``postprocess``.
    stage: str
    lane: Lane
    #: The jobs that it holds.
    works: Sequence[Work]
    #: The items of a forward pass: they tell when they get a step further.
    items: Sequence[Item] = ()
    #: Since when it runs, in seconds of the monotonic clock.
    since: float
    #: How long it should take, in seconds; 0 while nothing is known.
    predicted: float = 0.0

    @property
    def alive_at(self) -> float:
        """When it began, or last got a step further, as far as its items tell; in seconds of the monotonic clock."""
        return max((self.since, *(item.alive_at for item in self.items)))

    @property
    def told(self) -> str:
        """What it is, for people."""
        if self.items:
            return f"a forward pass of {len(self.items)} items on {self.lane.device}"
        return f"the {self.stage}ing of a job"


class Watched:
    """A loop in a thread of its own that the watchdog looks at."""

    #: What it is at; None between two.
    underway: Underway | None = None
    #: The thread of this loop, once it runs.
    thread_id: int | None = None

    def note_thread(self) -> None:
        """Tell which thread this is."""
        self.thread_id = threading.get_ident()

    @contextmanager
    def at(
        self, stage: str, lane: Lane, works: Sequence[Work], items: Sequence[Item] = (), predicted: float = 0.0
    ) -> Iterator[None]:
        """Tell the watchdog of a stage while it runs."""
        since = time.monotonic()
        self.underway = Underway(stage=stage, lane=lane, works=works, items=items, since=since, predicted=predicted)
        try:
            yield
        finally:
            self.underway = None
