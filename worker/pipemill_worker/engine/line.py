"""Jobs in line to be prepared: tenants take turns there, too."""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Final

from pipemill_worker.engine.work import Work
from pipemill_worker.policy.turns import Turns

#: Jobs prepared in one go: as long as that takes, another tenant's job waits.
PART: Final = 8


class Line:
    """Parts of what was taken, each one tenant's; those of one tenant in their order. Thread-safe."""

    def __init__(self) -> None:
        self._parts: queue.PriorityQueue[tuple[float, int, list[Work] | None]] = queue.PriorityQueue()
        self._numbers = count()
        self._turns = Turns()
        self._lock = threading.Lock()

    def put(self, works: Sequence[Work], threads: int = 1, *, fair: bool = True) -> None:
        """Line up jobs for so many threads; jobs that aren't to take turns keep their order."""
        for tenant, part in _parts(works, threads, fair=fair):
            with self._lock:
                turn = self._turns.give(tenant, float(sum(work.bytes for work in part)))
            self._parts.put((turn, next(self._numbers), part))

    def close(self) -> None:
        """Let one thread that asks for jobs know, once none are left, that no more come."""
        self._parts.put((math.inf, next(self._numbers), None))

    def get(self) -> list[Work] | None:
        """Wait for the jobs whose turn it is; None when no more come."""
        turn, _, works = self._parts.get()
        if works is not None:
            with self._lock:
                self._turns.note_taken(turn)
        return works

    def empty(self) -> bool:
        """Whether nobody is in line."""
        return self._parts.empty()


def _parts(works: Sequence[Work], threads: int, *, fair: bool) -> Iterator[tuple[str, list[Work]]]:
    of_tenants: dict[str, list[Work]] = {}
    for work in works:
        of_tenants.setdefault(work.tenant if fair else "", []).append(work)
    for tenant, mine in of_tenants.items():
        size = min(-(-len(mine) // threads), PART)
        for start in range(0, len(mine), size):
            yield tenant, mine[start : start + size]
