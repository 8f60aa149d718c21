"""Retries and dead letters: one contract for every store."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
import redis

from pipemill.errors import BrokerRefused, RetryLimitReached
from pipemill.protocol import IncidentKind, JobStatus, Outcome, encode_arguments, encode_failure, encode_message, names
from pipemill.protocol.history import INCIDENTS_KEPT, encode_incident, encode_letter
from pipemill.store import dead
from pipemill.store.aio_queues import AsyncRedisQueueStore
from pipemill.store.base import Completion, JobStore, QueueInfo, Submission
from pipemill.store.dead import ReplayCode
from pipemill.store.jobs import RedisJobStore
from pipemill.store.queues import RedisQueueStore
from tests.integration import test_store_contract as contract
from tests.integration.test_store_contract import LEASE, QUEUE, Rig, ids, put, status, submission, succeed

rig = contract.rig


def failed(attempt: int = 1) -> bytes:
    """What the history gains by an attempt."""
    return encode_incident(IncidentKind.FAILED, worker="w", attempt=attempt, error="SourceUnavailable", text="503")


def retry(field: str, job_id: str, delay: float = 100.0, attempt: int = 1) -> Completion:
    """An attempt that failed with what may pass."""
    return Completion(field=field, job_id=job_id, outcome=Outcome.RETRIED, delay=delay, incident=failed(attempt))


def death(field: str, job_id: str) -> Completion:
    """A job that is given up."""
    return Completion(
        field=field,
        job_id=job_id,
        outcome=Outcome.DEAD,
        document=encode_failure(job_id, RetryLimitReached("enough")),
        incident=failed(3),
        letter=encode_letter(error="RetryLimitReached", text="enough", deliveries=1, attempts=3),
    )


def give_up(rig: Rig, *job_ids: str, worker: JobStore | None = None) -> None:
    """Enqueue jobs and give them up."""
    worker = worker or rig.worker()
    for job_id in job_ids:
        put(rig, job_id)
        (job,) = worker.take(1).jobs
        assert worker.complete([death(job.field, job_id)]) == [True]


def kinds(history: Any) -> list[str]:
    """What happened, in a word each."""
    return [incident.kind.value for incident in history]


def test_a_retried_job_waits_with_its_history_and_comes_back(rig: Rig) -> None:
    """Its delay is told by the server's clock; it is queued meanwhile, and held by nobody."""
    put(rig, "a")
    worker = rig.worker()
    taken = worker.take(1)
    assert worker.complete([retry(taken.jobs[0].field, "a")]) == [True]
    assert worker.take(5).jobs == []
    assert (status(rig, "a").queue, status(rig, "a").position) == (QUEUE, None)
    ((incident,),) = worker.histories(["a"])
    assert (incident.attempt, incident.error, incident.text) == (1, "SourceUnavailable", "503")
    assert taken.now - 1 <= incident.at <= worker.take(0).now + 1
    rig.pass_time(99)
    assert worker.take(5).jobs == []
    rig.pass_time(2)
    again = worker.take(5)
    assert (ids(again), again.jobs[0].deliveries) == (["a"], 0)
    worker.complete([succeed(again.jobs[0].field, "a")])
    assert worker.histories(["a", "stranger"]) == [(), ()]
    (report,) = rig.producer.reports()
    assert (report.totals["retried"], report.totals["succeeded"], report.parked) == (1, 1, 0)


def test_a_job_that_fares_well_has_no_history(rig: Rig) -> None:
    """Nothing is written for it."""
    put(rig, "a")
    worker = rig.worker()
    (job,) = worker.take(1).jobs
    assert worker.histories(["a"]) == [()]
    worker.complete([succeed(job.field, "a")])
    assert worker.histories(["a"]) == [()]
    assert worker.histories([]) == []


def test_who_lost_the_lease_retries_nothing(rig: Rig) -> None:
    """Neither the job nor its history is changed by a worker that woke too late."""
    put(rig, "a")
    paused, other = rig.worker(), rig.worker()
    (stale,) = paused.take(1).jobs
    rig.pass_time(LEASE + 1)
    other.reap()
    assert paused.complete([retry(stale.field, "a")]) == [False]
    assert paused.complete([death(stale.field, "a")]) == [False]
    assert kinds(other.histories(["a"])[0]) == ["lost"]
    assert rig.producer.dead_letters(QUEUE, 9) == []
    assert ids(other.take(1)) == ["a"]


def test_a_job_that_was_cancelled_isnt_retried(rig: Rig) -> None:
    """Its end stands, and nothing of it comes back."""
    put(rig, "a")
    worker = rig.worker()
    (job,) = worker.take(1).jobs
    rig.producer.cancel("a")
    assert worker.complete([retry(job.field, "a", delay=0.0)]) == [False]
    assert worker.take(5).jobs == []
    assert worker.histories(["a"]) == [()]


def test_deaths_of_workers_are_noted_with_their_names(rig: Rig) -> None:
    """By a reap and by an engine that gives back with blame; a suspect that is retried stays one."""
    put(rig, "a")
    first, second = rig.worker(), rig.worker()
    first.take(1)
    rig.pass_time(LEASE + 1)
    second.reap()
    second.take(1)
    second.close(blame=True)
    worker = rig.worker()
    (job,) = worker.take(1).jobs
    (history,) = worker.histories(["a"])
    assert [(incident.kind, incident.worker) for incident in history] == [
        (IncidentKind.LOST, first.owner),
        (IncidentKind.LOST, second.owner),
    ]
    worker.complete([retry(job.field, "a", delay=0.0)])
    assert [again.deliveries for again in worker.take(1).jobs] == [2]
    assert kinds(worker.histories(["a"])[0]) == ["lost", "lost", "failed"]


def test_jobs_that_are_released_have_no_history(rig: Rig) -> None:
    """A worker that leaves in order is nobody's death."""
    put(rig, "a")
    worker = rig.worker()
    worker.release([worker.take(1).jobs[0].field])
    worker.take(1)
    worker.close()
    assert rig.worker().histories(["a"]) == [()]


def test_a_history_is_bounded(rig: Rig) -> None:
    """The last incidents are kept, so the number of attempts is."""
    put(rig, "a")
    worker = rig.worker()
    for attempt in range(1, INCIDENTS_KEPT + 10):
        (job,) = worker.take(1).jobs
        worker.complete([retry(job.field, "a", delay=0.0, attempt=attempt)])
    (history,) = worker.histories(["a"])
    assert [each.attempt for each in history] == list(range(10, INCIDENTS_KEPT + 10))


def test_a_dead_letter_has_all_of_its_job(rig: Rig) -> None:
    """What it ended with, its history, message and payload; a list leaves out the last three."""
    payload = encode_arguments("x" * 100_000, {"top_k": 2})
    rig.producer.enqueue(QUEUE, [submission("a", step=2, payload=payload)])
    worker = rig.worker()
    (job,) = worker.take(1).jobs
    worker.complete([retry(job.field, "a", delay=0.0)])
    taken = worker.take(1)
    worker.complete([death(taken.jobs[0].field, "a")])
    assert status(rig, "a").result.status is JobStatus.FAILED
    assert worker.payloads(["a"]) == [None]
    assert worker.histories(["a"]) == [()]
    (listed,) = rig.producer.dead_letters(QUEUE, 9)
    assert (listed.history, listed.message, listed.payload) == ((), None, None)
    letter = rig.producer.dead_letter(QUEUE, "a")
    assert letter is not None
    assert replace(letter, history=(), message=None, payload=None) == listed
    assert (letter.id, letter.queue, letter.error, letter.text) == ("a", QUEUE, "RetryLimitReached", "enough")
    assert (letter.deliveries, letter.attempts, letter.step) == (1, 3, 6)
    assert letter.size > 100_000
    assert taken.now - 1 <= letter.at <= worker.take(0).now + 1
    assert kinds(letter.history) == ["failed", "failed"]
    assert letter.message == job.raw
    assert letter.arguments() == ("x" * 100_000, {"top_k": 2})
    assert "xxx" not in repr(letter)


def test_letters_are_listed_latest_first(rig: Rig) -> None:
    """As many as were asked for; of a queue that nobody knows, none."""
    give_up(rig, "a", "b", "c")
    assert [letter.id for letter in rig.producer.dead_letters(QUEUE, 2)] == ["c", "b"]
    assert rig.producer.dead_letters("nowhere", 2) == []
    assert rig.producer.dead_letter(QUEUE, "stranger") is None
    (report,) = rig.producer.reports()
    assert (report.dead, report.totals["dead"]) == (3, 3)


def test_a_replayed_job_is_queued_as_if_new(rig: Rig) -> None:
    """Under its id, in its list, with its payload; delivered never before; its failure is gone, its history isn't."""
    payload = encode_arguments("large", {})
    rig.producer.enqueue(QUEUE, [submission("a", step=2, payload=payload)])
    for _ in range(2):
        worker = rig.worker()
        worker.take(1)
        rig.pass_time(LEASE + 1)
        rig.worker().reap()
    worker = rig.worker()
    (job,) = worker.take(1).jobs
    assert job.deliveries == 2
    worker.complete([death(job.field, "a")])
    replay = rig.producer.replay(QUEUE, ["a"])
    assert replay is not None
    assert list(replay.codes) == [ReplayCode.DONE]
    assert (status(rig, "a").result, status(rig, "a").queue, status(rig, "a").position) == (None, QUEUE, 0)
    assert rig.producer.dead_letters(QUEUE, 9) == []
    (report,) = rig.producer.reports()
    assert (report.waiting[6], report.totals["replayed"], report.dead) == (1, 1, 0)
    (again,) = worker.take(1).jobs
    assert (again.raw, again.deliveries) == (job.raw, 0)
    assert worker.payloads(["a"]) == [payload]
    assert kinds(worker.histories(["a"])[0]) == ["lost", "lost", "failed", "replayed"]
    worker.complete([succeed(again.field, "a")])
    assert rig.producer.wait("a", 5.0).result.get() == "yes"


def test_a_replay_is_idempotent_and_refuses_what_isnt_dead(rig: Rig) -> None:
    """Twice is once; what never died, or has ended otherwise since, stays as it is."""
    give_up(rig, "a", "b")
    rig.producer.enqueue(QUEUE, [submission("alive")])
    replay = rig.producer.replay(QUEUE, ["a", "a", "alive", "stranger"])
    assert replay is not None
    waits, unknown = ReplayCode.WAITS, ReplayCode.UNKNOWN
    assert list(replay.codes) == [ReplayCode.DONE, waits, waits, unknown]
    worker = rig.worker()
    taken = worker.take(9)
    assert sorted(ids(taken)) == ["a", "alive"]
    worker.complete([succeed(job.field, job_id) for job, job_id in zip(taken.jobs, ids(taken), strict=True)])
    again = rig.producer.replay(QUEUE, ["a"])
    assert again is not None
    assert list(again.codes) == [unknown]
    assert status(rig, "a").result.get() == "yes"
    assert rig.producer.replay("nowhere", ["a"]) is None


def test_a_letter_of_a_job_that_succeeded_since_isnt_replayed(rig: Rig) -> None:
    """Its id was submitted anew after the failure had gone: the answer stands."""
    give_up(rig, "a")
    rig.forget("a")
    put(rig, "a")
    worker = rig.worker()
    waiting = rig.producer.replay(QUEUE, ["a"])
    (job,) = worker.take(1).jobs
    worker.complete([succeed(job.field, "a")])
    ended = rig.producer.replay(QUEUE, ["a"])
    assert waiting is not None
    assert ended is not None
    assert [*waiting.codes, *ended.codes] == [ReplayCode.WAITS, ReplayCode.ENDED]
    assert status(rig, "a").result.get() == "yes"
    assert [letter.id for letter in rig.producer.dead_letters(QUEUE, 9)] == ["a"]


def test_a_new_job_of_a_dead_ones_id_keeps_its_payload(rig: Rig) -> None:
    """Dropping the letter takes nothing from the job that waits under the same id; dying again replaces the letter."""
    old, new = encode_arguments("old", {}), encode_arguments("new", {})
    worker = rig.worker()
    rig.producer.enqueue(QUEUE, [submission("a", payload=old)])
    worker.complete([death(worker.take(1).jobs[0].field, "a")])
    rig.forget("a")
    rig.producer.enqueue(QUEUE, [submission("a", payload=new)])
    assert rig.producer.drop(QUEUE, ["a"]) == [True]
    assert worker.payloads(["a"]) == [new]
    worker.complete([death(worker.take(1).jobs[0].field, "a")])
    letter = rig.producer.dead_letter(QUEUE, "a")
    assert letter is not None
    assert letter.arguments() == ("new", {})


def test_a_replay_respects_the_depth_cap(rig: Rig) -> None:
    """What doesn't fit stays a letter."""
    give_up(rig, "a", "b", "c")
    rig.producer.enqueue(QUEUE, [submission(str(n)) for n in range(9)])
    replay = rig.producer.replay(QUEUE, ["a", "b", "stranger", "c"])
    assert replay is not None
    full = ReplayCode.FULL
    assert list(replay.codes) == [ReplayCode.DONE, full, ReplayCode.UNKNOWN, full]
    assert (replay.depth, replay.max_depth) == (9, 10)
    assert [letter.id for letter in rig.producer.dead_letters(QUEUE, 9)] == ["c", "b"]


def test_dropped_letters_are_gone(rig: Rig) -> None:
    """With all that belonged to them; the failure that the producer sees stays."""
    give_up(rig, "a", "b")
    assert rig.producer.drop(QUEUE, ["a", "stranger", "a"]) == [True, False, False]
    assert [letter.id for letter in rig.producer.dead_letters(QUEUE, 9)] == ["b"]
    assert rig.producer.dead_letter(QUEUE, "a") is None
    replay = rig.producer.replay(QUEUE, ["a"])
    assert replay is not None
    assert list(replay.codes) == [ReplayCode.UNKNOWN]
    assert status(rig, "a").result.status is JobStatus.FAILED


def test_a_message_without_an_id_is_shown_replayed_and_dropped(rig: Rig) -> None:
    """Whatever its bytes are, they are kept as they came, and come back so."""
    raw = b'\x00\xff not "JSON"\n'
    rig.push(QUEUE, raw)
    worker = rig.worker()
    nameless = Completion(field=worker.take(1).jobs[0].field, job_id="", outcome=Outcome.DEAD)
    assert worker.complete([nameless]) == [True]
    (letter,) = rig.producer.dead_letters(QUEUE, 9)
    assert letter.id.startswith("unreadable-")
    whole = rig.producer.dead_letter(QUEUE, letter.id)
    assert whole is not None
    assert (whole.message, whole.payload, whole.history) == (raw, None, ())
    replay = rig.producer.replay(QUEUE, [letter.id])
    assert replay is not None
    assert list(replay.codes) == [ReplayCode.DONE]
    (job,) = worker.take(1).jobs
    assert job.raw == raw
    assert status(rig, letter.id).queue is None
    worker.complete([Completion(field=job.field, job_id="", outcome=Outcome.DEAD)])
    (letter,) = rig.producer.dead_letters(QUEUE, 9)
    assert rig.producer.drop(QUEUE, [letter.id]) == [True]


def test_old_letters_are_forgotten(rig: Rig) -> None:
    """After their time they are neither listed nor replayed, and the next death sweeps them away."""
    give_up(rig, "a")
    rig.pass_time(dead.BOUNDS.seconds + 1)
    assert rig.producer.dead_letters(QUEUE, 9) == []
    replay = rig.producer.replay(QUEUE, ["a"])
    assert replay is not None
    assert list(replay.codes) == [ReplayCode.UNKNOWN]
    give_up(rig, "b")
    assert rig.producer.reports()[0].dead == 1


@pytest.mark.parametrize("bounds", [dead.Bounds(letters=3), dead.Bounds(size=3 * 40_000)], ids=["letters", "bytes"])
def test_letters_are_bounded(rig: Rig, bounds: dead.Bounds, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest go when there are too many of them, or too much of it, payloads counted."""
    monkeypatch.setattr(dead, "BOUNDS", bounds)
    worker = rig.worker()
    for job_id in "abcdef":
        rig.producer.enqueue(QUEUE, [submission(job_id, payload=encode_arguments("x" * 35_000, {}))])
        worker.complete([death(worker.take(1).jobs[0].field, job_id)])
    assert [letter.id for letter in rig.producer.dead_letters(QUEUE, 9)] == ["f", "e", "d"]
    assert rig.producer.reports()[0].dead == 3
    assert rig.producer.drop(QUEUE, list("abcdef")) == [False] * 3 + [True] * 3
    give_up(rig, "g")
    assert [letter.id for letter in rig.producer.dead_letters(QUEUE, 9)] == ["g"]


def test_a_letter_larger_than_the_bound_is_none(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """It can't be kept; its job fails all the same, and no other letter goes for it in vain the next time."""
    monkeypatch.setattr(dead, "BOUNDS", dead.Bounds(size=1_000))
    worker = rig.worker()
    rig.producer.enqueue(QUEUE, [submission("a", payload=b"x" * 2_000)])
    assert worker.complete([death(worker.take(1).jobs[0].field, "a")]) == [True]
    assert rig.producer.dead_letters(QUEUE, 9) == []
    assert status(rig, "a").result.status is JobStatus.FAILED


@pytest.fixture
def client(broker_url: str) -> Any:
    """A look into an empty Valkey."""
    with redis.Redis.from_url(broker_url) as opened:
        yield opened


def test_nothing_of_dead_letters_outlives_its_time(client: Any, broker_url: str) -> None:
    """Each key expires, later with each retry, and dropping all letters leaves no bytes counted."""
    producer, worker = RedisQueueStore(broker_url), RedisJobStore(broker_url, QUEUE)
    producer.declare(QueueInfo(name=QUEUE, task="echo"))
    producer.enqueue(QUEUE, [submission("a", payload=b"x" * 9)])
    for key in (names.record_key("a"), names.payload_key("a")):
        client.expire(key, 100)
    worker.complete([retry(worker.take(1).jobs[0].field, "a", delay=0.0)])
    assert 0 < client.ttl(names.history_key("a")) <= names.RECORD_TTL_SECONDS
    assert all(client.ttl(key) > 100 for key in (names.record_key("a"), names.payload_key("a")))
    worker.complete([death(worker.take(1).jobs[0].field, "a")])
    keys = sorted(key.decode() for key in client.scan_iter("pipemill:dead*"))
    assert keys == sorted(
        [
            names.dead_times_key(QUEUE),
            names.dead_letters_key(QUEUE),
            names.dead_payload_key("a"),
            names.dead_history_key("a"),
        ]
    )
    assert all(0 < client.ttl(key) <= dead.BOUNDS.seconds for key in keys)
    assert int(client.hget(names.dead_letters_key(QUEUE), "")) > 0
    producer.drop(QUEUE, ["a"])
    assert client.hgetall(names.dead_letters_key(QUEUE)) == {b"": b"0"}
    assert client.keys("pipemill:dead-payload:*") + client.keys("pipemill:dead-history:*") == []
    worker.close()
    producer.close()


def test_what_an_older_worker_gave_up_is_taken_over(client: Any, broker_url: str) -> None:
    """Its list of bare messages becomes letters, which can be replayed, delivery count and all."""
    producer, worker = RedisQueueStore(broker_url), RedisJobStore(broker_url, QUEUE)
    producer.declare(QueueInfo(name=QUEUE, task="echo"))
    message = encode_message("old", QUEUE, encode_arguments("text", {}))
    client.lpush(names.dead_key(QUEUE), b"\x013\x02" + message, b"no job")
    letters = producer.dead_letters(QUEUE, 9)
    assert {letter.id.partition("-")[0] for letter in letters} == {"old", "unreadable"}
    assert client.exists(names.dead_key(QUEUE)) == 0
    replay = producer.replay(QUEUE, ["old"])
    assert replay is not None
    assert list(replay.codes) == [ReplayCode.DONE]
    (job,) = worker.take(1).jobs
    assert (job.raw, job.deliveries) == (message, 0)
    worker.close()
    producer.close()


def test_an_older_workers_park_and_end_get_along(client: Any, broker_url: str) -> None:
    """A retried job is parked as any other: whoever knows nothing of histories takes it and ends it."""
    producer, worker = RedisQueueStore(broker_url), RedisJobStore(broker_url, QUEUE)
    producer.declare(QueueInfo(name=QUEUE, task="echo"))
    put_message = submission("a")
    producer.enqueue(QUEUE, [put_message])
    worker.complete([retry(worker.take(1).jobs[0].field, "a", delay=1_000.0)])
    ((member, _),) = client.zrange(names.delayed_key(QUEUE), 0, -1, withscores=True)
    assert member == b"0|" + put_message.message
    worker.close()
    producer.close()


def test_a_server_without_memory_replays_nothing_and_drops(client: Any, broker_url: str) -> None:
    """A replay is new work; giving up and dropping must go on."""
    producer, worker = RedisQueueStore(broker_url), RedisJobStore(broker_url, QUEUE)
    producer.declare(QueueInfo(name=QUEUE, task="echo"))
    for job_id in ("a", "b"):
        producer.enqueue(QUEUE, [submission(job_id)])
        worker.complete([death(worker.take(1).jobs[0].field, job_id)])
    producer.enqueue(QUEUE, [submission("c"), submission("d")])
    first, second = worker.take(2).jobs
    client.config_set("maxmemory", 1)
    try:
        with pytest.raises(BrokerRefused, match="memory"):
            producer.replay(QUEUE, ["a"])
        assert worker.complete([death(first.field, "c"), retry(second.field, "d")]) == [True, True]
        assert producer.drop(QUEUE, ["b"]) == [True]
    finally:
        client.config_set("maxmemory", 0)
    assert [letter.id for letter in producer.dead_letters(QUEUE, 9)] == ["c", "a"]
    worker.close()
    producer.close()


def test_the_asynchronous_store_says_the_same(client: Any, broker_url: str) -> None:
    """The asyncio twin lists, shows, replays and drops like the blocking one."""
    worker = RedisJobStore(broker_url, QUEUE)

    async def story() -> None:
        store = AsyncRedisQueueStore(broker_url)
        await store.declare(QueueInfo(name=QUEUE, task="echo"))
        payload = encode_arguments("large", {})
        jobs: list[Submission] = [submission("a", payload=payload), submission("b")]
        await store.enqueue(QUEUE, jobs)
        await asyncio.to_thread(lambda: worker.complete([death(job.field, job_id) for job, job_id in taken()]))
        assert sorted(letter.id for letter in await store.dead_letters(QUEUE, 9)) == ["a", "b"]
        letter = await store.dead_letter(QUEUE, "a")
        assert letter is not None
        assert letter.arguments() == ("large", {})
        assert await store.dead_letter(QUEUE, "x") is None
        replay = await store.replay(QUEUE, ["a", "x"])
        assert replay is not None
        assert list(replay.codes) == [ReplayCode.DONE, ReplayCode.UNKNOWN]
        assert await store.replay("nowhere", ["a"]) is None
        assert await store.drop(QUEUE, ["b", "x"]) == [True, False]
        await store.close()

    def taken() -> Any:
        found = worker.take(9)
        return zip(found.jobs, ids(found), strict=True)

    asyncio.run(story())
    worker.close()
    assert client.zcard(names.dead_times_key(QUEUE)) == 0
