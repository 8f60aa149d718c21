"""A queue's lists in memory: priorities with ageing, tenants by turns. What the scripts do, in plain Python."""

from __future__ import annotations

import sys
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from pipemill.protocol import message_bytes, message_tenant, names


@dataclass(slots=True)
class Waiting:
    """A job that waits."""

    raw: bytes
    deliveries: int = 0
    #: What it counts for while it waits.
    bytes: int = field(init=False)

    def __post_init__(self) -> None:
        self.bytes = message_bytes(self.raw)

    @property
    def cost(self) -> int:
        """What a turn with it costs."""
        return self.bytes or len(self.raw)

    def home(self, *, fair: bool) -> str:
        """The tenant whose list it belongs into; a job that was delivered before is looked for in the plain one."""
        return message_tenant(self.raw) if fair and not self.deliveries else ""


@dataclass(slots=True)
class Step:
    """The jobs of one priority step: a list for each tenant that has some, and whose turn it is.

    Turns are counted in what was taken: a tenant's next one comes when as much as its job costs went to the others.
    """

    lists: dict[str, deque[Waiting]] = field(default_factory=dict)
    turns: dict[str, float] = field(default_factory=dict)
    #: The turn of the last job taken.
    last: float = 0.0

    def add(self, tenant: str, job: Waiting, *, first: bool = False) -> None:
        """Put a job at the end of a tenant's list, or before all others."""
        there = self.lists.setdefault(tenant, deque())
        there.insert(0 if first else len(there), job)
        if tenant:
            self.turns.setdefault(tenant, self.last + job.cost)

    def next(self) -> str | None:
        """The tenant whose turn it is, if anybody waits."""
        if not any(self.lists):
            return "" if self.lists else None
        return min(sorted(self.lists), key=lambda tenant: self.turns.get(tenant, self.last))

    def settle(self) -> None:
        """Forget the turns when nobody but the tenant without a name is left."""
        if not any(self.lists):
            self.turns, self.last = {}, 0.0

    def pop(self, tenant: str) -> Waiting:
        """Take a tenant's next job. Who comes anew without a name is next, and pays now."""
        jobs = self.lists[tenant]
        job = jobs.popleft()
        turn = self.turns.pop(tenant, self.last + job.cost)
        self.last = max(self.last, turn)
        if jobs:
            self.turns[tenant] = turn + jobs[0].cost
        else:
            del self.lists[tenant]
        return job


class Lists:
    """All lists of one queue."""

    def __init__(self) -> None:
        self._steps = [Step() for _ in names.PRIORITY_STEPS]
        #: Since when a step waits although others are served, and how many jobs it is owed for that.
        self._passed: dict[int, float] = {}
        self._owed: dict[int, float] = {}

    def __iter__(self) -> Iterator[Waiting]:
        """The jobs that wait."""
        return (job for step in self._steps for jobs in step.lists.values() for job in jobs)

    def __len__(self) -> int:
        return sum(len(jobs) for step in self._steps for jobs in step.lists.values())

    @property
    def wakes(self) -> bool:
        """Whether a job is where idle workers wait for one."""
        return "" in self._steps[0].lists

    @property
    def bytes(self) -> int:
        """What all jobs that wait count for."""
        return sum(job.bytes for job in self)

    def by_step(self) -> dict[int, int]:
        """How many jobs wait, by priority step."""
        return {
            number: sum(map(len, step.lists.values()))
            for number, step in zip(names.PRIORITY_STEPS, self._steps, strict=True)
        }

    def by_tenant(self) -> dict[str, int]:
        """How many jobs wait in lists of their tenants' own."""
        counts: Counter[str] = Counter()
        for step in self._steps:
            counts.update({tenant: len(jobs) for tenant, jobs in step.lists.items() if tenant})
        return dict(counts)

    def of(self, tenant: str) -> tuple[int, int]:
        """A tenant's jobs and their bytes. Its only job may wait in the plain list."""
        jobs = [job for step in self._steps for job in step.lists.get(tenant, ())]
        first = self._steps[0].lists.get("", ())
        jobs += [job for job in list(first)[:1] if tenant and job.home(fair=True) == tenant]
        return len(jobs), sum(job.bytes for job in jobs)

    def sharing(self, index: int) -> int:
        """How many tenants share a step's turns."""
        return max(len(self._steps[index].lists), 1)

    def ahead(self, index: int, job: Waiting, depth: int, *, fair: bool) -> int:
        """How many jobs are taken until one that came last is, itself included, as far as can be told."""
        if not any(self._steps[index].lists):
            return depth
        tenant = job.home(fair=fair)
        its = sum(len(step.lists.get(tenant, ())) for step in self._steps)
        return min(depth, its * self.sharing(index))

    def add(self, index: int, job: Waiting, *, fair: bool) -> None:
        """Put a job into the list it belongs into; a tenant's only one into the plain list while that is empty."""
        step, tenant = self._steps[index], job.home(fair=fair)
        alone = index == 0 and not step.lists.keys() & {"", tenant}
        step.add("" if alone else tenant, job)

    def push(self, index: int, job: Waiting) -> None:
        """Put a job into the plain list, as any Celery client may."""
        self._steps[index].add("", job)

    def put_back(self, index: int, job: Waiting, *, fair: bool) -> None:
        """Put a job before all others of its list."""
        self._steps[index].add(job.home(fair=fair), job, first=True)

    def take(
        self, n: int, *, held: bool, now: float, ageing: float, most_bytes: int = sys.maxsize
    ) -> tuple[list[tuple[int, Waiting]], Ended]:
        """Take up to ``n`` jobs, each with the index of the step it is leased under; and what kept others out.

        The first may have more than ``most_bytes``; all together may not. A job that was delivered before is taken
        alone, first of all when nothing is held.
        """
        taking = _Taking(n, most_bytes, held=held)
        for index, step in enumerate(self._steps):
            if not held and not taking.full and "" in step.lists and step.lists[""][0].deliveries:
                taking.pick(step, "", index)
        owed: dict[int, float] = {}
        for index in range(1, len(self._steps)):
            if ageing and index in self._passed and now - self._passed[index] >= ageing * index:
                before = self._owed.get(index, 0.0)
                share = min(before + n / len(self._steps), n)
                owed[index] = before - taking.serve(self._steps[index], int(share), 0)
        in_order = [taking.serve(step, n, index) for index, step in enumerate(self._steps)]
        for index in range(1, len(self._steps)):
            if in_order[index] or not self._steps[index].lists:
                self._passed.pop(index, None)
                self._owed.pop(index, None)
            elif ageing and n > 0 and (n == len(taking.picks) or taking.by_bytes):
                self._passed.setdefault(index, now)
                if index in owed:
                    self._owed[index] = min(owed[index] + len(taking.picks) / len(self._steps), n)
        for step in self._steps:
            step.settle()
        return taking.picks, Ended(taking.blocked, taking.by_bytes)


class Ended(NamedTuple):
    """What kept jobs from being taken that were there."""

    #: One waits to be alone.
    blocked: bool
    #: They would have had too many bytes.
    by_bytes: bool


class _Taking:
    """What one take has chosen so far."""

    def __init__(self, n: int, most_bytes: int, *, held: bool):
        self.picks: list[tuple[int, Waiting]] = []
        self.blocked = self.by_bytes = False
        self.full = n <= 0
        self._n, self._bytes_left, self._held = n, most_bytes, held

    def pick(self, step: Step, tenant: str, index: int) -> None:
        """Take a tenant's next job, unless it has to be alone and others are held."""
        job = step.lists[tenant][0]
        if job.deliveries and (self._held or self.picks):
            self.blocked = self.full = True
            return
        self._bytes_left -= job.cost
        if self.picks and self._bytes_left < 0:
            self.by_bytes = self.full = True
            return
        self.picks.append((index, step.pop(tenant)))
        self.full = job.deliveries > 0 or len(self.picks) == self._n

    def serve(self, step: Step, most: int, index: int) -> int:
        """Take up to so many jobs of a step, by turns; how many."""
        before = len(self.picks)
        while not self.full and len(self.picks) - before < most and (tenant := step.next()) is not None:
            self.pick(step, tenant, index)
        return len(self.picks) - before
