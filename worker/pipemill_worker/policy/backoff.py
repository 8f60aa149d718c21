"""How long to wait before the broker is tried again."""

from __future__ import annotations

from typing import Final

#: First wait, in seconds: a restart of the broker is often over by then.
FIRST_SECONDS: Final = 0.1
#: Longest wait, in seconds: a broker that is back is noticed soon.
LONGEST_SECONDS: Final = 2.0


def backoff_seconds(attempt: int) -> float:
    """How long to wait after the ``attempt``-th failure in a row (the first is 1): doubling, bounded."""
    return min(FIRST_SECONDS * 2.0 ** min(attempt - 1, 16), LONGEST_SECONDS)
