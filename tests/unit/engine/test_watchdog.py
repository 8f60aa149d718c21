"""A forward pass that doesn't come back takes its process, and nobody else, with it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

from pipemill.protocol import message_id
from pipemill_worker.engine import Engine, EngineSettings
from pipemill_worker.seams import Item
from tests.helpers import until
from tests.unit.engine.rig import QUEUE, Rig, Runner

#: So short that a test needn't wait, so long that a busy machine isn't taken for a stuck one.
STUCK = EngineSettings(lease_seconds=5.0, drain_seconds=3_600.0, stuck_seconds=1.0)


@pytest.fixture
def rig() -> Rig:
    """A fresh broker."""
    return Rig()


def test_a_stuck_pass_is_told_and_blamed_alone(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """The log has its stack and jobs; a drain with an hour of time doesn't wait for it, and blames none that waited."""
    rig.runner.go.clear()
    (culprit,) = rig.put("culprit")
    other = rig.lane(Runner(), name="other")
    rig.producer.declare(other.info)
    engine = Engine([rig.lane(), other], STUCK, rig.hooks)
    engine.start()
    with caplog.at_level(logging.CRITICAL, "pipemill.engine"):
        until(lambda: rig.runner.batches, "it runs")
        waiting = rig.put("waiting", "too")
        until(lambda: len(engine.works()) == 3, "all are held")
        until(lambda: rig.hooks.failures, "the host is told")
    assert (engine.stuck, engine.alive) == (True, False)
    (record,) = [record for record in caplog.records if record.__dict__.get("event") == "forward_stuck"]
    assert record.__dict__["jobs"] == [culprit]
    assert "self.go.wait(30)" in record.getMessage()
    assert engine.drain() == 3
    rig.runner.go.set()
    deliveries = {message_id(left.raw): left.deliveries for left in rig.broker.queue(QUEUE).lists}
    assert deliveries == {culprit: 1, **dict.fromkeys(waiting, 0)}


@pytest.mark.parametrize("stage", ["preprocess", "postprocess"])
def test_a_stuck_job_is_told_and_blamed_alone(rig: Rig, caplog: pytest.LogCaptureFixture, stage: str) -> None:
    """What hangs outside of a pass leaves a worker as deaf: it gives way, and its neighbours go back unblamed."""
    hangs, go = threading.Event(), threading.Event()

    def hang(*_: Any) -> Any:
        hangs.set()
        go.wait(30)
        return "late"

    setattr(rig.runner, "prepare" if stage == "preprocess" else "finish", hang)
    (culprit,) = rig.put("culprit")
    engine = Engine([rig.lane()], STUCK, rig.hooks)
    engine.start()
    with caplog.at_level(logging.CRITICAL, "pipemill.engine"):
        until(hangs.is_set, "it hangs")
        (waiting,) = rig.put("waiting")
        until(lambda: len(engine.works()) == 2, "both are held")
        until(lambda: rig.hooks.failures, "the host is told")
    (record,) = [record for record in caplog.records if record.__dict__.get("event") == f"{stage}_stuck"]
    assert record.__dict__["jobs"] == [culprit]
    assert f"the {stage}ing of a job hasn't got on" in record.getMessage()
    assert "go.wait(30)" in record.getMessage()
    assert engine.drain(1.0) == 2
    go.set()
    deliveries = {message_id(left.raw): left.deliveries for left in rig.broker.queue(QUEUE).lists}
    assert deliveries == {culprit: 1, waiting: 0}


def test_a_pass_that_gets_on_may_take_its_time(rig: Rig) -> None:
    """As long as its runner tells of steps, the time of the whole counts for nothing."""
    steps = threading.Semaphore(0)
    enough = threading.Event()

    def forward(items: Sequence[Item]) -> Sequence[Any]:
        while not enough.is_set():
            items[0].alive_at = time.monotonic()
            steps.release()
            enough.wait(0.05)
        return ["done"]

    rig.runner.forward = forward  # type: ignore[method-assign]  # a pass of many steps
    settings = EngineSettings(lease_seconds=5.0, stuck_seconds=2.0)
    engine = Engine([rig.lane()], settings, rig.hooks)
    engine.start()
    (job,) = rig.put("long")
    for _ in range(60):
        assert steps.acquire(timeout=30)
    (running,) = engine.forwards
    assert running.underway is not None
    assert [work.job.id for work in running.underway.works] == [job]
    assert running.underway.alive_at >= running.underway.since
    enough.set()
    assert rig.answers([job]) == ["done"]
    until(lambda: running.underway is None, "the device is free")
    assert rig.hooks.failures == []
    engine.drain()


def test_a_worker_may_wait_for_ever(rig: Rig) -> None:
    """Without a bound there is no watchdog."""
    engine = Engine([rig.lane()], EngineSettings(stuck_seconds=None), rig.hooks)
    engine.start()
    assert not [thread for thread in threading.enumerate() if thread.name == "watchdog"]
    engine.drain()
