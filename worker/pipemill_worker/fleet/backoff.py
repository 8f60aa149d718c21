"""When a worker process that died is started again, and when that is no use: pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

#: Wait before a first restart, in seconds: most deaths are singular, and jobs are waiting.
FIRST_SECONDS: Final = 1.0
#: Longest wait, in seconds: a machine that recovered is noticed within a minute.
LONGEST_SECONDS: Final = 60.0
#: A process that lived this long in seconds died of something new: the waits start anew.
LASTING_SECONDS: Final = 300.0
#: Deaths in a row without ever serving, after which a process is given up: it has had 15 seconds of waits by then.
MOST_DEATHS: Final = 5


@dataclass(frozen=True, kw_only=True)
class Deaths:
    """How one process fared so far."""

    #: Since it last lived long.
    in_a_row: int = 0
    #: Since it last served.
    before_ready: int = 0

    def after(self, *, lived_seconds: float, ready: bool) -> Deaths:
        """One death more; ``ready`` says whether the process served before it died."""
        return Deaths(
            in_a_row=1 if lived_seconds >= LASTING_SECONDS else self.in_a_row + 1,
            before_ready=0 if ready else self.before_ready + 1,
        )

    def served(self) -> Deaths:
        """It serves now."""
        return replace(self, before_ready=0)

    @property
    def wait_seconds(self) -> float:
        """How long to wait before the next start: doubling, bounded."""
        return min(FIRST_SECONDS * 2.0 ** min(self.in_a_row - 1, 16), LONGEST_SECONDS)


def hopeless(deaths: Iterable[Deaths]) -> bool:
    """Whether none of the processes that were started comes to serve any more."""
    before_ready = [each.before_ready for each in deaths]
    return bool(before_ready) and min(before_ready) >= MOST_DEATHS
