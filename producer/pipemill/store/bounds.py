"""Which bound keeps a job out of a queue. Pure; what the enqueue script does, in plain Python."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipemill.store.base import QueueInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A bound that was met."""

    #: As ``QueueInfo`` calls it.
    name: str
    limit: int
    #: What stands under it, in its unit and in jobs.
    standing: int
    standing_jobs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """What waits where a job is to be accepted."""

    #: Jobs that wait, with and without those parked.
    depth: int
    jobs: int
    bytes: int
    tenant_jobs: int
    tenant_bytes: int
    #: Share of the broker's memory that is in use.
    memory_share: float


def bound_met(info: QueueInfo, crowd: Crowd, more: int) -> Bound | None:
    """The bound that keeps a job of so many bytes out, if any. What is empty takes any job, however large."""
    if crowd.depth >= info.max_depth:
        return Bound(name="max_depth", limit=info.max_depth, standing=crowd.depth, standing_jobs=crowd.depth)
    if info.max_bytes is not None and 0 < crowd.bytes > info.max_bytes - more:
        return Bound(name="max_bytes", limit=info.max_bytes, standing=crowd.bytes, standing_jobs=crowd.jobs)
    jobs, size, most = crowd.tenant_jobs, crowd.tenant_bytes, info.max_tenant_depth
    if info.fair and most is not None and jobs >= most:
        return Bound(name="max_tenant_depth", limit=most, standing=jobs, standing_jobs=jobs)
    most = info.max_tenant_bytes
    if info.fair and most is not None and 0 < size > most - more:
        return Bound(name="max_tenant_bytes", limit=most, standing=size, standing_jobs=jobs)
    if crowd.memory_share >= info.max_memory_share:
        limit, used = math.floor(info.max_memory_share * 100), math.floor(crowd.memory_share * 100)
        return Bound(name="max_memory_share", limit=limit, standing=used, standing_jobs=0)
    return None
