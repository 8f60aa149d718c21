"""The cores that this process may keep busy: what its affinity allows, and the CPU quota of its control group."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from pipemill_worker.groups import MEMBERSHIP, MOUNT, groups

#: Where Linux says which cores are neighbours.
_TOPOLOGY: Final = Path("/sys/devices/system/cpu")
#: The quota's period when ``cpu.max`` names none, in microseconds; Linux's own default.
_PERIOD_MICROSECONDS: Final = 100_000


def allowed_cores() -> tuple[int, ...]:
    """The cores on which this process may run, by number; all of them where the system knows no affinity."""
    if sys.platform == "linux":
        cores = os.sched_getaffinity(0)
    else:
        cores = set(range(os.cpu_count() or 1))
    return tuple(sorted(cores))


def usable_cores() -> int:
    """How many cores this process may keep busy at once."""
    return usable_count(len(allowed_cores()), cpu_quota())


def usable_count(cores: int, quota: float | None) -> int:
    """How many threads may compute at once; whole cores only.

    A thread that is stopped when the quota is used up holds up all others of its forward pass; what is over a whole
    core is for the threads that tokenize and talk to the broker.
    """
    return cores if quota is None else max(1, min(cores, math.floor(quota)))


def cpu_quota(membership: Path = MEMBERSHIP, mount: Path = MOUNT) -> float | None:
    """The cores' worth of time that this process's control groups, v1 or v2, give it; ``None`` is no bound."""
    found = map(_quota_of, groups("cpu", membership, mount))
    return min((quota for quota in found if quota is not None), default=None)


def _quota_of(folder: Path) -> float | None:
    for parse, names in ((parse_v2, ("cpu.max",)), (parse_v1, ("cpu.cfs_quota_us", "cpu.cfs_period_us"))):
        try:
            return parse(*((folder / name).read_text("utf-8") for name in names))
        except (OSError, ValueError):  # not there, or not as Linux writes it: no bound that we know of
            continue
    return None


def parse_v2(text: str) -> float | None:
    """The quota in ``cpu.max``, in cores; ``None`` is no bound.

    Raises
    ------
    ValueError
        When the text isn't of that form.

    """
    quota, _, period = text.strip().partition(" ")
    return None if quota == "max" else int(quota) / (int(period or _PERIOD_MICROSECONDS) or _PERIOD_MICROSECONDS)


def parse_v1(quota: str, period: str) -> float | None:
    """The quota in ``cpu.cfs_quota_us`` and ``cpu.cfs_period_us``, in cores; ``None`` is no bound.

    Raises
    ------
    ValueError
        When a text is no number.

    """
    return None if int(quota) <= 0 else int(quota) / (int(period) or _PERIOD_MICROSECONDS)


def core_place(core: int, topology: Path = _TOPOLOGY) -> tuple[int, int]:
    """Where a core is: its socket, and the first of the logical cores that share its hardware."""
    folder = topology / f"cpu{core}" / "topology"
    try:
        socket = int((folder / "physical_package_id").read_text("utf-8"))
        siblings = re.match(r"\d+", (folder / "thread_siblings_list").read_text("utf-8"))
    except (OSError, ValueError):  # not told: each core is taken for one of its own
        return 0, core
    return socket, int(siblings[0]) if siblings else core


def neighbours_together(cores: Iterable[int], place: Callable[[int], tuple[int, int]] = core_place) -> tuple[int, ...]:
    """The cores in such an order that a cut parts sockets first, and never a core from its hyper-thread in vain."""
    return tuple(sorted(cores, key=lambda core: (*place(core), core)))
