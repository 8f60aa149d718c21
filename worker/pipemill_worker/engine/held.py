"""The jobs that a lane holds, and how many bytes they have together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pipemill_worker.engine.work import Work

#: Jobs are leased ahead until they have so many bytes together, or as many as so many of the largest inputs.
HELD_BYTES: Final = 256 << 20
HELD_INPUTS: Final = 8


class Held(dict[str, Work]):
    """Jobs by their fields; whoever has its lane's lock changes it, by ``add`` and ``drop`` only."""

    def __init__(self, max_input_bytes: int):
        super().__init__()
        self._most = max(HELD_BYTES, HELD_INPUTS * max_input_bytes)
        self._bytes = 0

    @property
    def bytes_left(self) -> int:
        """How many bytes more may be held; one more job, whatever its size, while none is."""
        return max(self._most - self._bytes, 0)

    def add(self, works: Iterable[Work]) -> None:
        """Take jobs in hand."""
        for work in works:
            self[work.field] = work
            self._bytes += work.bytes

    def drop(self, work: Work) -> None:
        """Let a job go, if it is held."""
        if self.pop(work.field, None) is not None:
            self._bytes -= work.bytes
