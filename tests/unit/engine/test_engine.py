"""The engine over a store in memory: every way a job can go."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest

from pipemill.errors import (
    DeliveryLimitReached,
    InferenceFailed,
    InvalidInput,
    JobCancelled,
    JobExpired,
    MalformedJob,
    PayloadMissing,
    ResultNotSerialisable,
)
from pipemill.protocol import decode_message, encode_arguments, encode_message, names
from pipemill.store.base import Submission
from pipemill.store.memory import MemoryJobStore
from pipemill_worker.engine.work import Work
from pipemill_worker.policy.curve import CostModel, Point
from pipemill_worker.seams import Item
from tests.helpers import until
from tests.unit.engine.rig import QUEUE, Outage, Rig, Runner


@pytest.fixture
def rig() -> Rig:
    """A fresh broker."""
    return Rig()


def test_jobs_are_answered_in_shared_batches(rig: Rig) -> None:
    """Jobs that wait together run together, and each gets its own answer."""
    ids = rig.put(*(f"word{n}" for n in range(200)))
    with rig.running():
        assert rig.answers(ids) == [f"WORD{n}" for n in range(200)]
    assert max(map(len, rig.runner.batches)) > 1
    assert max(map(len, rig.runner.batches)) <= 64


def test_one_poisoned_job_among_63_fails_alone(rig: Rig) -> None:
    """The culprit fails with the pipeline's error; its neighbours have their answers."""
    words = [f"word{n}" for n in range(63)]
    ids = rig.put(*words[:30], "poison", *words[30:])
    with rig.running():
        assert rig.answers(ids[:30] + ids[31:]) == [word.upper() for word in words]
        with pytest.raises(InferenceFailed, match="poison"):
            rig.result(ids[30]).get()


@pytest.mark.parametrize(
    ("word", "error", "text"),
    [
        ("bad", InvalidInput, "good word"),
        ("broken", InferenceFailed, "preprocess bug"),
        ("short", InferenceFailed, "0 outputs for 1 items"),
        ("unspeakable", InferenceFailed, r"can't open caf\?\.bin"),
        ("unfinishable", InferenceFailed, "postprocess bug"),
        ("unwritable", ResultNotSerialisable, "can't be written as JSON"),
    ],
)
def test_a_failing_job_fails_alone_whatever_the_stage(rig: Rig, word: str, error: type[Exception], text: str) -> None:
    """An error of one job in any stage leaves its neighbours untouched."""
    before, culprit, after = rig.put("one", word, "two")
    with rig.running():
        assert rig.answers([before, after]) == ["ONE", "TWO"]
        with pytest.raises(error, match=text):
            rig.result(culprit).get()


def test_malformed_messages_fail_or_become_dead_letters(rig: Rig) -> None:
    """A message with an id gets an error; one without is kept as a dead letter; the job between is answered."""
    rig.broker.push(QUEUE, b"\xff not json")
    rig.broker.push(QUEUE, b'{"headers": {"id": "odd", "task": "other.task"}, "body": "x"}')
    (job_id,) = rig.put("fine")
    rig.broker.push(QUEUE, b"[]")
    with rig.running():
        assert rig.answers([job_id]) == ["FINE"]
        with pytest.raises(MalformedJob, match=r"answers to the task name 'pipemill\.infer'"):
            rig.result("odd").get()
        until(lambda: rig.producer.reports()[0].dead == 2, "two dead letters")


def test_jobs_of_other_groups_never_share_a_batch(rig: Rig) -> None:
    """Only equal group keys run together."""
    rig.runner.go.clear()
    ids = []
    for _ in range(20):
        ids += rig.put("a", parameters={"group": "a"}) + rig.put("b", parameters={"group": "b"})
    with rig.running():
        rig.runner.go.set()
        rig.answers(ids)
    assert all(len(set(batch)) == 1 for batch in rig.runner.batches)
    assert max(map(len, rig.runner.batches)) > 1


def test_a_job_of_many_items_is_answered_when_its_last_item_is(rig: Rig) -> None:
    """Items of one job may run in several batches, and come back in order."""
    words = " ".join(f"w{n}" for n in range(150))
    ids = rig.put(words, "one")
    with rig.running():
        assert rig.answers(ids) == [words.upper(), "ONE"]


def test_out_of_memory_splits_and_lowers_the_ceiling(rig: Rig) -> None:
    """The batch that didn't fit is run in halves, and no later one is as large."""
    rig.runner.memory = 10
    rig.runner.go.clear()
    lane = rig.lane()
    ids = rig.put(*[f"w{n}" for n in range(101)])
    with rig.running(lane):
        until(lambda: len(lane.pool) + len(lane.running) == 101, "all are ready, some run")
        rig.runner.go.set()
        assert len(rig.answers(ids)) == 101
    assert lane.limits.max_items <= 10


def test_out_of_memory_of_one_item_fails_its_job(rig: Rig) -> None:
    """What doesn't fit alone can't be split."""
    rig.runner.memory = 0
    (job_id,) = rig.put("large")
    with rig.running(), pytest.raises(InferenceFailed, match="MemoryError"):
        rig.result(job_id).get()


def test_expired_jobs_are_dropped_when_a_batch_is_composed(rig: Rig) -> None:
    """A job whose deadline passed while it waited isn't run."""
    rig.runner.go.clear()
    with rig.running() as engine:
        (first,) = rig.put("first")
        until(lambda: rig.runner.batches, "the first runs")
        deadline = rig.broker.now() + 100
        (late,) = rig.put("late", expires=deadline)
        until(lambda: len(engine.works()) == 2, "both are held")
        rig.broker.advance(101)
        until(lambda: engine.lanes[QUEUE].now() > deadline, "the deadline passes")
        rig.runner.go.set()
        with pytest.raises(JobExpired):
            rig.result(late).get()
    assert ["late"] not in rig.runner.batches
    assert rig.standing(first).result is not None


def test_late_jobs_run_once_nothing_else_waits(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under overload those that would be late give way, or aren't even prepared; when the device is free, they run."""
    turns = threading.Semaphore(0)
    monkeypatch.setattr(rig.runner.go, "wait", lambda seconds: turns.acquire(timeout=seconds))
    lane = rig.lane()
    lane.model = CostModel((Point(items=1, cost=1, seconds=1_000.0), Point(items=64, cost=640, seconds=1_000.0)))
    soon = rig.broker.now() + 100
    with rig.running(lane):
        rig.put("first")
        until(lambda: rig.runner.batches, "the first runs")
        late = rig.put("late", expires=soon)
        good = rig.put("good")
        until(lambda: len(lane.pool) == 2, "both are ready")
        turns.release()
        until(lambda: rig.runner.batches[1:] == [["good"]], "the late one gave way")
        later = rig.put("later", expires=soon)
        until(lambda: lane.aside, "this one isn't even prepared")
        turns.release(3)
        assert rig.answers([*late, *good, *later]) == ["LATE", "GOOD", "LATER"]
    assert rig.runner.batches[2:] == [["late"], ["later"]]


def test_cancelled_and_revoked_jobs_never_run(rig: Rig) -> None:
    """A cancel through the store and a revoke through the host both keep a waiting job from running."""
    rig.runner.go.clear()
    with rig.running() as engine:
        (first,) = rig.put("first")
        until(lambda: rig.runner.batches, "the first runs")
        cancelled, revoked, kept = rig.put("cancelled", "revoked", "kept")
        until(lambda: len(engine.works()) == 4, "all are held")
        rig.hooks.revoked.add(revoked)
        assert rig.producer.cancel(cancelled)
        until(lambda: len(engine.works()) == 2, "the lane drops both")
        rig.runner.go.set()
        assert rig.answers([first, kept]) == ["FIRST", "KEPT"]
        for job_id in (cancelled, revoked):
            with pytest.raises(JobCancelled):
                rig.result(job_id).get()
    assert not any({"cancelled", "revoked"} & set(batch) for batch in rig.runner.batches)


def test_jobs_with_a_countdown_wait_in_the_store(rig: Rig) -> None:
    """A job whose time hasn't come is parked, not held, and runs when it has."""
    (job_id,) = rig.put("later", eta=rig.broker.now() + 1000)
    with rig.running() as engine:
        until(lambda: rig.producer.reports()[0].parked == 1, "it is parked")
        assert engine.works() == []
        rig.broker.advance(1001)
        assert rig.answers([job_id]) == ["LATER"]


def _kill_while_holding(rig: Rig, times: int) -> None:
    for _ in range(times):
        owner = MemoryJobStore(rig.broker, QUEUE, lease_seconds=1.0)
        assert owner.take(1).jobs
        rig.broker.advance(2.0)
        owner.reap()


def test_a_job_delivered_before_runs_alone(rig: Rig) -> None:
    """It may have killed a worker, so it shares neither batch nor lease."""
    ids = rig.put("suspect", "b", "c", "d")
    _kill_while_holding(rig, 1)
    with rig.running():
        assert rig.answers(ids) == ["SUSPECT", "B", "C", "D"]
    assert ["suspect"] in rig.runner.batches


def test_a_job_that_workers_died_on_too_often_is_given_up(rig: Rig) -> None:
    """At the limit it fails with the reason and is kept as a dead letter; the next job is answered."""
    deadly, fine = rig.put("deadly", "fine")
    _kill_while_holding(rig, 3)
    with rig.running():
        with pytest.raises(DeliveryLimitReached, match="3 workers died"):
            rig.result(deadly).get()
        assert rig.answers([fine]) == ["FINE"]
    assert rig.producer.reports()[0].dead == 1
    assert not any("deadly" in batch for batch in rig.runner.batches)


def test_payloads_by_reference_are_fetched_and_missing_ones_fail_alone(rig: Rig) -> None:
    """A large job is answered like a small one; one whose payload is gone says so."""
    for job_id, payload in (("kept", b'[["large"],{},{}]'), ("gone", b"[]"), ("vast", b'["' + b"x" * 20_000 + b'"]')):
        message = encode_message(job_id, QUEUE, b"", by_reference=True)
        rig.producer.enqueue(QUEUE, [Submission(job_id=job_id, list_index=0, message=message, payload=payload)])
    del rig.broker.payloads["gone"]
    with rig.running():
        assert rig.answers(["kept"]) == ["LARGE"]
        with pytest.raises(PayloadMissing, match="submit the job again"):
            rig.result("gone").get()
        with pytest.raises(InvalidInput, match="10000 bytes"):
            rig.result("vast").get()


def test_ignored_results_are_not_stored(rig: Rig) -> None:
    """A job with an ignored result runs and leaves nothing."""
    ignored, kept = rig.put("quiet", ignore_result=True) + rig.put("loud")
    with rig.running():
        assert rig.answers([kept]) == ["LOUD"]
        until(lambda: rig.standing(ignored).queue is None, "the job ends")
    assert rig.standing(ignored).result is None
    assert any("quiet" in batch for batch in rig.runner.batches)


def test_what_follows_is_asked_only_for_jobs_with_a_canvas_and_pushed_with_the_end(rig: Rig) -> None:
    """A link's message is in the queue as soon as the job has ended."""
    follow_up = encode_message("next", QUEUE, encode_arguments("next", {}))
    rig.hooks.follow_ups = [(names.list_key(QUEUE, 0), follow_up)]
    (plain,) = rig.put("plain")
    canvas = b'[["linked"],{},{"callbacks":[{"task":"x"}],"errbacks":null,"chain":null,"chord":null}]'
    message = encode_message("linked", QUEUE, canvas)
    rig.producer.enqueue(QUEUE, [Submission(job_id="linked", list_index=0, message=message)])
    with rig.running():
        assert rig.answers([plain, "linked", "next"]) == ["PLAIN", "LINKED", "NEXT"]
    assert rig.hooks.followed == [("linked", "LINKED", None)]


def test_a_drain_finishes_what_runs_and_gives_back_the_rest(rig: Rig) -> None:
    """Nothing is lost, nothing stays leased, and no delivery is blamed."""
    lane = rig.lane()
    rig.runner.go.clear()
    ids = rig.put(*(f"w{n}" for n in range(100)))
    with rig.running(lane) as engine:
        until(lambda: rig.runner.batches and len(lane.held) == 100, "a batch runs, the rest waits")
        started = {name for batch in rig.runner.batches for name in batch}
        rig.runner.go.set()
        engine.drain()
    report = rig.producer.reports()[0]
    assert report.leased == 0
    ended = sum(rig.standing(job_id).result is not None for job_id in ids)
    assert ended >= len(started)
    assert ended + sum(report.waiting.values()) == 100
    with rig.running():
        assert rig.answers(ids) == [f"W{n}" for n in range(100)]


def test_a_drain_is_bounded_when_the_forward_pass_hangs(rig: Rig) -> None:
    """At its bound, even the running job is given back."""
    rig.runner.go.clear()
    rig.put("stuck", "next")
    with rig.running(drain_seconds=0.2) as engine:
        until(lambda: rig.runner.batches, "it runs")
        engine.drain()
    rig.runner.go.set()
    assert rig.producer.reports()[0].leased == 0
    assert sum(rig.producer.reports()[0].waiting.values()) == 2


def test_a_hurried_drain_gives_back_what_runs(rig: Rig) -> None:
    """A drain with an hour of time ends when it is hurried, even before it began; the running job goes back."""
    rig.runner.go.clear()
    rig.put("stuck", "next")
    with rig.running(drain_seconds=3_600.0) as engine:
        until(lambda: rig.runner.batches, "it runs")
        engine.hurry()
        engine.drain()
    rig.runner.go.set()
    assert rig.producer.reports()[0].leased == 0
    assert sum(rig.producer.reports()[0].waiting.values()) == 2


def test_an_outage_of_the_broker_loses_nothing(rig: Rig) -> None:
    """Workers wait for their broker, with answers in hand, and go on."""
    outage = Outage(MemoryJobStore(rig.broker, QUEUE, lease_seconds=5.0))
    rig.runner.go.clear()
    ids = rig.put(*(f"w{n}" for n in range(100)))
    with rig.running(rig.lane(store=outage)) as engine:  # type: ignore[arg-type]  # stands in for the store
        until(lambda: rig.runner.batches, "a batch runs")
        outage.down.set()
        rig.runner.go.set()
        until(lambda: len(rig.runner.batches) > 1, "it goes on with what it has")
        ids += rig.put("meanwhile")
        outage.down.clear()
        assert rig.answers(ids) == [f"W{n}" for n in range(100)] + ["MEANWHILE"]
        assert engine.alive


def test_a_lost_lease_is_noticed_and_its_jobs_are_forgotten(rig: Rig) -> None:
    """A worker whose lease ran out drops its jobs; the one that took over answers them, once."""
    lane = rig.lane()
    rig.runner.go.clear()
    ids = rig.put("a", "b")
    with rig.running(lane):
        held = until(lambda: set(lane.held) if len(lane.held) == 2 else None, "they are held")
        rig.broker.advance(6.0)
        MemoryJobStore(rig.broker, QUEUE).reap()
        until(lambda: not held & set(lane.held), "forgotten")
        rig.runner.go.set()
        assert rig.answers(ids) == ["A", "B"]
    assert rig.producer.reports()[0].totals["succeeded"] == 2


def test_the_death_of_a_thread_is_told_to_the_host(rig: Rig) -> None:
    """A lost device ends the forward thread; the engine is no longer alive, and a drain gives everything back."""
    rig.runner.lost = {"fatal"}
    rig.put("fatal", "other")
    with rig.running() as engine:
        until(lambda: rig.hooks.failures, "the host hears of it")
        assert not engine.alive
        engine.drain()
    report = rig.producer.reports()[0]
    assert report.leased == 0
    assert sum(report.waiting.values()) + report.totals.get("succeeded", 0) == 2
    assert MemoryJobStore(rig.broker, QUEUE).take(1).jobs[0].deliveries == 1


def test_lanes_of_one_device_take_turns(rig: Rig) -> None:
    """A flood on one queue doesn't keep another waiting."""
    flood, quiet = Runner(), Runner()
    flood.go.clear()
    other = rig.lane(quiet, name="quiet")
    rig.producer.declare(other.info)
    many = rig.put(*(f"w{n}" for n in range(500)))
    with rig.running(rig.lane(flood), other):
        until(lambda: flood.batches, "the flood runs")
        ids = rig.put("hello", queue="quiet")
        until(lambda: other.pool, "the quiet job waits")
        flood.go.set()
        assert rig.answers(ids) == ["HELLO"]
        rig.answers(many)


def test_a_paused_lane_takes_nothing_until_it_is_resumed(rig: Rig) -> None:
    """cancel_consumer and add_consumer, as the engine sees them."""
    lane = rig.lane()
    with rig.running(lane) as engine:
        rig.answers(rig.put("first"))
        engine.pause(QUEUE)
        until(lambda: lane.facts()["paused"], "paused")
        ids = rig.put("a", "b", "c")
        assert lane.room() == 0
        engine.resume(QUEUE)
        assert rig.answers(ids) == ["A", "B", "C"]


def test_a_running_job_is_seen_to_run(rig: Rig) -> None:
    """The heartbeat marks what a forward pass holds."""
    rig.runner.go.clear()
    ids = rig.put("long")
    with rig.running():
        until(lambda: rig.standing(ids[0]).running, "it is said to run")
        rig.runner.go.set()
        rig.answers(ids)


def test_a_suspect_is_alone_in_its_process(rig: Rig) -> None:
    """While it is held, no lane of the process holds anything else: only it can be blamed for a crash."""
    other_runner = Runner()
    other = rig.lane(other_runner, name="other")
    rig.producer.declare(other.info)
    suspects = rig.put("suspect", "second")
    _kill_while_holding(rig, 1)
    lane = rig.lane()
    seen: list[int] = []
    with rig.running(lane, other) as engine:
        forward = rig.runner.forward

        def watched(items: Sequence[Item]) -> Sequence[Any]:
            if any(item.payload == "suspect" for item in items):
                seen.append(len(engine.works()))
            return forward(items)

        rig.runner.forward = watched  # type: ignore[method-assign]  # to look at the moment it runs
        stream = [job_id for n in range(50) for job_id in rig.put(f"w{n}", queue="other")]
        assert rig.answers(suspects) == ["SUSPECT", "SECOND"]
        assert len(rig.answers(stream)) == 50
    assert set(seen) <= {1}


def test_a_paused_lane_with_a_suspect_keeps_no_other_waiting(rig: Rig) -> None:
    """Others take turns with a suspect only while its lane takes jobs at all."""
    other = rig.lane(Runner(), name="other")
    rig.producer.declare(other.info)
    (suspect,) = rig.put("suspect")
    _kill_while_holding(rig, 1)
    lane = rig.lane()
    lane.paused = True
    with rig.running(lane, other) as engine:
        assert rig.answers(rig.put("hello", queue="other")) == ["HELLO"]
        engine.resume(QUEUE)
        assert rig.answers([suspect]) == ["SUSPECT"]


def test_a_job_without_anything_to_do_is_refused(rig: Rig) -> None:
    """Inputs that prepare to no item get an error instead of waiting for ever."""
    (job_id,) = rig.put("   ")
    with rig.running(), pytest.raises(InvalidInput, match="nothing to do"):
        rig.result(job_id).get()


def test_a_job_that_is_too_large_still_has_its_errback(rig: Rig) -> None:
    """What follows a failure follows this one too."""
    inputs = "x" * 20_000
    canvas = '{"callbacks":null,"errbacks":[{"task":"x"}],"chain":null,"chord":null}'
    message = encode_message("large", QUEUE, f'[["{inputs}"],{{}},{canvas}]'.encode())
    rig.producer.enqueue(QUEUE, [Submission(job_id="large", list_index=0, message=message)])
    with rig.running(), pytest.raises(InvalidInput, match="larger than"):
        rig.result("large").get()
    assert [job_id for job_id, _, _ in rig.hooks.followed] == ["large"]


def test_only_what_was_held_is_lost_with_a_lease(rig: Rig) -> None:
    """Jobs taken under the new lease stay in hand when the loss of the old one is noticed late."""
    lane = rig.lane()
    rig.put("old", "new")
    old, new = (Work(job, decode_message(job.raw, QUEUE)) for job in lane.store.take(2).jobs)
    lane.hold([old])
    before = list(lane.held.values())
    lane.hold([new])
    lane.lose(before)
    assert (old.ended, new.ended) == (True, False)
    assert list(lane.held.values()) == [new]
