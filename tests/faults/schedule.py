"""Which fault comes when: drawn from a seed, told by progress, so that every fault meets work."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

#: Between which parts of all jobs faults come: work has begun, and some is left after the last.
SPAN: Final = (0.05, 0.9)


class Kind(StrEnum):
    """What is done to a running system."""

    #: kill -9 of a worker.
    KILL = "kill"
    #: SIGTERM to a worker that serves.
    TERM = "term"
    #: CLIENT KILL of every connection but the one that asks.
    CONNECTIONS = "connections"
    #: kill -9 of the broker, and a start on its append-only file.
    RESTART = "restart"
    #: SCRIPT FLUSH.
    FLUSH = "flush"
    #: CLIENT PAUSE: the broker answers nobody for a while.
    PAUSE = "pause"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault to come."""

    #: How many jobs have ended when it comes.
    at: int
    kind: Kind
    #: From 0 to below 1: whom it meets, of those there are.
    lot: float

    def victim(self, candidates: int) -> int:
        """The index of the one whom it meets."""
        return int(self.lot * candidates)


def schedule(seed: int, jobs: int, counts: Mapping[Kind, int]) -> list[Fault]:
    """So many faults of each kind, in the order in which they come; the same for the same seed."""
    rng = random.Random(seed)
    kinds = [kind for kind in sorted(counts) for _ in range(counts[kind])]
    rng.shuffle(kinds)
    first, last = (int(jobs * part) for part in SPAN)
    moments = sorted(rng.randint(first, last) for _ in kinds)
    return [Fault(at=at, kind=kind, lot=rng.random()) for at, kind in zip(moments, kinds, strict=True)]


def allowed(*, jobs: int, ended: int, backlog: int, paced: float = 1.0) -> int:
    """How many jobs may have been submitted by now: enough that every fault meets some.

    ``backlog`` is how many may be on their way; ``paced`` is the part of the run that may have passed by now, where it
    is to last a given time.
    """
    return min(jobs, ended + backlog, int(jobs * paced))
