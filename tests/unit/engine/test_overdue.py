"""What is over ends while the device is busy: by deadline, by cancel, by the host's revoke."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from pipemill.errors import JobCancelled, JobExpired
from pipemill.protocol import Outcome, decode_message, encode_arguments, encode_message
from pipemill.store.base import Submission
from pipemill_worker.engine.keeper import Heartbeat
from pipemill_worker.engine.wiring import EngineSettings, Gate, Wiring
from pipemill_worker.engine.work import Work
from pipemill_worker.seams import Prepared
from tests.helpers import until
from tests.unit.engine.rig import QUEUE, Rig, Runner
from tests.unit.engine.test_lane import entry, lane, names, nobody


@pytest.fixture
def rig() -> Rig:
    """A fresh broker, and a runner whose first pass doesn't end."""
    made = Rig()
    made.runner.go.clear()
    return made


def test_a_deadline_that_passes_while_the_device_is_busy(rig: Rig) -> None:
    """The waiting job ends as expired though the pass before it doesn't end; its place is free."""
    with rig.running() as engine:
        rig.put("first")
        until(lambda: rig.runner.batches, "the first runs")
        (late,) = rig.put("late", expires=rig.broker.now() + 100)
        until(lambda: len(engine.lanes[QUEUE].pool) == 1, "it is ready")
        rig.broker.advance(101)
        with pytest.raises(JobExpired):
            rig.result(late).get()
        until(lambda: len(engine.works()) == 1, "its place is free again")
        rig.runner.go.set()
    assert rig.runner.batches == [["first"]]
    assert rig.producer.reports()[0].totals["expired"] == 1


@pytest.mark.parametrize("way", ["cancel", "revoke"])
def test_a_waiting_job_that_is_cancelled_leaves_a_busy_lane(way: str, rig: Rig) -> None:
    """By the client's cancel or by the host's revoke, its place is free before the pass ends."""
    with rig.running() as engine:
        rig.put("first")
        until(lambda: rig.runner.batches, "the first runs")
        (gone,) = rig.put("gone")
        until(lambda: len(engine.lanes[QUEUE].pool) == 1, "it is ready")
        if way == "cancel":
            assert rig.producer.cancel(gone)
        else:
            rig.hooks.revoked.add(gone)
        until(lambda: len(engine.works()) == 1, "its place is free again")
        with pytest.raises(JobCancelled):
            rig.result(gone).get()
        rig.runner.go.set()
    assert rig.runner.batches == [["first"]]
    assert rig.producer.reports()[0].totals["cancelled"] == 1


def test_a_running_job_that_is_cancelled_has_no_answer(rig: Rig) -> None:
    """Its state says so at once, its pass is told that nobody waits, and what follows hears of a cancel."""
    canvas = b'[["linked"],{},{"callbacks":[{"task":"x"}],"errbacks":null,"chain":null,"chord":null}]'
    message = encode_message("linked", QUEUE, canvas)
    rig.producer.enqueue(QUEUE, [Submission(job_id="linked", list_index=0, message=message)])
    with rig.running() as engine:
        until(lambda: rig.runner.batches, "it runs")
        mine = engine.lanes[QUEUE]
        assert rig.producer.cancel("linked")
        assert rig.standing("linked").result is not None
        until(lambda: any(each.item.over for each in mine.running), "the pass is told")
        (after,) = rig.put("after")
        rig.runner.go.set()
        assert rig.answers([after]) == ["AFTER"]
        with pytest.raises(JobCancelled):
            rig.result("linked").get()
        until(lambda: rig.hooks.followed, "what follows is asked for")
    ((job_id, value, error),) = rig.hooks.followed
    assert (job_id, value, type(error)) == ("linked", None, JobCancelled)
    assert rig.producer.reports()[0].totals["cancelled"] == 1


def test_a_running_job_that_is_revoked_ends_as_cancelled(rig: Rig) -> None:
    """A host that has no state of its own to write hears of it when the pass ends."""
    with rig.running() as engine:
        (job,) = rig.put("first")
        until(lambda: rig.runner.batches, "it runs")
        rig.hooks.revoked.add(job)
        until(lambda: engine.lanes[QUEUE].running[0].item.over, "the pass is told")
        assert rig.standing(job).result is None
        rig.runner.go.set()
        with pytest.raises(JobCancelled):
            rig.result(job).get()


class Noting(Runner):
    """Remembers what it prepared."""

    def __init__(self) -> None:
        super().__init__()
        self.prepared: list[Any] = []

    def prepare(self, inputs: Any, parameters: Mapping[str, Any]) -> Prepared:
        self.prepared.append(inputs)
        return super().prepare(inputs, parameters)


def test_a_job_that_comes_after_its_deadline_is_not_prepared() -> None:
    """A plain Celery message that expired on its way ends where it is read; the one behind it is answered."""
    rig = Rig()
    rig.runner = Noting()
    rig.broker.push(QUEUE, encode_message("late", QUEUE, encode_arguments("late", {}), expires=rig.broker.now() - 1))
    (fine,) = rig.put("fine")
    with rig.running():
        assert rig.answers([fine]) == ["FINE"]
        with pytest.raises(JobExpired):
            rig.result("late").get()
    assert rig.runner.prepared == ["fine"]


def test_a_job_whose_deadline_lies_before_its_time_comes_back_for_it() -> None:
    """Parked until a time that it won't see, it ends with its deadline."""
    rig = Rig()
    now = rig.broker.now()
    (job,) = rig.put("never", eta=now + 1_000, expires=now + 100)
    with rig.running():
        until(lambda: rig.producer.reports()[0].parked == 1, "it is parked")
        rig.broker.advance(101)
        with pytest.raises(JobExpired):
            rig.result(job).get()


def test_a_job_that_was_started_is_said_to_run() -> None:
    """Also while no pass holds it: else who asks after its deadline would take it for one that nobody started."""
    rig = Rig()
    (job,) = rig.put("begun")
    mine = rig.lane()
    (work,) = (Work(leased, decode_message(leased.raw, QUEUE)) for leased in mine.store.take(1).jobs)
    mine.hold([work])
    wiring = Wiring(settings=EngineSettings(), hooks=rig.hooks, gate=Gate([mine]))
    Heartbeat([mine], wiring)._renew(mine)
    assert not rig.standing(job).running
    work.started = True
    wiring = Wiring(settings=EngineSettings(), hooks=rig.hooks, gate=Gate([mine]))
    Heartbeat([mine], wiring)._renew(mine)
    assert rig.standing(job).running


def test_what_was_put_aside_ends_too() -> None:
    """Jobs that weren't even prepared leave with the pool's."""
    mine = lane()
    late = entry("late", expires=mine.now() - 1).work
    mine.aside = [late]
    (end,) = mine.drop(nobody)
    assert (end.work, end.outcome, mine.aside) == (late, Outcome.EXPIRED, [])


def test_what_runs_is_only_marked() -> None:
    """The rest of a job that runs stays until its pass ends; a deadline is kept once it was started."""
    mine = lane()
    mine.add([entry("begun", expires=mine.now() + 60), entry("other")])
    batch, _ = mine.next_batch(nobody)
    assert names(batch) == ["begun", "other"]
    mine.add([batch[0]])  # another item of the same job
    mine.note_cancelled(["begun"])
    batch[1].work.job.expires = mine.now() - 1
    assert mine.drop(nobody) == []
    assert [each.item.over for each in batch] == [True, False]
    assert names(mine.pool) == ["begun"]
    mine.running = []
    assert [end.outcome for end in mine.drop(nobody)] == [Outcome.CANCELLED]
    assert mine.pool == []
