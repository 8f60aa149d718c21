"""Texts told while they are written: one contract over every store."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import Any

import fakeredis
import pytest
import redis

from pipemill.errors import BrokerUnavailable
from pipemill.protocol import JobStatus, Outcome, encode_success, names
from pipemill.store.aio_queues import AsyncRedisQueueStore
from pipemill.store.base import Completion, Leased
from pipemill.store.jobs import RedisJobStore
from pipemill.store.memory import MemoryBroker
from pipemill.store.memory_aio import AsyncMemoryQueueStore
from pipemill.store.streams import ENTRIES_KEPT, Piece, StreamEntry
from tests.integration import test_store_contract as contract
from tests.integration.test_store_contract import QUEUE, Rig, put, status, succeed

rig = contract.rig


def piece(job: Leased, text: str, offset: int = 0, job_id: str = "a") -> Piece:
    """A part of a leased job's text."""
    return Piece(field=job.field, job_id=job_id, run=job.field, offset=offset, text=text)


def told(rig: Rig, job_id: str = "a", after: str = "0-0") -> list[StreamEntry]:
    """All that there is behind an entry, in as many calls as it takes."""
    found: list[StreamEntry] = []
    while more := rig.producer.read_stream(job_id, found[-1].id if found else after, 0.0):
        found += more
    return found


def test_a_text_is_told_and_ends_with_its_job(rig: Rig) -> None:
    """Pieces come back as they were told; the end comes with the result, and the piece that was left before it."""
    put(rig, "a")
    worker = rig.worker()
    (job,) = worker.take(1).jobs
    assert worker.emit([piece(job, "Hé"), piece(job, "llo", 2)]) == [True, True]
    end = replace(succeed(job.field, "a", "Héllo you"), streamed=True, piece=piece(job, " you", 5))
    assert worker.complete([end]) == [True]
    entries = told(rig)
    assert [(each.run, each.offset, each.text, each.ends) for each in entries] == [
        (job.field, 0, "Hé", False),
        (job.field, 2, "llo", False),
        (job.field, 5, " you", False),
        ("", 0, "", True),
    ]
    assert told(rig, after=entries[1].id) == entries[2:]
    assert status(rig, "a").result.get() == "Héllo you"


def test_who_lost_the_lease_tells_nothing(rig: Rig) -> None:
    """After the reaper gave a job to another worker, the first one's pieces and its end leave the stream as it is."""
    put(rig, "a")
    late, next_worker = rig.worker(), rig.worker()
    (first,) = late.take(1).jobs
    assert late.emit([piece(first, "Hel")]) == [True]
    rig.pass_time(60)
    assert next_worker.reap() == 1
    (second,) = next_worker.take(1).jobs
    assert second.field != first.field
    assert late.emit([piece(first, "lo", 3)]) == [False]
    assert next_worker.emit([piece(second, "Good")]) == [True]
    end = replace(succeed(first.field, "a"), streamed=True, piece=piece(first, "lo", 3))
    assert late.complete([end]) == [False]
    assert [each.text for each in told(rig)] == ["Hel", "Good"]


def test_a_job_that_comes_back_does_not_end_its_stream(rig: Rig) -> None:
    """An attempt that is retried, and a job that is given back, leave the stream open."""
    put(rig, "a", "b")
    worker = rig.worker()
    first, second = worker.take(2).jobs
    worker.emit([piece(first, "Hel"), piece(second, "Hel", job_id="b")])
    retried = Completion(
        field=first.field, job_id="a", outcome=Outcome.RETRIED, incident=b'{"kind":"failed"}', streamed=True
    )
    assert worker.complete([retried]) == [True]
    assert worker.release([second.field]) == 1
    assert [each.ends for each in (*told(rig), *told(rig, "b"))] == [False, False]


def test_a_cancelled_job_ends_its_stream(rig: Rig) -> None:
    """Cancelled while it is written, a job's stream ends when its worker lets go of it; the last piece isn't told."""
    put(rig, "a")
    worker = rig.worker()
    (job,) = worker.take(1).jobs
    worker.emit([piece(job, "Hel")])
    assert rig.producer.cancel("a")
    end = replace(succeed(job.field, "a"), streamed=True, piece=piece(job, "lo", 3))
    assert worker.complete([end]) == [False]
    assert [(each.text, each.ends) for each in told(rig)] == [("Hel", False), ("", True)]
    assert status(rig, "a").result.status is JobStatus.CANCELLED


def test_dead_letters_end_their_streams(rig: Rig) -> None:
    """A job that is given up ends its stream, too."""
    put(rig, "a")
    worker = rig.worker()
    (job,) = worker.take(1).jobs
    dead = replace(succeed(job.field, "a"), outcome=Outcome.DEAD, streamed=True, piece=piece(job, "Hel"))
    assert worker.complete([dead]) == [True]
    assert [(each.text, each.ends) for each in told(rig)] == [("Hel", False), ("", True)]


def test_jobs_without_streams_have_none(rig: Rig) -> None:
    """Jobs that nobody follows leave no key behind, in one call with one that is followed."""
    put(rig, "a", "b")
    worker = rig.worker()
    first, second = worker.take(2).jobs
    followed = replace(succeed(second.field, "b"), streamed=True)
    assert worker.complete([succeed(first.field, "a"), followed]) == [True, True]
    assert told(rig, "a") == []
    assert [each.ends for each in told(rig, "b")] == [True]


def test_a_stream_is_bounded(rig: Rig) -> None:
    """However much is told, a stream keeps its last entries only."""
    put(rig, "a")
    worker = rig.worker()
    (job,) = worker.take(1).jobs
    for start in range(0, 4 * ENTRIES_KEPT, ENTRIES_KEPT):
        worker.emit([piece(job, "x", start + number) for number in range(ENTRIES_KEPT)])
    entries = told(rig)
    assert ENTRIES_KEPT <= len(entries) <= ENTRIES_KEPT + 200
    assert entries[-1].offset == 4 * ENTRIES_KEPT - 1


def test_a_reader_waits_for_the_next_entry(rig: Rig) -> None:
    """Who waits is woken by what is told."""
    put(rig, "a")
    worker = rig.worker()
    (job,) = worker.take(1).jobs
    assert rig.producer.read_stream("a", "0-0", 0.01) == []
    found: list[StreamEntry] = []
    reader = threading.Thread(target=lambda: found.extend(rig.producer.read_stream("a", "0-0", 8.0)))
    reader.start()
    worker.emit([piece(job, "Hel")])
    reader.join(30)
    assert [each.text for each in found] == ["Hel"]


def test_a_text_expires_with_its_result(valkey_server: str) -> None:
    """A stream lives no longer than its job is remembered; once the job has ended, as long as its result."""
    with redis.Redis.from_url(valkey_server) as client:
        client.flushall()
        made = contract._redis_rig(valkey_server, client, lambda: redis.Redis.from_url(valkey_server))
        made.producer.declare(contract.QueueInfo(name=QUEUE, task=""))
        put(made, "a")
        worker = RedisJobStore(valkey_server, QUEUE, result_ttl_seconds=77)
        (job,) = worker.take(1).jobs
        worker.emit([piece(job, "Hel")])
        assert 0 < client.ttl(names.stream_key("a")) <= names.RECORD_TTL_SECONDS
        worker.complete([replace(succeed(job.field, "a"), streamed=True)])
        assert 0 < client.ttl(names.stream_key("a")) <= 77
        worker.close()
        made.producer.close()


def test_jobs_end_where_streams_may_not_be_written(valkey_server: str) -> None:
    """A key that is no stream, or rules from before there were streams, keep no job from its end."""
    with redis.Redis.from_url(valkey_server) as client:
        client.flushall()
        made = contract._redis_rig(valkey_server, client, lambda: redis.Redis.from_url(valkey_server))
        made.producer.declare(contract.QueueInfo(name=QUEUE, task=""))
        put(made, "a")
        client.set(names.stream_key("a"), "no stream")
        worker = RedisJobStore(valkey_server, QUEUE)
        (job,) = worker.take(1).jobs
        assert worker.complete([replace(succeed(job.field, "a"), streamed=True)]) == [True]
        assert status(made, "a").result.get() == "yes"
        worker.close()
        made.producer.close()


@pytest.mark.parametrize("kind", ["memory", "fakeredis", "valkey"])
def test_the_asynchronous_store_reads_alike(kind: str, request: pytest.FixtureRequest) -> None:
    """It reads at once what is there, and waits for what isn't."""
    broker = MemoryBroker()

    async def read(store: Any, tell: Any) -> list[str]:
        first = await store.read_stream("a", "0-0", 0.0)
        waiting = asyncio.create_task(store.read_stream("a", first[-1].id, 8.0))
        await asyncio.sleep(0)
        await asyncio.to_thread(tell)
        second = await waiting
        await store.close()
        return [each.text for each in (*first, *second)]

    if kind == "memory":
        store: Any = AsyncMemoryQueueStore(broker)
        broker.append("a", Piece(field="", job_id="a", run="1", offset=0, text="Hel"))
        tell = lambda: broker.append("a", Piece(field="", job_id="a", run="1", offset=3, text="lo"))  # noqa: E731  # one line says it
    else:
        url = "redis://fake" if kind == "fakeredis" else request.getfixturevalue("valkey_server")
        server = fakeredis.FakeServer(server_type="valkey")
        client: Any = fakeredis.FakeRedis(server=server) if kind == "fakeredis" else redis.Redis.from_url(url)
        client.flushall()
        said = {"r": "1", "o": "0", "t": "Hel"}
        client.xadd(names.stream_key("a"), said)
        tell = lambda: client.xadd(names.stream_key("a"), {"r": "1", "o": "3", "t": "lo"})  # noqa: E731  # as above
        own = fakeredis.FakeAsyncRedis(server=server) if kind == "fakeredis" else None
        store = AsyncRedisQueueStore(url, client=own)
    assert asyncio.run(read(store, tell)) == ["Hel", "lo"]


def test_a_large_answer_ends_its_stream(rig: Rig) -> None:
    """An answer that is written beside the script, too."""
    put(rig, "a")
    worker = rig.worker()
    (job,) = worker.take(1).jobs
    document = encode_success("a", "x" * 100_000)
    end = Completion(field=job.field, job_id="a", outcome=Outcome.SUCCEEDED, document=document, streamed=True)
    assert worker.complete([end]) == [True]
    assert [each.ends for each in told(rig)] == [True]
    assert len(status(rig, "a").result.get()) == 100_000


def test_the_connection_for_telling_mends_itself(valkey_server: str) -> None:
    """A server that forgot its scripts is told again; a connection that was cut is an error once, and then replaced."""
    with redis.Redis.from_url(valkey_server) as client:
        client.flushall()
        made = contract._redis_rig(valkey_server, client, lambda: redis.Redis.from_url(valkey_server))
        made.producer.declare(contract.QueueInfo(name=QUEUE, task=""))
        put(made, "a")
        worker = RedisJobStore(valkey_server, QUEUE)
        (job,) = worker.take(1).jobs
        assert worker.emit([piece(job, "a")]) == [True]
        client.script_flush()
        assert worker.emit([piece(job, "b", 1)]) == [True]
        client.client_kill_filter(_type="normal", skipme=True)
        with pytest.raises(BrokerUnavailable):
            worker.emit([piece(job, "c", 2)])
        assert worker.emit([piece(job, "c", 2)]) == [True]
        assert [each.text for each in told(made)] == ["a", "b", "c"]
        worker.close()
        with pytest.raises(BrokerUnavailable, match="has ended"):
            worker.emit([piece(job, "d", 3)])
        made.producer.close()
