"""What a lane knows of jobs that come too late for their deadlines."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from pipemill_worker.engine.work import Entry
from pipemill_worker.policy.batching import BatchLimits
from pipemill_worker.policy.deadlines import in_time


@dataclass(slots=True)
class Overload:
    """What the last batch told of jobs that would be late."""

    #: Jobs in the pool that gave way.
    gave_way: int = 0
    #: How long before its deadline a job must be ready for the next batch, in seconds; 0 while nobody is late.
    notice: float = 0.0
    #: When the batch will have ended, in seconds of the monotonic clock.
    busy_until: float = 0.0

    def in_time(
        self, pool: list[Entry], limits: BatchLimits, now: float, answered_in: Callable[[float], float]
    ) -> tuple[list[Entry], BatchLimits]:
        """The items that can be answered before their deadline, if any, and the limits of a pass that can.

        ``answered_in`` tells in how many seconds the answers of a pass of some cost are stored.
        """
        self.gave_way, self.notice, self.busy_until = 0, 0.0, 0.0
        if all(entry.work.job.expires is None for entry in pool):
            return pool, limits
        lefts = [
            math.inf if entry.work.started or entry.work.job.expires is None else entry.work.job.expires - now
            for entry in pool
        ]
        chosen, cost = in_time([entry.cost for entry in pool], lefts, limits.max_cost, answered_in)
        if len(chosen) == len(pool):
            return pool, limits
        waiting = [pool[index] for index in chosen]
        self.gave_way = len({entry.work.field for entry in pool} - {entry.work.field for entry in waiting})
        self.notice = answered_in(cost)
        return (waiting, replace(limits, max_cost=cost)) if waiting else (pool, limits)
