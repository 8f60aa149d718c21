"""Jobs without end, faults on top of them, and the account at the end."""

from __future__ import annotations

import signal
import time
from collections import Counter, deque
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import redis

from pipemill import Client
from pipemill.errors import BrokerError
from pipemill.protocol import names
from tests.e2e.rig import Serve, pid_of
from tests.faults.accounting import Account, settle
from tests.faults.durable import DurableBroker
from tests.faults.fleet import Fleet
from tests.faults.material import Chunk, Material, catalogue
from tests.faults.schedule import Fault, Kind, allowed, schedule
from tests.faults.watch import Watcher, leftovers, results

#: Pause between two rounds, in seconds; at 5,000 jobs a second some 100 end meanwhile.
ROUND_SECONDS: Final = 0.02
#: Time between two looks for results that were published while nobody heard, in seconds.
LOOK_SECONDS: Final = 1.0
#: How long nothing may end before the run is given up, in seconds: longer than any start, lease and timeout together.
STALL_SECONDS: Final = 180.0
#: How long a paused broker answers nobody, in milliseconds: longer than most commands take, shorter than they may.
PAUSE_MS: Final = 1_500


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One run."""

    jobs: int
    counts: Mapping[Kind, int]
    seed: int = 20
    #: Worker processes at a time.
    workers: int = 2
    #: Jobs on their way at a time.
    backlog: int = 500
    lease_seconds: float = 5.0
    #: Over how many seconds the jobs are spread; 0 submits them as they are answered.
    spread_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Report:
    """What came of a run."""

    account: Account
    #: How often each fault came.
    faults: Mapping[str, int]
    #: How workers ended, and the logs of those that ended otherwise than they were told.
    exits: Mapping[str, int]
    complaints: list[str]
    #: The broker's own totals, over all queues.
    totals: Mapping[str, int]
    seconds: float

    @property
    def well(self) -> bool:
        """Whether the account balances, every worker ended as it was told, and every job was counted once."""
        counted = self.totals.get("succeeded", 0) == self.totals.get("enqueued", 0) == self.account.submitted
        return self.account.balanced and not self.complaints and counted

    def figures(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "well": self.well,
            **self.account.figures(),
            "faults": dict(self.faults),
            "exits": dict(self.exits),
            "totals": dict(self.totals),
            "seconds": round(self.seconds, 1),
            **({"complaints": self.complaints} if self.complaints else {}),
        }


@dataclass(slots=True)
class _Progress:
    """Where a run stands."""

    expected: dict[str, Any] = field(default_factory=dict)
    #: Submitted, and no result was seen.
    open: dict[str, None] = field(default_factory=dict)
    #: Jobs that are submitted until it is known that they were accepted.
    unsure: Chunk | None = None
    faults: Counter[str] = field(default_factory=Counter)
    looked: float = 0.0
    moved: float = 0.0

    @property
    def ended(self) -> int:
        return len(self.expected) - len(self.open)


class Campaign:
    """Submits jobs, brings faults on workers and broker, and settles. ``run`` it once."""

    def __init__(self, serve: Serve, broker: DurableBroker, settings: Settings, material: Material):
        serve.broker = broker.url
        self._broker = broker
        self._settings = settings
        self._material = material
        text = catalogue(material.queues, cache=serve.folder / "measured", lease_seconds=settings.lease_seconds)
        self._catalogue = serve.catalogue(text)
        self._fleet = Fleet(serve, self._catalogue, settings.workers)
        self._pending = deque(schedule(settings.seed, settings.jobs, settings.counts))
        self._now = _Progress()

    def run(self) -> Report:
        """All of it; raises nothing for what the system does, which stands in the report."""
        started = time.monotonic()
        self._now.moved = started
        with ExitStack() as stack:
            self._client = stack.enter_context(Client(self._broker.url, catalogue=self._catalogue))
            self._admin = stack.enter_context(self._broker.admin())
            self._watcher = stack.enter_context(Watcher(self._broker.url))
            while self._goes_on():
                self._fleet.tend()
                # The broker is away, as it should be at times: whatever it was, the next round does it again.
                with suppress(BrokerError, redis.RedisError):
                    self._round(time.monotonic() - started)
                time.sleep(ROUND_SECONDS)
            self._fleet.stop()
            totals = self._totals()
            stored = results(self._admin, list(self._now.expected))
            left = leftovers(self._admin, self._material.queues, list(self._now.expected))
        return Report(
            account=settle(self._now.expected, self._watcher.seen, stored, left),
            faults=self._now.faults,
            exits=self._fleet.exits,
            complaints=self._fleet.complaints,
            totals=totals,
            seconds=time.monotonic() - started,
        )

    def _goes_on(self) -> bool:
        """Until every job has ended and no dead worker has a lease any more; or until nothing moves."""
        over = self._now.ended == self._settings.jobs and not self._pending and not self._dead_owners()
        return not over and time.monotonic() - self._now.moved < STALL_SECONDS

    def _round(self, passed: float) -> None:
        spread = self._settings.spread_seconds
        self._feed(min(passed / spread, 1.0) if spread else 1.0)
        self._look()
        while self._pending and self._pending[0].at <= self._now.ended and self._bring(self._pending[0]):
            self._pending.popleft()

    def _feed(self, paced: float) -> None:
        """Submit what may be on its way; what may not have been accepted is submitted again, under the same keys."""
        now, jobs = self._now, self._settings.jobs
        may = allowed(jobs=jobs, ended=now.ended, backlog=self._settings.backlog, paced=paced)
        while now.unsure or len(now.expected) < may:
            chunk = now.unsure = now.unsure or self._material.chunk(may - len(now.expected))
            handles = self._client.submit_many(chunk.queue, chunk.inputs, idempotency_keys=chunk.keys)
            now.unsure = None
            for handle, answer in zip(handles, chunk.answers, strict=True):
                now.expected[handle.id] = answer
                now.open[handle.id] = None

    def _look(self) -> None:
        """Notice what has ended."""
        now, moment = self._now, time.monotonic()
        if moment - now.looked > LOOK_SECONDS:
            now.looked = moment
            self._watcher.look(self._admin, list(now.open))
        ended = self._watcher.heard(now.open)
        for job_id in ended:
            del now.open[job_id]
        if ended:
            now.moved = moment

    def _bring(self, fault: Fault) -> bool:
        """Bring a fault; False if there is nobody yet whom it could meet."""
        if fault.kind in {Kind.KILL, Kind.TERM}:
            serving = self._fleet.serving(self._client)
            if not serving:
                return False
            victim = serving[fault.victim(len(serving))]
            self._fleet.tell(victim, signal.SIGTERM if fault.kind is Kind.TERM else signal.SIGKILL)
        elif fault.kind is Kind.RESTART:
            self._broker.restart()
        elif fault.kind is Kind.CONNECTIONS:
            self._admin.client_kill_filter(_type="normal")
        elif fault.kind is Kind.FLUSH:
            self._admin.script_flush()
        else:
            self._admin.execute_command("CLIENT", "PAUSE", PAUSE_MS, "ALL")
        self._now.faults[fault.kind.value] += 1
        return True

    def _owners(self) -> set[str]:
        members: Any = self._admin.zrange(names.LEASES_KEY, 0, -1)
        return {member.decode() for member in members}

    def _dead_owners(self) -> set[str]:
        living = self._fleet.pids()
        return {owner for owner in self._owners() if pid_of(owner) not in living}

    def _totals(self) -> dict[str, int]:
        totals: Counter[str] = Counter()
        for report in self._client.queues():
            totals.update(report.totals)
        return dict(totals)
