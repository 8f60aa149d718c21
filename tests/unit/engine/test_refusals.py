"""A broker that refuses what isn't needed to work: it is out of memory."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any

import pytest

from pipemill.errors import BrokerRefused
from pipemill.store.base import QueueInfo, Renewal
from pipemill.store.memory import MemoryJobStore
from pipemill_worker.engine import EngineSettings, Hooks
from pipemill_worker.engine.keeper import Heartbeat
from pipemill_worker.engine.wiring import Gate, Wiring
from tests.helpers import until
from tests.unit.engine.rig import QUEUE, Rig


class Refusing(MemoryJobStore):
    """Counts renewals; refuses reports and announcements while ``full`` is set."""

    def __init__(self, rig: Rig, queue: str = QUEUE):
        super().__init__(rig.broker, queue, lease_seconds=5.0)
        self.full, self.closed = threading.Event(), threading.Event()
        self.renewals = 0
        self.announced = 0
        self.told: list[Mapping[str, Any]] = []

    def _refuse(self) -> None:
        if self.full.is_set():
            raise BrokerRefused("the broker refused a command: out of memory")

    def announce(self, info: QueueInfo) -> None:
        self._refuse()
        super().announce(info)
        self.announced += 1

    def renew(self, running: Mapping[str, str]) -> Renewal:
        if self.closed.is_set():
            raise BrokerRefused("the broker refused a command: no permission")
        self.renewals += 1
        return super().renew(running)

    def report(self, facts: Mapping[str, Any]) -> None:
        self._refuse()
        super().report(facts)
        self.told.append(facts)


@pytest.fixture
def rig() -> Rig:
    """An empty rig."""
    return Rig()


def two_lanes(rig: Rig) -> tuple[list[Refusing], Wiring, threading.Thread]:
    """The stores of two lanes, what wires them, and the thread of their heartbeat."""
    stores = [Refusing(rig), Refusing(rig, "other")]
    lanes = [rig.lane(store=store, name=name) for store, name in zip(stores, (QUEUE, "other"), strict=True)]
    wiring = Wiring(settings=EngineSettings(lease_seconds=0.03), hooks=Hooks(), gate=Gate(lanes))
    return stores, wiring, threading.Thread(target=Heartbeat(lanes, wiring).run)


def test_a_refused_report_keeps_no_lease_from_being_renewed(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever a lane may not report, all lanes' leases are renewed; it is logged once, and reported when it may be."""
    stores, wiring, beating = two_lanes(rig)
    stores[0].full.set()
    with caplog.at_level(logging.WARNING):
        beating.start()
        until(lambda: min(store.renewals for store in stores) > 3, "both are renewed, again and again")
        stores[0].full.clear()
        until(lambda: stores[0].told, "it is reported")
        wiring.closed.set()
        beating.join()
    assert stores[1].told
    refusals = [record for record in caplog.records if record.event == "broker_unavailable"]
    assert [record.getMessage().partition(": the")[0] for record in refusals] == [f"queue {QUEUE}: report"]


def test_a_refused_renewal_keeps_no_other_lease_from_being_renewed(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """A lane whose queue the broker refuses is told once, the others go on, and the worker isn't ready meanwhile."""
    stores, wiring, beating = two_lanes(rig)
    stores[0].closed.set()
    with caplog.at_level(logging.WARNING):
        beating.start()
        until(lambda: stores[1].renewals > 3, "the other is renewed, again and again")
        assert (stores[0].renewals, wiring.pulse.renewed_at) == (0, 0.0)
        stores[0].closed.clear()
        until(lambda: wiring.pulse.renewed_at, "all are renewed")
        wiring.closed.set()
        beating.join()
    events = [record.event for record in caplog.records if "renew" in record.getMessage()]
    assert events == ["broker_unavailable", "broker_back"]


def test_a_report_tells_the_brokers_time(rig: Rig) -> None:
    """The age of a report doesn't depend on the worker's own clock."""
    store = Refusing(rig)
    rig.broker.advance(1_000_000.0)
    with rig.running(rig.lane(store=store)):
        until(lambda: store.told, "it reports")
        assert abs(store.told[-1]["at"] - rig.broker.now()) < 1_000


def test_a_refused_announcement_holds_up_nothing(rig: Rig) -> None:
    """Jobs are answered by a lane whose queue can't be announced, which is made up for when it can be."""
    store = Refusing(rig)
    store.full.set()
    with rig.running(rig.lane(store=store)):
        assert rig.answers(rig.put("a", "b")) == ["A", "B"]
        assert store.announced == 0
        store.full.clear()
        until(lambda: store.announced, "the queue is announced")
