"""When an engine is live and when it is ready."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from pipemill.store.memory import MemoryJobStore
from pipemill_worker.engine import health
from pipemill_worker.engine.health import SILENT_SECONDS, STARTING, Signs, judge
from tests.helpers import until
from tests.unit.engine.rig import QUEUE, Outage, Rig

WELL = Signs(
    started=True,
    stopping=False,
    closed=False,
    failure=None,
    ended=(),
    tried_seconds=0.5,
    renewed_seconds=0.5,
    lease_seconds=15.0,
)


@pytest.fixture
def rig() -> Rig:
    """A fresh broker."""
    return Rig()


def test_an_engine_that_works_is_live_and_ready() -> None:
    """Nothing is said against it."""
    found = judge(WELL)
    assert (found.live, found.ready, found.reasons) == (True, True, ())


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"failure": "DeviceLost"}, "engine: it failed (DeviceLost)"),
        ({"failure": "DeviceLost", "stopping": True, "closed": True}, "engine:"),
        ({"ended": ("intake-words",)}, "thread: intake-words"),
        ({"tried_seconds": SILENT_SECONDS + 1}, "heartbeat:"),
    ],
)
def test_what_only_a_restart_mends_is_not_live(changed: dict[str, object], word: str) -> None:
    """A dead thread, a lost device and a heartbeat that hangs need a new process."""
    found = judge(replace(WELL, **changed))  # type: ignore[arg-type]  # the names are those of fields
    assert (found.live, found.ready) == (False, False)
    assert found.reasons[0].startswith(word)


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"started": False, "tried_seconds": 1e6, "renewed_seconds": None}, "starting:"),
        ({"stopping": True, "ended": ("intake-words",)}, "draining:"),
        ({"stopping": True, "closed": True, "tried_seconds": 1e6}, "draining:"),
        ({"renewed_seconds": None}, "broker: it has not answered yet"),
        ({"renewed_seconds": 11.0}, "broker: it has not answered for 11 s"),
        ({"renewed_seconds": 3.0, "lease_seconds": 2.0}, "broker:"),
    ],
)
def test_what_passes_is_live_and_not_ready(changed: dict[str, object], word: str) -> None:
    """A start, a drain and a broker that is away are waited for."""
    found = judge(replace(WELL, **changed))  # type: ignore[arg-type]  # as above
    assert (found.live, found.ready) == (True, False)
    assert found.reasons[0].startswith(word)


def test_an_engine_through_its_life(rig: Rig) -> None:
    """Starting before its threads run, ready once the broker has answered, draining at the end; live all along."""
    seen = []
    with rig.running() as engine:
        until(lambda: engine.health().ready, "the engine is ready")
        seen.append(engine.health())
    seen.append(engine.health())
    assert [each.live for each in seen] == [True, True]
    assert seen[0].reasons == ()
    assert seen[1].reasons[0].startswith("draining:")


def test_an_engine_that_was_not_started_is_starting(rig: Rig) -> None:
    """An engine whose models are loaded takes no jobs before it is started."""
    with rig.running() as engine:
        fresh = type(engine)([rig.lane()])
        assert fresh.health() == STARTING


def test_a_broker_that_is_away_passes(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the broker is silent the engine is live and not ready, and it is ready again after that."""
    monkeypatch.setattr(health, "BROKER_SECONDS", 2.0)
    store = Outage(MemoryJobStore(rig.broker, QUEUE, lease_seconds=5.0))
    with rig.running(rig.lane(store=store)) as engine:  # type: ignore[arg-type]  # it passes everything on
        until(lambda: engine.health().ready, "the engine is ready")
        store.down.set()
        until(lambda: not engine.health().ready, "the broker is missed")
        found = engine.health()
        assert found.live
        assert found.reasons[0].startswith("broker:")
        store.down.clear()
        until(lambda: engine.health().ready, "the broker is back")


def test_a_lost_device_is_not_live(rig: Rig) -> None:
    """When the device is gone only a new process helps, and that stays so while jobs are given back."""
    rig.runner.lost = {"fatal"}
    with rig.running() as engine:
        rig.put("fatal")
        until(lambda: rig.hooks.failures, "the engine fails")
        assert not engine.health().live
    assert "DeviceLost" in engine.health().reasons[0]


def test_the_look_takes_no_lock(rig: Rig) -> None:
    """A thread that hangs while it holds a lane's lock doesn't keep anybody from asking."""
    lane = rig.lane()
    with rig.running(lane) as engine:
        until(lambda: engine.health().ready, "the engine is ready")
        answered = threading.Event()

        def ask() -> None:
            engine.health()
            answered.set()

        with lane.changed:
            threading.Thread(target=ask, daemon=True).start()
            until(answered.is_set, "the look comes back")
