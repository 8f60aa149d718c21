"""One contract for every store: in memory, on fakeredis, on real Valkey and on real Redis."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import fakeredis
import pytest
import redis

from pipemill.errors import BrokerUnavailable
from pipemill.protocol import (
    JobStatus,
    Outcome,
    decode_message,
    encode_arguments,
    encode_message,
    encode_success,
    message_bytes,
    names,
)
from pipemill.store import wire
from pipemill.store.acl import Role
from pipemill.store.aio_queues import AsyncRedisQueueStore
from pipemill.store.base import Completion, JobStore, QueueInfo, QueueStore, Submission, Taken
from pipemill.store.connection import connect
from pipemill.store.jobs import RedisJobStore
from pipemill.store.memory import MemoryBroker, MemoryJobStore
from pipemill.store.memory_queues import MemoryQueueStore
from pipemill.store.queues import RedisQueueStore
from tests.helpers import until
from tests.users import denied, url_as, users

QUEUE = "sentiment"
LEASE = 2.0


@dataclass
class Rig:
    """A store under test, both sides."""

    producer: QueueStore
    worker: Callable[[], JobStore]
    pass_time: Callable[[float], None]
    push: Callable[[str, bytes], None]
    forget: Callable[[str], object]


def _redis_rig(url: str, client: Any, shared: Callable[[], Any], producers: Callable[[], Any] | None = None) -> Rig:
    client.flushall()

    def expire_leases(seconds: float) -> None:
        for member, deadline in client.zrange(names.LEASES_KEY, 0, -1, withscores=True):
            client.zadd(names.LEASES_KEY, {member: deadline - seconds})
        for member, due in client.zrange(names.delayed_key(QUEUE), 0, -1, withscores=True):
            client.zadd(names.delayed_key(QUEUE), {member: due - seconds})
        for member, died in client.zrange(names.dead_times_key(QUEUE), 0, -1, withscores=True):
            client.zadd(names.dead_times_key(QUEUE), {member: died - seconds})
        for field, moment in client.hgetall(names.passed_key(QUEUE)).items():
            if field.startswith(b"since"):
                client.hset(names.passed_key(QUEUE), field, float(moment) - seconds)

    def worker() -> JobStore:
        return RedisJobStore(url, QUEUE, lease_seconds=LEASE, client=shared())

    def forget(job_id: str) -> None:
        client.delete(names.result_key(job_id), names.record_key(job_id))

    return Rig(RedisQueueStore(url, client=(producers or shared)()), worker, expire_leases, client.lpush, forget)


def _users_rig(url: str) -> Iterator[Rig]:
    """A rig whose two sides sign in as users with least privilege; all that it does must be theirs to do."""
    with users(url, QUEUE, "nowhere", letters=True) as admin, ExitStack() as opened:

        def open_as(role: Role) -> Any:
            return opened.enter_context(closing(connect(url_as(url, role))))

        made = _redis_rig(url, admin, partial(open_as, Role.WORKER), partial(open_as, Role.PRODUCER))
        made.producer.declare(QueueInfo(name=QUEUE, task="text-classification", max_depth=10))
        yield made
        assert {each for each in denied(admin) if "nowhere" not in each} == set()


@pytest.fixture(params=["memory", "fakeredis", "valkey", "redis", "valkey with users", "redis with users"])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    """Each kind of store in turn, empty, with the queue announced."""
    if request.param == "memory":
        broker = MemoryBroker()
        made = Rig(
            MemoryQueueStore(broker),
            lambda: MemoryJobStore(broker, QUEUE, lease_seconds=LEASE),
            broker.advance,
            broker.push,
            lambda job_id: broker.results.pop(job_id, None),
        )
        made.producer.declare(QueueInfo(name=QUEUE, task="text-classification", max_depth=10))
        yield made
        return
    if request.param.endswith(" with users"):
        yield from _users_rig(request.getfixturevalue(f"{request.param.partition(' ')[0]}_server"))
        return
    if request.param == "fakeredis":
        server = fakeredis.FakeServer(server_type="valkey")
        url, open_client = "redis://fake", lambda: fakeredis.FakeRedis(server=server)
    else:
        url = request.getfixturevalue(f"{request.param}_server")
        open_client = lambda: redis.Redis.from_url(url)  # noqa: E731  # one line says it
    clients: list[Any] = []

    def shared() -> Any:
        clients.append(open_client())
        return clients[-1]

    made = _redis_rig(url, shared(), shared)
    made.producer.declare(QueueInfo(name=QUEUE, task="text-classification", max_depth=10))
    yield made
    made.producer.close()
    for client in clients:
        client.close()


def submission(
    job_id: str, *, step: int = 0, once: str = "", payload: bytes | None = None, expires: float | None = None
) -> Submission:
    """Build a job as a client would."""
    arguments = encode_arguments(f"text of {job_id}", {})
    message = encode_message(job_id, QUEUE, arguments, by_reference=payload is not None)
    return Submission(
        job_id=job_id, list_index=step, message=message, idempotency_key=once, payload=payload, expires=expires
    )


def put(rig: Rig, *job_ids: str) -> None:
    """Enqueue jobs that must all be accepted."""
    accepted = rig.producer.enqueue(QUEUE, [submission(job_id) for job_id in job_ids])
    assert accepted is not None
    assert list(accepted.job_ids) == list(job_ids)


def ids(taken: Taken) -> list[str]:
    """The ids of the jobs taken."""
    return [decode_message(job.raw, QUEUE).id for job in taken.jobs]


def succeed(field: str, job_id: str, value: Any = "yes") -> Completion:
    """A completion with an answer."""
    document = encode_success(job_id, value)
    return Completion(field=field, job_id=job_id, outcome=Outcome.SUCCEEDED, document=document)


def status(rig: Rig, job_id: str) -> Any:
    """What the producer sees of a job."""
    return rig.producer.standings([job_id])[0]


def test_a_job_is_taken_once_and_its_answer_comes_back(rig: Rig) -> None:
    """The thinnest path: enqueue, take, complete, look."""
    put(rig, "a")
    worker = rig.worker()
    (job,) = worker.take(5).jobs
    assert worker.take(5).jobs == []
    assert worker.complete([succeed(job.field, "a", {"label": "good"})]) == [True]
    standing = status(rig, "a")
    assert standing.result.status is JobStatus.SUCCEEDED
    assert standing.result.get() == {"label": "good"}
    assert worker.close() == 0


def test_jobs_come_in_the_order_they_were_put_and_urgent_ones_first(rig: Rig) -> None:
    """First in, first out within a priority; a lower step is more urgent."""
    rig.producer.enqueue(
        QUEUE, [submission("late", step=3), submission("a"), submission("b"), submission("mid", step=1)]
    )
    worker = rig.worker()
    assert ids(worker.take(3)) == ["a", "b", "mid"]
    assert ids(worker.take(3)) == ["late"]


def test_an_unknown_queue_takes_nothing(rig: Rig) -> None:
    """A queue nobody announced refuses jobs."""
    assert rig.producer.enqueue("nowhere", [submission("a")]) is None
    assert rig.producer.info("nowhere") is None


def test_a_full_queue_accepts_what_fits(rig: Rig) -> None:
    """The depth cap is exact, and says how much was accepted."""
    accepted = rig.producer.enqueue(QUEUE, [submission(str(n)) for n in range(12)])
    assert accepted is not None
    assert list(accepted.job_ids) == [str(n) for n in range(10)]
    assert accepted.max_depth == 10
    refused = rig.producer.enqueue(QUEUE, [submission("more")])
    assert refused is not None
    assert refused.job_ids == []
    assert status(rig, "more").queue is None


def test_equal_idempotency_keys_are_one_job(rig: Rig) -> None:
    """The second submission answers with the first one's id and enqueues nothing."""
    first = rig.producer.enqueue(QUEUE, [submission("a", once="order-7")])
    second = rig.producer.enqueue(QUEUE, [submission("b", once="order-7")])
    assert first is not None
    assert second is not None
    assert list(first.job_ids) == list(second.job_ids) == ["a"]
    assert ids(rig.worker().take(5)) == ["a"]


def test_a_job_enqueued_twice_by_a_lost_reply_is_one_job(rig: Rig) -> None:
    """Enqueueing an id that is there, or that has ended, changes nothing."""
    put(rig, "a")
    put(rig, "a")
    worker = rig.worker()
    (job,) = worker.take(5).jobs
    worker.complete([succeed(job.field, "a")])
    put(rig, "a")
    assert worker.take(5).jobs == []


def test_status_tells_queued_running_and_unknown_apart(rig: Rig) -> None:
    """A waiting job has a position, a running one is said to run, a stranger is unknown."""
    put(rig, "a", "b", "c")
    assert [status(rig, job_id).position for job_id in "abc"] == [0, 1, 2]
    worker = rig.worker()
    taken = worker.take(1)
    assert [status(rig, job_id).position for job_id in "bc"] == [0, 1]
    worker.renew({taken.jobs[0].field: "a"})
    assert status(rig, "a").running
    assert not status(rig, "b").running
    assert status(rig, "stranger").queue is None


def test_released_jobs_come_back_in_order_without_blame(rig: Rig) -> None:
    """Releasing puts jobs at the head of the queue as if never taken."""
    put(rig, "a", "b", "c", "d")
    worker = rig.worker()
    taken = worker.take(3)
    assert worker.release([job.field for job in taken.jobs[1:]]) == 2
    again = worker.take(5)
    assert ids(again) == ["b", "c", "d"]
    assert [job.deliveries for job in again.jobs] == [0, 0, 0]


def test_close_gives_everything_back(rig: Rig) -> None:
    """A worker that leaves holds nothing, and its lease is gone."""
    put(rig, "a", "b")
    worker = rig.worker()
    worker.take(5)
    assert worker.close() == 2
    (report,) = rig.producer.reports()
    assert report.leased == 0
    assert sum(report.waiting.values()) == 2
    assert ids(rig.worker().take(5)) == ["a", "b"]


def test_a_dead_owners_jobs_come_back_with_the_count_raised_and_alone(rig: Rig) -> None:
    """Reaping raises the delivery count; a job delivered before is leased only by an owner that holds nothing."""
    put(rig, "a", "b", "c")
    rig.worker().take(2)
    rig.pass_time(LEASE + 1)
    worker = rig.worker()
    assert worker.reap() == 2
    first = worker.take(5)
    assert (ids(first), [job.deliveries for job in first.jobs]) == (["a"], [1])
    blocked = worker.take(5)
    assert (blocked.jobs, blocked.blocked) == ([], True)
    worker.complete([succeed(first.jobs[0].field, "a")])
    second = worker.take(5)
    assert (ids(second), second.jobs[0].deliveries) == (["b"], 1)
    worker.complete([succeed(second.jobs[0].field, "b")])
    assert [(job.deliveries, decode_message(job.raw, QUEUE).id) for job in worker.take(5).jobs] == [(0, "c")]


def test_deliveries_add_up(rig: Rig) -> None:
    """Every death of an owner counts."""
    put(rig, "a")
    for deaths in range(3):
        worker = rig.worker()
        assert worker.take(1).jobs[0].deliveries == deaths
        rig.pass_time(LEASE + 1)
        assert worker.reap() == 1


def test_a_live_lease_is_not_reaped(rig: Rig) -> None:
    """Renewing keeps the jobs, and a reaper takes nothing from the living."""
    put(rig, "a")
    worker = rig.worker()
    (job,) = worker.take(1).jobs
    rig.pass_time(LEASE - 1)
    assert worker.renew({}).stands
    rig.pass_time(LEASE - 1)
    assert rig.worker().reap() == 0
    assert worker.complete([succeed(job.field, "a")]) == [True]


def test_who_lost_the_lease_changes_nothing(rig: Rig) -> None:
    """A paused worker that wakes can't overwrite the answer of the one that took over."""
    put(rig, "a")
    paused, other = rig.worker(), rig.worker()
    (stale,) = paused.take(1).jobs
    rig.pass_time(LEASE + 1)
    other.reap()
    (job,) = other.take(1).jobs
    assert not paused.renew({stale.field: "a"}).stands
    assert other.complete([succeed(job.field, "a", "right")]) == [True]
    assert paused.complete([succeed(stale.field, "a", "stale")]) == [False]
    assert status(rig, "a").result.get() == "right"
    assert paused.release([stale.field]) == 0


def test_a_stale_completion_between_reap_and_retake_changes_nothing(rig: Rig) -> None:
    """The lease is lost at the reap, not when somebody else takes the job."""
    put(rig, "a")
    paused = rig.worker()
    (stale,) = paused.take(1).jobs
    rig.pass_time(LEASE + 1)
    rig.worker().reap()
    assert paused.complete([succeed(stale.field, "a")]) == [False]
    assert status(rig, "a").result is None
    assert ids(rig.worker().take(1)) == ["a"]


def test_parked_jobs_come_back_when_they_are_due(rig: Rig) -> None:
    """A job with a countdown isn't held in a worker's memory, and still counts as queued."""
    put(rig, "a")
    worker = rig.worker()
    taken = worker.take(1)
    park = Completion(field=taken.jobs[0].field, job_id="a", outcome=Outcome.PARKED, due=taken.now + 100)
    assert worker.complete([park]) == [True]
    assert worker.take(1).jobs == []
    assert (status(rig, "a").queue, status(rig, "a").position) == (QUEUE, None)
    rig.pass_time(101)
    assert ids(worker.take(1)) == ["a"]


def test_cancel_ends_a_queued_job_at_once_and_workers_hear_of_it(rig: Rig) -> None:
    """The state is final before any worker meets the job, and the worker's own completion changes nothing."""
    put(rig, "a", "b")
    worker = rig.worker()
    (job,) = worker.take(1).jobs
    assert rig.producer.cancel("a") is True
    assert status(rig, "a").result.status is JobStatus.CANCELLED
    assert worker.renew({}).cancelled == ["a"]
    assert worker.take(0).cancelled == ["a"]
    assert worker.take(0).cancelled == []
    assert worker.complete([succeed(job.field, "a")]) == [False]
    assert status(rig, "a").result.status is JobStatus.CANCELLED
    assert rig.producer.cancel("a") is False
    assert rig.producer.cancel("stranger") is None


def test_a_cancel_is_heard_by_who_listens(rig: Rig) -> None:
    """A lane that listens is told at once, and once; what was cancelled before is not repeated."""
    put(rig, "early", "a", "b")
    rig.producer.cancel("early")
    worker = rig.worker()
    assert worker.hear_cancelled(0.01) == []
    later = threading.Timer(0.05, rig.producer.cancel, ("a",))
    later.start()
    heard = until(lambda: worker.hear_cancelled(1.0), "a cancel is heard")
    later.join()
    assert heard == ["a"]
    assert worker.hear_cancelled(0.01) == []
    assert rig.producer.cancel("a") is False
    assert worker.hear_cancelled(0.01) == []
    assert worker.take(0).cancelled == ["early", "a"]
    worker.close()


def test_a_job_that_comes_after_its_deadline_ends_at_once(rig: Rig) -> None:
    """By the clock of the broker: it is accepted, has expired, takes no room, and is nobody's work."""
    assert rig.producer.enqueue(QUEUE, [submission(str(n)) for n in range(10)]) is not None
    now = rig.worker().take(0).now
    late = [submission("late", once="order-7", expires=now - 1), submission("again", once="order-7", expires=now - 1)]
    accepted = rig.producer.enqueue(QUEUE, late)
    assert accepted is not None
    assert list(accepted.job_ids) == ["late", "late"]
    assert status(rig, "late").result.status is JobStatus.EXPIRED
    assert "late" not in ids(rig.worker().take(20))
    (report,) = rig.producer.reports()
    assert (report.totals["enqueued"], report.totals["expired"]) == (11, 1)
    assert rig.producer.cancel("late") is False


def test_a_job_nobody_started_in_time_is_told_as_expired(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Well past its deadline, whoever asks ends it, and a worker changes nothing then. One that runs goes on."""
    now = rig.worker().take(0).now
    rig.producer.enqueue(QUEUE, [submission(name, expires=now + 1) for name in ("runs", "late", "waited")])
    worker = rig.worker()
    running, waiting, _ = worker.take(3).jobs
    worker.renew({running.field: "runs"})
    assert status(rig, "late").queue == QUEUE
    monkeypatch.setattr(wire, "OVERDUE_SECONDS", 0.0)
    over = until(lambda: status(rig, "late").result, "it has expired")
    assert over.status is JobStatus.EXPIRED
    assert rig.producer.wait("waited", 30.0).result.status is JobStatus.EXPIRED
    assert status(rig, "runs").running
    assert set(worker.take(0).cancelled) == {"late", "waited"}
    assert worker.complete([succeed(waiting.field, "late"), succeed(running.field, "runs")]) == [False, True]
    assert status(rig, "late").result.status is JobStatus.EXPIRED
    (report,) = rig.producer.reports()
    assert (report.totals["expired"], report.totals["succeeded"]) == (1, 1)


def test_ignored_results_leave_nothing_to_read(rig: Rig) -> None:
    """A completion without a document ends the job and stores no result."""
    put(rig, "a")
    worker = rig.worker()
    (job,) = worker.take(1).jobs
    assert worker.complete([Completion(field=job.field, job_id="a", outcome=Outcome.SUCCEEDED)]) == [True]
    standing = status(rig, "a")
    assert (standing.result, standing.queue) == (None, None)


def test_dead_letters_are_kept_with_their_message(rig: Rig) -> None:
    """A dead job fails for its producer and its message is kept; one without an id is kept too."""
    rig.push(QUEUE, b"not a job")
    put(rig, "a")
    worker = rig.worker()
    first, second = worker.take(2).jobs
    assert first.raw == b"not a job"
    dead = [
        Completion(field=first.field, job_id="", outcome=Outcome.DEAD),
        Completion(field=second.field, job_id="a", outcome=Outcome.DEAD, document=encode_success("a", 1)),
    ]
    assert worker.complete(dead) == [True, True]
    (report,) = rig.producer.reports()
    assert (report.dead, report.leased) == (2, 0)


def test_follow_ups_are_pushed_only_with_a_standing_lease(rig: Rig) -> None:
    """What comes after a job is enqueued together with its end, or not at all."""
    put(rig, "a")
    stale_owner, worker = rig.worker(), rig.worker()
    (stale,) = stale_owner.take(1).jobs
    rig.pass_time(LEASE + 1)
    worker.reap()
    (job,) = worker.take(1).jobs
    follow = [(QUEUE, submission("next").message)]
    lost = succeed(stale.field, "a")
    lost.follow_ups = follow
    kept = succeed(job.field, "a")
    kept.follow_ups = follow
    assert stale_owner.complete([lost]) == [False]
    assert worker.complete([kept]) == [True]
    assert ids(worker.take(5)) == ["next"]


def test_large_payloads_travel_beside_the_message(rig: Rig) -> None:
    """A payload is fetched by job id, and goes when the job ends."""
    payload = encode_arguments("x" * 100_000, {})
    rig.producer.enqueue(QUEUE, [submission("a", payload=payload)])
    worker = rig.worker()
    (job,) = worker.take(1).jobs
    assert len(job.raw) < 2000
    assert worker.payloads(["a", "stranger"]) == [payload, None]
    worker.complete([succeed(job.field, "a")])
    assert worker.payloads(["a"]) == [None]


def test_large_answers_come_back_whole_and_only_under_the_lease(rig: Rig) -> None:
    """A document above the reference size is fenced like a small one."""
    put(rig, "a")
    stale_owner, worker = rig.worker(), rig.worker()
    (stale,) = stale_owner.take(1).jobs
    rig.pass_time(LEASE + 1)
    worker.reap()
    (job,) = worker.take(1).jobs
    assert stale_owner.complete([succeed(stale.field, "a", "s" * 100_000)]) == [False]
    assert worker.complete([succeed(job.field, "a", "r" * 100_000)]) == [True]
    assert rig.producer.wait("a", 5.0).result.get() == "r" * 100_000


def test_a_large_answer_that_is_gone_on_its_way_is_written_again(rig: Rig) -> None:
    """An evicted document neither stops the other jobs of the call, nor is its job ended without it, nor twice."""
    put(rig, "a", "b", "c", "d")
    worker = rig.worker()
    jobs = worker.take(4).jobs
    worker.release([jobs[3].field])
    ends = [succeed(job.field, name, name * 100_000) for job, name in zip(jobs, "abcd", strict=True)]
    ends[0].document = encode_success("a", "small")
    ends[1].follow_ups = [(QUEUE, submission("next").message)]
    evicting = getattr(worker, "_client", None)
    if evicting is not None:
        evicting.set = lambda *_, **__: True
    assert worker.complete(ends) == [True, True, True, False]
    answers = [rig.producer.wait(name, 5.0).result for name in "abc"]
    assert [answer.get() for answer in answers if answer] == ["small", "b" * 100_000, "c" * 100_000]
    (report,) = rig.producer.reports()
    assert (report.leased, report.totals["succeeded"]) == (0, 3)
    assert sorted(ids(worker.take(10))) == ["d", "next"]


def test_wait_returns_at_the_end_or_at_the_timeout(rig: Rig) -> None:
    """Waiting for a job that doesn't end gives its standing; an ended one gives its result; a stranger at once."""
    put(rig, "a")
    assert rig.producer.wait("a", 0.01).result is None
    worker = rig.worker()
    (job,) = worker.take(1).jobs
    worker.complete([succeed(job.field, "a", 7)])
    assert rig.producer.wait("a", 30.0).result.get() == 7
    assert rig.producer.wait("stranger", 30.0).queue is None


def test_reports_count_what_happened(rig: Rig) -> None:
    """Totals, depths and lanes are there for people."""
    put(rig, "a", "b", "c")
    worker = rig.worker()
    (job,) = worker.take(1).jobs
    worker.complete([succeed(job.field, "a")])
    worker.report({"rate": 12.5})
    (report,) = rig.producer.reports()
    assert report.info.task == "text-classification"
    assert (report.totals["enqueued"], report.totals["taken"], report.totals["succeeded"]) == (3, 1, 1)
    assert [facts["rate"] for facts in report.lanes.values()] == [12.5]
    worker.close()
    assert rig.producer.reports()[0].lanes == {}


def test_a_patient_take_waits_for_jobs_and_takes_all_that_came(rig: Rig) -> None:
    """It ends with the first job there is, or empty-handed when its time is over."""
    worker = rig.worker()
    assert worker.take(5, patience=0.01).jobs == []
    later = threading.Timer(0.05, put, (rig, "a", "b"))
    later.start()
    came = ids(worker.take(5, patience=30.0))
    later.join()
    assert [*came, *ids(worker.take(5))] == ["a", "b"]


def test_waiting_moves_a_job_within_reach_and_keeps_it_leased(rig: Rig) -> None:
    """An idle owner's wait loses nothing: what it moved is taken next, or comes back when the owner dies."""
    rig.worker().take(0)
    idle = rig.worker()
    idle.take(0)
    put(rig, "a", "b")
    assert idle.wait(5.0)
    rig.pass_time(LEASE + 1)
    other = rig.worker()
    other.reap()
    assert ids(other.take(5)) == ["a", "b"]


def test_an_owner_that_died_in_its_process_is_blamed_when_it_gives_back(rig: Rig) -> None:
    """A close with blame counts as a delivery, like a reap; the lease is over for good."""
    put(rig, "a")
    worker = rig.worker()
    worker.take(1)
    assert worker.close(blame=True) == 1
    other = rig.worker()
    assert [job.deliveries for job in other.take(1).jobs] == [1]


def test_a_redelivered_job_comes_first_with_empty_hands_and_waits_otherwise(rig: Rig) -> None:
    """It neither starves behind urgent jobs, nor joins what the process holds elsewhere."""
    rig.producer.enqueue(QUEUE, [submission("suspect", step=3)])
    rig.worker().take(1)
    rig.pass_time(LEASE + 1)
    worker = rig.worker()
    worker.reap()
    put(rig, "urgent")
    elsewhere = worker.take(5, 1)
    assert (ids(elsewhere), elsewhere.blocked) == (["urgent"], True)
    worker.complete([succeed(elsewhere.jobs[0].field, "urgent")])
    put(rig, "urgent-too")
    assert ids(worker.take(5)) == ["suspect"]


def test_a_running_job_that_comes_back_is_queued_again(rig: Rig) -> None:
    """Neither a release nor the death of its owner leaves a job saying that it runs."""
    put(rig, "a")
    for give_back in (lambda worker: worker.close(), lambda _: rig.pass_time(LEASE + 1)):
        worker = rig.worker()
        worker.renew({worker.take(1).jobs[0].field: "a"})
        assert status(rig, "a").running
        give_back(worker)
        rig.worker().reap()
        assert (status(rig, "a").running, status(rig, "a").queue) == (False, QUEUE)


def test_a_job_that_ran_and_came_back_has_its_deadline_still(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for it past that learns that it has expired, whether it was given back or its owner died."""
    now = rig.worker().take(0).now
    rig.producer.enqueue(QUEUE, [submission(name, expires=now + 1) for name in ("released", "reaped")])
    worker = rig.worker()
    first, second = worker.take(2).jobs
    worker.renew({first.field: "released", second.field: "reaped"})
    worker.release([first.field])
    monkeypatch.setattr(wire, "OVERDUE_SECONDS", 0.0)
    over = until(lambda: status(rig, "released").result, "it has expired")
    assert (over.status, status(rig, "reaped").running) == (JobStatus.EXPIRED, True)
    rig.pass_time(LEASE + 1)
    rig.worker().reap()
    assert status(rig, "reaped").result.status is JobStatus.EXPIRED


def test_a_job_that_comes_to_an_owner_without_a_lease_is_found(rig: Rig) -> None:
    """It waited past its lease, is given a job all the same, and dies: others find that at once."""
    late = rig.worker()
    late.take(0)
    rig.pass_time(LEASE + 1)
    other = rig.worker()
    assert other.reap() == 0
    put(rig, "a")
    assert late.wait(5.0)
    other.reap()
    assert ids(other.take(5)) == ["a"]


def test_what_came_without_a_lease_makes_none(rig: Rig) -> None:
    """An owner that wakes past its lease learns that it lost it, though a job came to it before it asked."""
    late = rig.worker()
    put(rig, "a")
    late.take(1)
    rig.pass_time(LEASE + 1)
    rig.worker().reap()
    rig.worker().take(1)
    put(rig, "b")
    assert late.wait(5.0)
    assert not late.renew({}).stands
    taken = late.take(1)
    assert (taken.stood, ids(taken)) == (False, ["b"])
    assert late.take(0).stood


def test_a_take_is_bounded_in_bytes(rig: Rig) -> None:
    """As many jobs as fit, in their order, payloads included; the first one whatever its size."""
    order = ("large", "a", "b", "c", "d")
    jobs = [submission(name, payload=b"x" * 40_000 if name == "large" else None) for name in order]
    rig.producer.enqueue(QUEUE, jobs)
    worker = rig.worker()
    one = message_bytes(jobs[1].message)
    assert ids(first := worker.take(5, most_bytes=1)) == ["large"]
    assert ids(worker.take(5, most_bytes=2 * one)) == ["a", "b"]
    assert ids(worker.take(5, most_bytes=0)) == ["c"]
    assert ids(last := worker.take(5, most_bytes=one)) == ["d"]
    assert (first.by_bytes, last.by_bytes) == (True, False)


def test_priorities_age_where_bytes_end_every_take(rig: Rig) -> None:
    """A job of little urgency is taken though never as many come as were asked for, and gets no more than its share."""
    rig.producer.enqueue(QUEUE, [submission(f"low {n}", step=3) for n in range(3)])
    one, taken, worker = message_bytes(submission("x").message), list[str](), rig.worker()
    for number in range(16):
        rig.producer.enqueue(QUEUE, [submission(f"urgent {number} {n}") for n in range(2)])
        leased = worker.take(8, most_bytes=one)
        taken += ids(leased)
        worker.complete([succeed(job.field, job_id) for job, job_id in zip(leased.jobs, ids(leased), strict=True)])
        rig.pass_time(1_000.0)
        worker.take(0)
    low = [number for number, job_id in enumerate(taken) if job_id.startswith("low")]
    assert len(low) == 3
    assert low[2] - low[1] >= 3  # Two of eight might have come at once.


def test_an_idempotency_key_stands_where_nobody_wants_an_answer(rig: Rig) -> None:
    """A job that leaves no answer is run once for its key, long after its end."""
    arguments = encode_arguments("text", {})

    def enqueue(job_id: str) -> list[str]:
        message = encode_message(job_id, QUEUE, arguments, ignore_result=True)
        job = Submission(job_id=job_id, list_index=0, message=message, idempotency_key="order-7")
        return list(rig.producer.enqueue(QUEUE, [job]).job_ids)

    assert enqueue("a") == ["a"]
    worker = rig.worker()
    (job,) = worker.take(1).jobs
    worker.complete([Completion(field=job.field, job_id="a", outcome=Outcome.SUCCEEDED)])
    rig.forget("a")
    assert enqueue("b") == ["a"]
    assert worker.take(1).jobs == []


def test_a_payload_is_the_first_one_accepted_for_its_job(rig: Rig) -> None:
    """A job submitted again under its id, or refused elsewhere, changes nothing of what is queued."""
    rig.producer.enqueue(QUEUE, [submission("a", payload=b"first")])
    rig.producer.enqueue(QUEUE, [submission("a", payload=b"second")])
    assert rig.producer.enqueue("nowhere", [submission("a", payload=b"third")]) is None
    assert rig.worker().payloads(["a"]) == [b"first"]


def test_an_idempotency_key_is_free_again_when_its_job_left_no_trace(rig: Rig) -> None:
    """Who asks again after the answer has gone gets a new job, not an id that nobody knows."""
    rig.producer.enqueue(QUEUE, [submission("a", once="order-7")])
    worker = rig.worker()
    (job,) = worker.take(1).jobs
    worker.complete([succeed(job.field, "a")])
    rig.forget("a")
    again = rig.producer.enqueue(QUEUE, [submission("b", once="order-7")])
    assert again is not None
    assert list(again.job_ids) == ["b"]


@pytest.mark.parametrize("kind", ["valkey", "redis"])
def test_a_server_without_memory_refuses_new_jobs_and_ends_old_ones(kind: str, request: pytest.FixtureRequest) -> None:
    """Otherwise a queue that filled the memory could never drain."""
    url = request.getfixturevalue(f"{kind}_server")
    client = redis.Redis.from_url(url)
    rig = _redis_rig(url, client, lambda: client)
    rig.producer.declare(QueueInfo(name=QUEUE, task="echo"))
    put(rig, "a", "b")
    client.config_set("maxmemory", 1)
    try:
        refused = rig.producer.enqueue(QUEUE, [submission("c")])
        assert refused is not None
        assert (list(refused.job_ids), refused.bound) == ([], "max_memory_share")
        worker = rig.worker()
        first, second = worker.take(2).jobs
        assert worker.renew({first.field: "a"}).stands
        assert worker.complete([succeed(first.field, "a")]) == [True]
        assert worker.release([second.field]) == 1
        # It refuses to let a worker wait, but what is there is given, with patience or without.
        assert not worker.wait(0.01)
        (again,) = worker.take(1, patience=0.01).jobs
        assert worker.take(1, patience=0.01).jobs == []
        assert worker.release([again.field]) == 1
    finally:
        client.config_set("maxmemory", 0)
    assert status(rig, "a").result.get() == "yes"
    client.close()


def test_an_ended_lease_is_not_begun_again(broker_url: str) -> None:
    """A thread that is late must not take what its worker has just given back."""
    worker = RedisJobStore(broker_url, QUEUE)
    worker.close()
    for late in (lambda: worker.take(1), lambda: worker.wait(0.01), lambda: worker.report({})):
        with pytest.raises(BrokerUnavailable, match="has ended"):
            late()


@pytest.mark.parametrize("kind", ["valkey", "redis"])
def test_scripts_survive_a_server_that_forgot_them(kind: str, request: pytest.FixtureRequest) -> None:
    """SCRIPT FLUSH, as after a restart, is not an error."""
    url = request.getfixturevalue(f"{kind}_server")
    client = redis.Redis.from_url(url)
    rig = _redis_rig(url, client, lambda: client)
    rig.producer.declare(QueueInfo(name=QUEUE, task="echo"))
    put(rig, "a")
    worker = rig.worker()
    client.script_flush()
    (job,) = worker.take(1).jobs
    client.script_flush()
    put(rig, "patience")
    client.script_flush()
    assert ids(worker.take(1, patience=5.0)) == ["patience"]
    client.script_flush()
    assert worker.complete([succeed(job.field, "a")]) == [True]
    client.script_flush()
    put(rig, "b")
    client.close()


def test_a_reply_of_take_that_was_lost_is_recovered(broker_url: str) -> None:
    """Jobs leased by a reply that never arrived are given back by their owner's next take."""
    client = redis.Redis.from_url(broker_url)
    rig = _redis_rig(broker_url, client, lambda: client)
    rig.producer.declare(QueueInfo(name=QUEUE, task="echo"))
    put(rig, "a", "b")
    worker = RedisJobStore(broker_url, QUEUE, client=client)
    seen = worker.take(1)
    real, lost = client.execute_command, []

    def lose_reply(*args: Any, **options: Any) -> Any:
        real(*args, **options)
        lost.append(args[0])
        raise redis.ConnectionError("the reply was lost")

    client.execute_command = lose_reply  # type: ignore[method-assign]  # a lost reply can't be had otherwise
    with pytest.raises(Exception, match="no answer from the broker"):
        worker.take(5)
    client.execute_command = real  # type: ignore[method-assign]  # a lost reply can't be had otherwise
    assert lost == ["EVALSHA"]
    assert ids(worker.take(5)) == ["b"]
    assert ids(seen) == ["a"]
    client.close()


def test_the_asynchronous_store_says_the_same(broker_url: str) -> None:
    """The asyncio twin enqueues, waits, cancels and reports like the blocking one."""

    async def story() -> None:
        store = AsyncRedisQueueStore(broker_url)
        await store.declare(QueueInfo(name=QUEUE, task="echo", max_depth=3))
        assert await store.enqueue("nowhere", [submission("a")]) is None
        jobs = [submission("a"), submission("b", payload=b"[]"), submission("c"), submission("d", payload=b"[]")]
        accepted = await store.enqueue(QUEUE, jobs)
        assert accepted is not None
        assert list(accepted.job_ids) == ["a", "b", "c"]
        assert [standing.position for standing in await store.standings(["a", "b", "x"])] == [0, 1, None]
        waiting = asyncio.create_task(store.wait("a", 30.0))
        await asyncio.to_thread(_answer_one, broker_url)
        standing = await waiting
        assert standing.result is not None
        assert standing.result.get() == "yes"
        assert await store.cancel("b") is True
        assert await store.cancel("a") is False
        assert await store.cancel("x") is None
        (report,) = await store.reports()
        assert report.totals["succeeded"] == 1
        info = await store.info(QUEUE)
        assert info is not None
        assert info.max_depth == 3
        await store.close()

    asyncio.run(story())


def _answer_one(url: str) -> None:
    worker = RedisJobStore(url, QUEUE)
    (job,) = until(lambda: worker.take(1).jobs, "a job to take")
    worker.complete([succeed(job.field, "a")])
    worker.close()
