"""What keeps jobs out of a queue: one contract over every store, and servers whose memory has an end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
import redis

from pipemill import Client
from pipemill.protocol import message_bytes, message_id, names
from pipemill.store.aio_queues import AsyncRedisQueueStore
from pipemill.store.base import Accepted, QueueInfo, Submission
from pipemill.store.jobs import RedisJobStore
from pipemill.store.memory import MemoryBroker
from pipemill.store.memory_queues import MemoryQueueStore
from pipemill.store.queues import RedisQueueStore
from tests.integration import test_store_contract as contract
from tests.integration.test_store_contract import QUEUE, Rig, ids, status, submission
from tests.integration.test_store_tenants import announce, of, plain, put, report

rig = contract.rig
#: What one of these tests' jobs counts for.
ONE = message_bytes(of("", "a")[0].message)


def accepted(rig: Rig, tenant: str, *job_ids: str, **options: Any) -> Accepted:
    """Enqueue jobs in one call."""
    found = rig.producer.enqueue(QUEUE, of(tenant, *job_ids, **options))
    assert found is not None
    return found


def test_bytes_that_wait_are_bounded(rig: Rig) -> None:
    """As many jobs are accepted as fit, the bound is named, what is taken makes room, and a release takes it back."""
    announce(rig, max_bytes=3 * ONE)
    first = accepted(rig, "", "a", "b", "c", "d")
    assert (list(first.job_ids), first.bound, first.limit) == (["a", "b", "c"], "max_bytes", 3 * ONE)
    assert (first.standing, first.standing_jobs, first.refused_bytes) == (3 * ONE, 3, ONE)
    worker = rig.worker()
    taken = worker.take(2)
    assert list(accepted(rig, "", "e", "f", "g").job_ids) == ["e", "f"]
    worker.release([job.field for job in taken.jobs])
    assert report(rig).waiting_bytes == 5 * ONE
    assert accepted(rig, "", "g").bound == "max_bytes"


def test_a_payload_beside_the_message_counts(rig: Rig) -> None:
    """What travels by reference fills the broker as well."""
    announce(rig, max_bytes=150_000)
    jobs = [submission("a", payload=b"x" * 100_000)]
    big = of("", "b", length=100_000)
    assert rig.producer.enqueue(QUEUE, jobs) is not None
    assert message_bytes(big[0].message) > 100_000
    assert accepted(rig, "", "c", length=100_000).job_ids == ["c"]
    assert accepted(rig, "", "d", length=100_000).bound == "max_bytes"


def test_an_empty_queue_takes_any_job(rig: Rig) -> None:
    """A job larger than the bound would else wait for ever; the next has to wait until it is taken."""
    announce(rig, max_bytes=1, max_tenant_bytes=1)
    assert list(accepted(rig, "acme", "large", "next").job_ids) == ["large"]
    rig.worker().take(1)
    assert list(accepted(rig, "acme", "next").job_ids) == ["next"]


def test_a_tenants_jobs_are_bounded(rig: Rig) -> None:
    """Exactly, from the first job of an idle queue on; others aren't kept out, and the nameless is one of them."""
    announce(rig, max_tenant_depth=3)
    full = accepted(rig, "flood", *(f"f{n}" for n in range(5)))
    assert (list(full.job_ids), full.bound, full.standing) == (["f0", "f1", "f2"], "max_tenant_depth", 3)
    assert accepted(rig, "flood", "f9", step=2).bound == "max_tenant_depth"
    assert len(accepted(rig, "light", "l0", "l1").job_ids) == 2
    assert len(accepted(rig, "", "n0", "n1").job_ids) == 2
    rig.worker().take(2)
    assert accepted(rig, "flood", "f9").job_ids == ["f9"]


def test_a_tenants_bytes_are_bounded(rig: Rig) -> None:
    """By what all its jobs count for, whatever their priority."""
    announce(rig, max_tenant_bytes=2 * ONE)
    put(rig, of("light", "l0"), of("flood", "f0"), of("flood", "f1", step=3))
    full = accepted(rig, "flood", "f2")
    assert (full.job_ids, full.bound, full.standing, full.standing_jobs) == ([], "max_tenant_bytes", 2 * ONE, 2)
    assert accepted(rig, "light", "l1").job_ids == ["l1"]


def test_a_known_job_passes_every_bound(rig: Rig) -> None:
    """Asking again for a job that was accepted isn't refused: nothing is added."""
    announce(rig, max_depth=1, max_bytes=1, max_tenant_depth=1)
    assert accepted(rig, "acme", "a").job_ids == ["a"]
    assert accepted(rig, "acme", "b").job_ids == []
    assert accepted(rig, "acme", "a").job_ids == ["a"]


def test_the_depth_counts_every_tenants_jobs(rig: Rig) -> None:
    """And those pushed by others, and those parked."""
    announce(rig, max_depth=5)
    put(rig, of("acme", "a0", "a1"), of("bolt", "b0"))
    rig.push(QUEUE, plain(of("", "p0")[0].message))
    full = accepted(rig, "", "n0", "n1")
    assert (list(full.job_ids), full.bound, full.depth, full.standing) == (["n0"], "max_depth", 4, 5)


def test_pushed_jobs_count_no_bytes_and_take_none_away(rig: Rig) -> None:
    """What nobody counted in isn't counted out; not even if a message says so."""
    announce(rig, max_bytes=2 * ONE)
    for n in range(4):
        rig.push(QUEUE, plain(of("", f"p{n}")[0].message))
    put(rig, of("", "n0"))
    assert report(rig).waiting_bytes == ONE
    worker = rig.worker()
    assert len(worker.take(4).jobs) == 4
    assert report(rig).waiting_bytes == ONE
    rig.push(QUEUE, of("", "forged")[0].message.replace(b'"pipemill_bytes":', b'"pipemill_bytes":99999'))
    rig.push(QUEUE, of("", "absurd")[0].message.replace(b'"pipemill_bytes":', b'"pipemill_bytes":99999999999999999999'))
    assert len(worker.take(9).jobs) == 3
    assert report(rig).waiting_bytes == 0
    assert len(accepted(rig, "", "n1", "n2", "n3").job_ids) == 2


def test_a_list_that_was_emptied_by_hand_counts_for_nothing(broker_url: str) -> None:
    """`celery purge`, or whoever deletes a list, leaves no bytes behind that keep jobs out."""
    client = redis.Redis.from_url(broker_url)
    made = contract._redis_rig(broker_url, client, lambda: client)  # a rig of one server
    made.producer.declare(QueueInfo(name=QUEUE, task="echo"))
    announce(made, max_bytes=2 * ONE)
    put(made, of("", "a", "b"))
    client.delete(QUEUE)
    assert list(accepted(made, "", "c", "d", "e").job_ids) == ["c", "d"]
    client.delete(QUEUE)
    put(made, of("acme", "x", "y"))
    client.delete(*client.scan_iter("pipemill:tenant:*"), QUEUE)
    assert made.worker().take(5).jobs == []
    assert report(made).tenants == {}
    assert list(accepted(made, "", "f", "g", "h").job_ids) == ["f", "g"]
    client.close()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_what_is_refused_leaves_nothing_in_the_server(broker_url: str, *, asynchronous: bool) -> None:
    """Payloads of jobs that are refused, known or too late lie nowhere: no bound would count them."""
    with redis.Redis.from_url(broker_url) as client:
        client.flushall()
        store = RedisQueueStore(broker_url)
        store.declare(QueueInfo(name=QUEUE, task="echo", max_depth=2))
        names_of = ("a", "b", "a", "c", "d")
        jobs = [submission(name, payload=b"x" * 50_000, once=f"key {name}") for name in names_of]
        jobs.insert(0, submission("late", payload=b"x", expires=1.0))
        found = asyncio.run(enqueued(broker_url, jobs)) if asynchronous else store.enqueue(QUEUE, jobs)
        assert found is not None
        assert list(found.job_ids) == ["late", "a", "b", "a"]
        assert len(list(client.scan_iter("pipemill:payload:*"))) == 2
        assert store.enqueue("nowhere", jobs[1:2]) is None
        assert asyncio.run(enqueued(broker_url, jobs[1:2], "nowhere")) is None
        assert list(client.scan_iter("pipemill:upload:*")) == []
        store.close()


async def enqueued(url: str, jobs: list[Submission], queue: str = QUEUE) -> Accepted | None:
    """Enqueue by the asynchronous store."""
    store = AsyncRedisQueueStore(url)
    try:
        return await store.enqueue(queue, jobs)
    finally:
        await store.close()


def test_map_through_a_full_queue_sends_little_twice(broker_url: str) -> None:
    """Jobs with payloads that find no room are tried again one by one, so that most are sent once."""
    with redis.Redis.from_url(broker_url) as client:
        client.flushall()
        with Client(broker_url) as producer, closing(RedisQueueStore(broker_url)) as store:
            store.declare(QueueInfo(name=QUEUE, task="echo", max_depth=4))
            worker, answered = RedisJobStore(broker_url, QUEUE), threading.Event()

            def answer() -> None:
                while not answered.is_set():
                    worker.complete(
                        [
                            contract.succeed(job.field, message_id(job.raw) or "", 1)
                            for job in worker.take(2, patience=0.1).jobs
                        ]
                    )

            thread = threading.Thread(target=answer)
            thread.start()
            before = sent_bytes(client)
            assert list(producer.map(QUEUE, ["x" * 100_000] * 60)) == [1] * 60
            sent = sent_bytes(client) - before
            answered.set()
            thread.join()
            worker.close()
        assert sent < 3 * 60 * 100_000
        assert list(client.scan_iter("pipemill:upload:*")) == []


def sent_bytes(client: redis.Redis) -> int:
    """What the server has read so far, in bytes."""
    facts: Any = client.info("stats")
    return int(facts["total_net_input_bytes"])


@pytest.mark.parametrize("kind", ["valkey", "redis"])
def test_producers_that_race_share_what_there_is(kind: str, request: pytest.FixtureRequest) -> None:
    """Eight threads fill a queue at the same time: exactly as many jobs are accepted as the bounds say."""
    url = request.getfixturevalue(f"{kind}_server")
    with redis.Redis.from_url(url) as client:
        client.flushall()
    store = RedisQueueStore(url)
    store.declare(QueueInfo(name=QUEUE, task="echo", max_depth=150, max_tenant_depth=60))
    counts: dict[str, list[int]] = {"acme": [], "bolt": [], "": []}

    def fill(number: int) -> None:
        tenant = list(counts)[number % 3]
        for n in range(20):
            found = store.enqueue(QUEUE, of(tenant, *(f"{number}-{n}-{m}" for m in range(3))))
            assert found is not None
            counts[tenant].append(len(found.job_ids))

    threads = [threading.Thread(target=fill, args=(number,)) for number in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(map(sum, counts.values())) == 150
    assert max(map(sum, counts.values())) <= 60
    store.close()


@contextmanager
def memory(client: redis.Redis, headroom: float) -> Iterator[None]:
    """Give a server so many times the memory it uses now."""
    used = int(client.info("memory")["used_memory"])
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", int(used * headroom))
    client.delete("pipemill:memory")
    try:
        yield
    finally:
        client.config_set("maxmemory", 0)


@pytest.mark.parametrize("kind", ["valkey", "redis"])
def test_a_server_whose_memory_fills_up_takes_no_more_and_ends_what_it_has(
    kind: str, request: pytest.FixtureRequest
) -> None:
    """Jobs are refused while there is room left, by the queue's own share; taking, renewing and ending go on."""
    url = request.getfixturevalue(f"{kind}_server")
    with redis.Redis.from_url(url) as client:
        made = contract._redis_rig(url, client, lambda: redis.Redis.from_url(url))  # as above
        made.producer.declare(QueueInfo(name=QUEUE, task="echo", max_memory_share=0.8))
        put(made, of("acme", "a", "b"))
        with memory(client, 1.1):
            refused = accepted(made, "acme", "c")
            assert (refused.job_ids, refused.bound, refused.limit) == ([], "max_memory_share", 80)
            assert refused.standing >= 80
            worker = made.worker()
            taken = worker.take(5)
            assert ids(taken) == ["a", "b"]
            assert worker.complete([contract.succeed(job.field, message_id(job.raw) or "") for job in taken.jobs])
        client.delete("pipemill:memory")
        assert accepted(made, "acme", "c").job_ids == ["c"]


@pytest.mark.parametrize("kind", ["valkey", "redis"])
def test_a_server_without_any_memory_left_still_ends_what_it_has(kind: str, request: pytest.FixtureRequest) -> None:
    """New jobs, and large inputs, are refused as by a full queue; a worker announces, reports, ends large answers."""
    url = request.getfixturevalue(f"{kind}_server")
    with redis.Redis.from_url(url) as client:
        made = contract._redis_rig(url, client, lambda: redis.Redis.from_url(url))  # as above
        made.producer.declare(QueueInfo(name=QUEUE, task="echo", max_memory_share=1.0))
        put(made, of("acme", "a", "b", "c"))
        with memory(client, 0.5):
            assert accepted(made, "acme", "d").bound == "max_memory_share"
            late = made.producer.enqueue(QUEUE, [submission("e", payload=b"x" * 50_000)])
            assert late is not None
            assert late.bound == "max_memory_share"
            worker = made.worker()
            first, second, third = worker.take(5).jobs
            worker.announce(QueueInfo(name=QUEUE, task="echo"))
            worker.report({"rate": 1.0})
            assert worker.renew({first.field: "a"}).stands
            small, large = contract.succeed(first.field, "a"), contract.succeed(second.field, "b", "r" * 100_000)
            assert worker.complete([small, large]) == [True, True]
            assert worker.release([third.field]) == 1
        assert status(made, "b").result.get() == "r" * 100_000
        assert [status(made, name).queue for name in "cde"] == [QUEUE, None, None]


def test_a_server_that_evicts_is_never_full(broker_url: str) -> None:
    """There the share says nothing: memory is always in use, and the server makes room itself."""
    with redis.Redis.from_url(broker_url) as client:
        producer = RedisQueueStore(broker_url)
        producer.declare(QueueInfo(name=QUEUE, task="echo", max_memory_share=0.5))
        with memory(client, 1.5):
            client.config_set("maxmemory-policy", "volatile-lru")
            found = producer.enqueue(QUEUE, of("", "a"))
        client.config_set("maxmemory-policy", "noeviction")
        producer.close()
    assert found is not None
    assert found.job_ids == ["a"]


def test_who_may_not_ask_for_the_memory_is_refused_by_the_server_alone(broker_url: str) -> None:
    """A user without INFO enqueues as before, and is told when the memory is really full."""
    with redis.Redis.from_url(broker_url) as client:
        RedisQueueStore(broker_url, client=client).declare(QueueInfo(name=QUEUE, task="echo", max_memory_share=0.5))
        client.execute_command("ACL", "SETUSER", "plain", "on", ">secret", "~*", "&*", "+@all", "-info")
        with redis.Redis.from_url(broker_url.replace("redis://", "redis://plain:secret@")) as limited:
            producer = RedisQueueStore(broker_url, client=limited)
            with memory(client, 1.5):
                found = producer.enqueue(QUEUE, of("", "a"))
            with memory(client, 0.5):
                late = producer.enqueue(QUEUE, of("", "b"))
        client.execute_command("ACL", "DELUSER", "plain")
    assert found is not None
    assert found.job_ids == ["a"]
    assert late is not None
    assert late.bound == "max_memory_share"


def test_the_double_says_what_memory_a_test_wants() -> None:
    """So that a backend's tests can see a full broker."""
    broker = MemoryBroker()
    store = MemoryQueueStore(broker)
    store.declare(QueueInfo(name=QUEUE, task="echo"))
    broker.memory_share = 0.95
    found = store.enqueue(QUEUE, of("", "a"))
    assert found is not None
    assert (found.job_ids, found.bound, found.limit, found.standing) == ([], "max_memory_share", 90, 95)


def test_jobs_held_by_a_waiting_worker_count_until_they_are_taken(broker_url: str) -> None:
    """What a blocking wait moved still counts, once."""
    with redis.Redis.from_url(broker_url) as client:
        made = contract._redis_rig(broker_url, client, lambda: redis.Redis.from_url(broker_url))  # as above
        made.producer.declare(QueueInfo(name=QUEUE, task="echo"))
        put(made, of("", "a", "b"))
        worker = RedisJobStore(broker_url, QUEUE)
        worker.take(0)
        assert worker.wait(5.0)
        assert report(made).waiting_bytes == 2 * ONE
        assert ids(worker.take(1)) == ["a"]
        assert report(made).waiting_bytes == ONE
        worker.close()
        assert client.hlen(names.bytes_key(QUEUE)) == 2
