"""Tenants and priorities share a queue: one contract over every store, and the scripts held to the model in memory."""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Callable
from typing import Any

import pytest
import redis

from pipemill.protocol import Outcome, encode_arguments, encode_message, message_id, names
from pipemill.store.base import Completion, JobStore, QueueInfo, QueueReport, QueueStore, Submission
from pipemill.store.jobs import RedisJobStore
from pipemill.store.memory import MemoryBroker, MemoryJobStore
from pipemill.store.memory_queues import MemoryQueueStore
from pipemill.store.queues import RedisQueueStore
from tests.integration import test_store_contract as contract
from tests.integration.test_store_contract import LEASE, QUEUE, Rig, ids, status

rig = contract.rig
TENANTS = ["", "acme", "bolt", "crane"]


def of(tenant: str, *job_ids: str, step: int = 0, length: int = 10) -> list[Submission]:
    """A tenant's jobs, as a client would build them."""
    arguments = encode_arguments("x" * length, {})
    return [
        Submission(
            job_id=job_id, list_index=step, message=encode_message(job_id, QUEUE, arguments, tenant=tenant, priority=3)
        )
        for job_id in job_ids
    ]


def plain(message: bytes) -> bytes:
    """A message as another Celery client would send it: it doesn't say what it counts for."""
    return re.sub(rb'"pipemill_bytes":\d+,?', b"", message).replace(b",}", b"}")


def announce(rig: Rig, **said: Any) -> None:
    """Let the queue be otherwise than the contract's."""
    rig.worker().announce(QueueInfo(name=QUEUE, task="text-classification", **{"max_depth": 1_000} | said))


def put(rig: Rig, *submissions: list[Submission]) -> None:
    """Enqueue jobs, one call for each list, that must all be accepted."""
    for each in submissions:
        accepted = rig.producer.enqueue(QUEUE, each)
        assert accepted is not None
        assert len(accepted.job_ids) == len(each)


def report(rig: Rig) -> QueueReport:
    """How the queue stands."""
    (found,) = rig.producer.reports()
    return found


def test_tenants_take_turns(rig: Rig) -> None:
    """A job that came behind another tenant's backlog is among the next, and within a tenant the first is first."""
    announce(rig)
    put(rig, of("flood", *(f"f{n:02}" for n in range(40))))
    worker = rig.worker()
    assert ids(worker.take(4)) == ["f00", "f01", "f02", "f03"]
    put(rig, of("light", "l00", "l01"))
    taken = ids(worker.take(6))
    assert taken == sorted(taken, key=lambda name: name[1:]) or taken.index("l00") < taken.index("l01")
    assert {"l00", "l01"} <= set(taken[:5])
    assert ids(worker.take(100)) == [f"f{n:02}" for n in range(8, 40)]


@pytest.mark.parametrize("name", ["me@example.org", "a+b", "A.b_c-d", "x" * 64])
def test_any_name_is_a_tenant_of_its_own(rig: Rig, name: str) -> None:
    """Whatever characters a tenant's name may have, its jobs are its own."""
    announce(rig)
    put(rig, of("flood", "f0", "f1"), of(name, "own0", "own1"))
    assert report(rig).tenants[name] == 2


def test_turns_are_counted_in_bytes(rig: Rig) -> None:
    """Who sends jobs ten times as large gets a tenth of the turns."""
    announce(rig)
    put(rig, of("small", *(f"s{n}" for n in range(50))), of("large", *(f"l{n}" for n in range(50)), length=8_600))
    worker = rig.worker()
    taken = [name for _ in range(4) for name in ids(worker.take(11))]
    assert 3 <= sum(name.startswith("l") for name in taken) <= 5


def test_who_pushes_as_celery_does_is_a_tenant_without_a_name(rig: Rig) -> None:
    """Their jobs take turns with the others', whatever header they have: scripts don't look into what is pushed."""
    announce(rig)
    put(rig, of("acme", *(f"a{n}" for n in range(6))))
    for job in of("bolt", *(f"p{n}" for n in range(6))):
        rig.push(QUEUE, plain(job.message))
    taken = ids(rig.worker().take(7))
    pushed = [name for name in taken if name.startswith("p")]
    assert 3 <= len(pushed) <= 4
    assert pushed == [f"p{n}" for n in range(len(pushed))]


def test_an_unfair_queue_keeps_the_order_in_which_jobs_came(rig: Rig) -> None:
    """With `fair: false` a tenant's name is only a name."""
    announce(rig, fair=False)
    put(rig, of("flood", "f0", "f1", "f2"), of("light", "l0"), of("flood", "f3"))
    worker = rig.worker()
    taken = worker.take(2)
    assert ids(taken) == ["f0", "f1"]
    worker.release([job.field for job in taken.jobs])
    assert report(rig).tenants == {}
    assert ids(worker.take(9)) == ["f0", "f1", "f2", "l0", "f3"]


def test_priorities_come_before_turns(rig: Rig) -> None:
    """Tenants take turns within a priority, not across."""
    announce(rig)
    put(rig, of("light", "late", step=3), of("flood", "a", "b", "c"), of("light", "mid", step=1))
    worker = rig.worker()
    assert sorted(ids(worker.take(3))) == ["a", "b", "c"]
    assert ids(worker.take(3)) == ["mid", "late"]


def test_released_jobs_go_back_to_their_tenants(rig: Rig) -> None:
    """In their order, to be taken by turns again; and what is counted by tenant is right again."""
    announce(rig)
    put(rig, of("", "n0"), of("acme", "a0", "a1", "a2"), of("bolt", "b0", "b1"))
    before = report(rig)
    worker = rig.worker()
    taken = worker.take(5)
    assert report(rig).waiting_bytes < before.waiting_bytes
    worker.release([job.field for job in taken.jobs])
    after = report(rig)
    assert (after.tenants, after.waiting, after.waiting_bytes) == (before.tenants, before.waiting, before.waiting_bytes)
    again = ids(worker.take(9))
    assert [name for name in again if name[0] == "a"] == ["a0", "a1", "a2"]
    assert [name for name in again if name[0] == "b"] == ["b0", "b1"]


def test_a_dead_workers_jobs_come_first_whoever_they_belong_to(rig: Rig) -> None:
    """What was delivered before is found with empty hands, alone, before any tenant's turn."""
    announce(rig)
    put(rig, of("acme", "a0", "a1", "a2"))
    rig.worker().take(2)
    put(rig, of("bolt", "b0"))
    rig.pass_time(LEASE + 1)
    worker = rig.worker()
    assert worker.reap() == 2
    for name in ("a0", "a1"):
        taken = worker.take(9)
        assert (ids(taken), [job.deliveries for job in taken.jobs]) == ([name], [1])
        worker.complete([contract.succeed(taken.jobs[0].field, name)])
    assert sorted(ids(worker.take(9))) == ["a2", "b0"]
    assert (report(rig).tenants, report(rig).waiting_bytes) == ({}, 0)


def test_a_parked_job_comes_back_to_its_tenant(rig: Rig) -> None:
    """When it is due it stands in its tenant's list, where the others have no backlog before it."""
    announce(rig)
    put(rig, of("acme", "a0", "a1"))
    worker = rig.worker()
    taken = worker.take(2)
    worker.complete(
        [
            Completion(field=job.field, job_id=message_id(job.raw) or "", outcome=Outcome.PARKED, due=taken.now + 100)
            for job in taken.jobs
        ]
    )
    assert report(rig).waiting_bytes == 0
    put(rig, of("flood", *(f"f{n}" for n in range(20))))
    rig.pass_time(101)
    assert {"a0", "a1"} <= set(ids(worker.take(6)))


def test_tenants_are_reported_while_they_wait(rig: Rig) -> None:
    """Waiting jobs by priority, by tenant and in bytes; nothing is left when all are taken."""
    announce(rig)
    put(rig, of("", "n0", "n1"), of("acme", "a0", "a1"), of("acme", "a2", step=2), of("bolt", "b0"))
    found = report(rig)
    assert found.tenants == {"acme": 3, "bolt": 1}
    assert (found.waiting[0], found.waiting[6]) == (5, 1)
    assert found.waiting_bytes > 6 * names.ENVELOPE_BYTES
    assert len(rig.worker().take(20).jobs) == 6
    found = report(rig)
    assert (found.tenants, found.waiting_bytes, sum(found.waiting.values())) == ({}, 0, 0)


def test_a_position_counts_the_turns_of_others(rig: Rig) -> None:
    """Behind a backlog a light tenant's job isn't last: each before it lets each other tenant go once."""
    announce(rig)
    put(rig, of("flood", *(f"f{n}" for n in range(40))), of("light", "l0", "l1"))
    positions = [status(rig, name).position for name in ("f39", "l0", "l1")]
    assert positions[0] == 39
    assert positions[1] < positions[2] < 10


@pytest.mark.parametrize("kind", ["valkey", "redis"])
def test_an_idle_worker_hears_of_a_tenants_job(kind: str, request: pytest.FixtureRequest) -> None:
    """A wait for jobs ends with the first one, whoever it belongs to."""
    url = request.getfixturevalue(f"{kind}_server")
    with redis.Redis.from_url(url) as client:
        client.flushall()
    producer, worker = RedisQueueStore(url), RedisJobStore(url, QUEUE)
    producer.declare(QueueInfo(name=QUEUE, task="echo"))
    worker.take(0)
    later = threading.Timer(0.05, producer.enqueue, (QUEUE, of("acme", "a0", "a1")))
    later.start()
    assert worker.wait(30.0)
    later.join()
    assert ids(worker.take(5)) == ["a0", "a1"]
    worker.close()
    producer.close()


@pytest.mark.parametrize("tenant", ["", "acme"])
def test_a_job_of_little_urgency_is_taken_in_the_end(rig: Rig, tenant: str) -> None:
    """Under a steady flood of urgent ones it waits its time, then gets a share; it is leased as an urgent one."""
    announce(rig)
    worker = rig.worker()
    put(rig, of(tenant, "old", step=3))
    for turn in range(3):
        put(rig, of("flood", *(f"{turn}-{n}" for n in range(4))))
        assert "old" not in ids(worker.take(4))
    rig.pass_time(181.0)
    put(rig, of("flood", *(f"last-{n}" for n in range(4))))
    taken = worker.take(4)
    assert ids(taken)[0] == "old"
    assert {job.field.rpartition("|")[2] for job in taken.jobs} == {"0"}
    assert len(ids(worker.take(4))) == 1


def test_strict_priorities_never_age(rig: Rig) -> None:
    """Where the queue says so, the urgent always come first."""
    announce(rig, priority_ageing_seconds=0.0)
    worker = rig.worker()
    if isinstance(worker, RedisJobStore):
        worker._ageing_seconds = 0.0  # the contract makes its workers itself
    put(rig, of("", "old", step=3))
    for turn in range(4):
        put(rig, of("flood", f"{turn}"))
        assert ids(worker.take(1)) == [f"{turn}"]
        rig.pass_time(1e6)


def test_nothing_is_left_in_the_server(broker_url: str) -> None:
    """A tenant without jobs leaves no trace: neither a turn, nor a count, nor a list."""
    client = redis.Redis.from_url(broker_url)
    producer, worker = RedisQueueStore(broker_url, client=client), RedisJobStore(broker_url, QUEUE, client=client)
    producer.declare(QueueInfo(name=QUEUE, task="echo"))
    for number in range(300):
        producer.enqueue(QUEUE, of(f"t{number}", f"{number}-0", f"{number}-1", step=number % 4))
    while taken := worker.take(50).jobs:
        worker.complete([contract.succeed(job.field, message_id(job.raw) or "") for job in taken])
    kept = {key.decode().split(":")[1] for key in client.scan_iter("pipemill:*")}
    assert kept <= {"queues", "leases", "sequence", "counters", "memory"}
    client.close()


class Side:
    """One of two stores that live through the same history."""

    def __init__(self, producer: QueueStore, worker: JobStore, push: Callable[[str, bytes], object]):
        self.producer, self._worker, self._push = producer, worker, push
        self._held: list[str] = []
        producer.declare(QueueInfo(name=QUEUE, task="echo", max_bytes=60_000, max_tenant_depth=8, max_depth=40))

    def enqueue(self, jobs: list[Submission]) -> object:
        """Enqueue jobs; what became of it."""
        accepted = self.producer.enqueue(QUEUE, jobs)
        assert accepted is not None
        return list(accepted.job_ids), accepted.bound, accepted.standing, accepted.standing_jobs

    def push(self, jobs: list[Submission]) -> None:
        """Push the first of these jobs as Celery does."""
        self._push(names.list_key(QUEUE, names.PRIORITY_STEPS[jobs[0].list_index]), plain(jobs[0].message))

    def take(self, n: int, *, keep: bool) -> object:
        """Take jobs, to hold or to end them; which."""
        taken = self._worker.take(n).jobs
        if keep:
            self._held += [job.field for job in taken]
        else:
            self._worker.complete([contract.succeed(job.field, message_id(job.raw) or "") for job in taken])
        return [(message_id(job.raw), job.field.rpartition("|")[2]) for job in taken]

    def release(self) -> int:
        """Give back what is held."""
        fields, self._held = self._held, []
        return self._worker.release(fields)

    def standing(self) -> object:
        """What waits."""
        (found,) = self.producer.reports()
        return found.tenants, found.waiting


@pytest.mark.parametrize("kind", ["valkey", "redis"])
@pytest.mark.parametrize("seed", range(12))
def test_the_scripts_do_what_the_model_does(kind: str, seed: int, request: pytest.FixtureRequest) -> None:
    """Over random submissions, pushes, takes and releases, both give the same jobs in the same order."""
    url = request.getfixturevalue(f"{kind}_server")
    client, broker, chance = redis.Redis.from_url(url), MemoryBroker(), random.Random(seed)  # no secret
    client.flushall()
    real = Side(RedisQueueStore(url, client=client), RedisJobStore(url, QUEUE, client=client), client.lpush)
    model = Side(MemoryQueueStore(broker), MemoryJobStore(broker, QUEUE), broker.push)
    for number in range(120):
        tenant, step, length = chance.choice(TENANTS), chance.choice([0, 0, 0, 1, 3]), chance.choice([1, 500, 4_000])
        jobs = of(tenant, *(f"{number}-{n}" for n in range(chance.randint(1, 5))), step=step, length=length)
        n, keep, act = chance.randint(1, 7), chance.random() < 0.5, chance.random()
        if act < 0.45:
            assert real.enqueue(jobs) == model.enqueue(jobs), f"step {number}"
        elif act < 0.55:
            real.push(jobs)
            model.push(jobs)
        elif act < 0.9:
            assert real.take(n, keep=keep) == model.take(n, keep=keep), f"step {number}"
        else:
            assert real.release() == model.release()
        assert real.standing() == model.standing()
    client.close()
