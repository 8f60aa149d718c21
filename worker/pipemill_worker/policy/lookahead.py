"""How many jobs a worker leases ahead of the device.

Deep enough that the next batches are at hand and that lengths which fit are among them, shallow enough to leave work to
other workers: what one holds, no other can run.
"""

from __future__ import annotations

from typing import Final

#: Batches in hand where any items fit together: what runs, what is ready, and half of one that is being prepared.
BATCHES: Final = 2.5
#: Batches in hand where only like items fit well: Infinity sorts over as many (rivals' study, §3).
SORTED_BATCHES: Final = 8
#: Most work in hand beyond those batches, in seconds: what a newly started worker may find taken.
SECONDS: Final = 0.5
#: The same beside light tenants: what is taken in one go delays who comes next.
SHARED_SECONDS: Final = 0.1
#: Most work in hand for the sake of like lengths, in seconds.
SORTED_SECONDS: Final = 2.0


def jobs_ahead(batch_jobs: float, jobs_per_second: float, most: int, *, any_fit: bool, shared: bool = False) -> int:
    """Jobs to hold: from ``batch_jobs`` of a full batch and the rate at which they go; at least 2, at most ``most``."""
    least = BATCHES * batch_jobs
    if shared:
        wanted = max(least, jobs_per_second * SHARED_SECONDS)
    else:
        deep = least if any_fit else SORTED_BATCHES * batch_jobs
        bound = jobs_per_second * (SECONDS if any_fit else SORTED_SECONDS)
        wanted = max(least, min(deep, bound), jobs_per_second * SECONDS)
    return max(2, min(round(wanted), most))
