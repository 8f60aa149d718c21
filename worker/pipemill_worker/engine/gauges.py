"""What a lane counts: for people, for producers' estimates, and for its own policy. The lane's lock guards it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from pipemill_worker.policy.batching import padded_cost

#: Weight of the last second in the rate of jobs ended and in the busy share; of the last batch in the mean lag.
RATE_WEIGHT: Final = 0.3
#: Weight of the last job in the mean cost of an item and in the mean number of a job's items.
JOB_WEIGHT: Final = 0.05


class Gauges:
    """Counters since the start, and means that follow."""

    def __init__(self) -> None:
        #: Forward passes by their number of items.
        self.batch_sizes: Counter[int] = Counter()
        #: Time in forward passes, in seconds.
        self.forward_seconds = 0.0
        #: Cost of all items that ran, and what it was with padding: tokens for text.
        self.cost = self.padded_cost = 0
        self.ended_jobs = 0
        #: Jobs that weren't signed as the queue asks.
        self.refused_signatures = 0
        #: Jobs ended a second.
        self.rate = 0.0
        #: Share of the last seconds in which the lane's forward pass ran.
        self.busy = 0.0
        #: Means over jobs: an item's cost, a job's items.
        self.item_cost = self.items_per_job = 1.0
        #: Mean time of preparing a job, in seconds.
        self.prepare_seconds = 0.0
        #: Mean time from the end of a job's forward pass until its answer is stored, in seconds.
        self.lag_seconds = 0.0
        self._seen = False
        self._before = (time.monotonic(), 0, 0.0)

    def note_prepared(self, costs: Sequence[int], seconds: float) -> None:
        """A job was prepared: it has items of these costs."""
        weight = JOB_WEIGHT if self._seen else 1.0
        self._seen = True
        self.items_per_job += weight * (len(costs) - self.items_per_job)
        self.item_cost += weight * (sum(costs) / len(costs) - self.item_cost)
        self.prepare_seconds += weight * (seconds - self.prepare_seconds)

    def note_ended(self, lags: Sequence[float]) -> None:
        """Jobs ended; those that ran, so long after their forward pass, in seconds."""
        if lags:
            self.lag_seconds += RATE_WEIGHT * (sum(lags) / len(lags) - self.lag_seconds)

    def note_forward(self, costs: Sequence[int], seconds: float, *, packed: bool) -> None:
        """A forward pass ran over items of these costs."""
        self.batch_sizes[len(costs)] += 1
        self.forward_seconds += seconds
        self.cost += sum(costs)
        self.padded_cost += padded_cost(costs, packed=packed)

    def note_step(self, items: int, ended: Sequence[int], seconds: float) -> None:
        """A step over so many items ran, and items of these costs ended with it."""
        self.batch_sizes[items] += 1
        self.forward_seconds += seconds
        self.cost += sum(ended)
        self.padded_cost += sum(ended)

    def tick(self) -> None:
        """Follow the rates; called about once a second."""
        since, ended, forward = self._before
        now = time.monotonic()
        passed = max(now - since, 1e-3)
        self.rate += RATE_WEIGHT * ((self.ended_jobs - ended) / passed - self.rate)
        self.busy += RATE_WEIGHT * (min((self.forward_seconds - forward) / passed, 1.0) - self.busy)
        self._before = (now, self.ended_jobs, self.forward_seconds)

    def facts(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "ended": self.ended_jobs,
            "refused_signatures": self.refused_signatures,
            "rate": round(self.rate, 3),
            "busy": round(self.busy, 3),
            "batch_sizes": {str(size): count for size, count in sorted(self.batch_sizes.items())},
            "forward_seconds": round(self.forward_seconds, 6),
            "cost": self.cost,
            "padded_cost": self.padded_cost,
        }
