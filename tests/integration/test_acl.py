"""Users with least privilege on real servers: what they may do, and that they may do nothing else.

That every operation of both sides is allowed is seen by the store's contract (test_store_contract.py), which runs as
these users, too; that a worker's process does with them, by tests/e2e/test_security.py.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any, Final

import pytest
import redis
from celery import Celery
from redis.exceptions import NoPermissionError, ResponseError

from pipemill import AsyncClient, Client
from pipemill.errors import BrokerRefused, ResultTimeout, UnknownQueue
from pipemill.protocol import encode_arguments, encode_message, names
from pipemill.store import wire
from pipemill.store.acl import Role
from pipemill.store.base import QueueInfo, Submission
from pipemill.store.jobs import RedisJobStore
from pipemill.store.queues import RedisQueueStore
from pipemill.store.streams import Piece
from tests.helpers import until
from tests.users import denied, url_as, users

QUEUE: Final = "mine"
OTHER: Final = "theirs"
RESULT: Final = names.result_key("a")
LEASE: Final = names.lease_key(f"{QUEUE}|host:1:0")

#: What nobody may do who isn't the server's administrator.
NOBODY: Final[list[tuple[Any, ...]]] = [
    ("FLUSHALL",),
    ("FLUSHDB",),
    ("CONFIG", "GET", "requirepass"),
    ("CONFIG", "SET", "maxmemory", "1"),
    ("KEYS", "*"),
    ("SCAN", "0"),
    ("RANDOMKEY",),
    ("DEBUG", "SLEEP", "0"),
    ("SCRIPT", "FLUSH"),
    ("SCRIPT", "KILL"),
    ("FUNCTION", "LOAD", "#!lua name=x\nredis.register_function('f', function() end)"),
    ("SHUTDOWN",),
    ("SAVE",),
    ("REPLICAOF", "NO", "ONE"),
    ("MONITOR",),
    ("ACL", "SETUSER", "me", "+@all"),
    ("ACL", "LIST"),
    ("CLIENT", "LIST"),
    ("CLIENT", "KILL", "TYPE", "normal"),
    ("SLOWLOG", "GET"),
    ("MIGRATE", "h", "1", "x", "0", "1"),
    ("GET", "another:application"),
    ("SET", "another:application", "x"),
    ("LPUSH", OTHER, "x"),
    ("LRANGE", OTHER, "0", "-1"),
    ("HGETALL", names.counters_key(OTHER)),
    ("EVAL", "return redis.call('LRANGE', KEYS[1], 0, -1)", "1", OTHER),
    ("PSUBSCRIBE", f"{names.RESULT_PREFIX}*"),
    ("PUBLISH", "another:channel", "x"),
]
#: What a producer may not do, though it may submit.
NO_PRODUCER: Final[list[tuple[Any, ...]]] = [
    ("LRANGE", QUEUE, "0", "-1"),
    ("RPOP", QUEUE),
    ("DEL", QUEUE),
    ("BLMOVE", QUEUE, names.inbox_key(f"{QUEUE}|x"), "RIGHT", "LEFT", "1"),
    ("HGETALL", LEASE),
    ("HDEL", LEASE, "1|0"),
    ("ZADD", names.LEASES_KEY, "0", f"{QUEUE}|x"),
    ("DEL", RESULT),
    ("EXPIRE", RESULT, "1"),
    ("RENAME", RESULT, f"{names.PREFIX}upload:x"),
    ("HSET", names.QUEUES_KEY, QUEUE, "{}"),
    ("HDEL", names.QUEUES_KEY, QUEUE),
    ("LRANGE", names.dead_key(QUEUE), "0", "-1"),
    ("GET", names.payload_key("a")),
    ("SET", names.blob_key("x"), "y"),
    ("PUBLISH", "/0.celery.pidbox", "{}"),
    ("XADD", names.stream_key("a"), "*", "end", "1"),
    ("DEL", names.stream_key("a")),
    ("XTRIM", names.stream_key("a"), "MAXLEN", "0"),
    ("XREAD", "STREAMS", "another:stream", "0"),
    ("EVAL", "return redis.call('DEL', KEYS[1])", "1", RESULT),
    ("EVAL", "return redis.call('LRANGE', ARGV[1], 0, -1)", "0", QUEUE),
]
#: What an operator may not do, who only looks.
NO_OPERATOR: Final[list[tuple[Any, ...]]] = [
    *(command for command in NO_PRODUCER if command[0] != "EVAL"),
    ("LPUSH", QUEUE, "x"),
    ("SET", names.record_key("a"), "x"),
    ("GET", RESULT),
    ("GET", names.record_key("a")),
    ("HINCRBY", names.counters_key(QUEUE), "taken", "1"),
    ("EVAL", "return 1", "0"),
    ("SUBSCRIBE", RESULT),
    ("XREAD", "STREAMS", names.stream_key("a"), "0"),
]
#: What a worker may not do.
NO_WORKER: Final[list[tuple[Any, ...]]] = [
    ("HGETALL", names.lease_key(f"{OTHER}|x")),
    ("LPUSH", names.inbox_key(f"{OTHER}|x"), "x"),
    ("GET", names.once_key(OTHER, "key")),
    ("HSET", names.lanes_key(OTHER), "x", "{}"),
    ("LRANGE", names.dead_key(OTHER), "0", "-1"),
    # Another queue's tenant, or key, may be called like a queue of ours.
    ("RPOP", names.tenant_list_key(OTHER, 0, QUEUE)),
    ("LLEN", names.tenant_list_key(OTHER, 3, QUEUE)),
    ("GET", names.once_key(OTHER, QUEUE)),
]


@pytest.fixture(params=["valkey", "redis"])
def url(request: pytest.FixtureRequest) -> str:
    """An empty server of each kind."""
    found: str = request.getfixturevalue(f"{request.param}_server")
    with redis.Redis.from_url(found) as client:
        client.flushall()
    return found


@pytest.fixture
def admin(url: str) -> Iterator[redis.Redis]:
    """The users of one queue, while another is there; a client that may do anything."""
    with users(url, QUEUE) as client:
        for queue in (QUEUE, OTHER):
            with closing(RedisQueueStore(url)) as store:
                store.declare(QueueInfo(name=queue, task="echo"))
        client.set(RESULT, '{"status": "SUCCESS", "result": 1}')
        client.set(names.record_key("a"), f"q|1|{QUEUE}")
        yield client


def may(url: str, role: Role, *command: Any) -> bool:
    """Whether the server lets a role's user do this; a command that then fails for another reason was allowed."""
    with redis.Redis.from_url(url_as(url, role)) as client:
        try:
            client.execute_command(*command)
        except NoPermissionError:
            return False
        except ResponseError as error:
            # What a script may not do is told in the script's own error; DEBUG is off for all.
            return not any(
                word in str(error) for word in ("ACL failure", "executing the script can't", "command not allowed")
            )
        return True


@pytest.mark.usefixtures("admin")
@pytest.mark.parametrize(
    ("role", "commands"),
    [
        (Role.PRODUCER, NOBODY + NO_PRODUCER),
        (Role.WORKER, [command for command in NOBODY if command[0] != "PSUBSCRIBE"] + NO_WORKER),
        (Role.OPERATOR, NOBODY + NO_OPERATOR),
    ],
)
def test_everything_else_is_refused(url: str, role: Role, commands: list[tuple[Any, ...]]) -> None:
    """No user may administrate, search, read or write what isn't its own, nor have a script do it."""
    assert [command for command in commands if may(url, role, *command)] == []


@pytest.mark.usefixtures("admin")
def test_a_worker_may_not_listen_to_all_results(url: str) -> None:
    """It may subscribe to patterns, but only to those of Celery's remote control."""
    with redis.Redis.from_url(url_as(url, Role.WORKER)) as client, client.pubsub() as channel:
        channel.psubscribe("*")
        with pytest.raises(NoPermissionError):
            channel.get_message(timeout=5)


def test_a_producer_does_all_that_clients_do(url: str, admin: redis.Redis) -> None:
    """Submit, look, describe, wait, cancel, list the queues: only a look at the other queue is refused."""
    worker = RedisJobStore(url_as(url, Role.WORKER), QUEUE)
    worker.announce(QueueInfo(name=QUEUE, task="echo"))
    with Client(url_as(url, Role.PRODUCER)) as client:
        jobs = client.submit_many(QUEUE, [f"text {n}" for n in range(3)], priority=5)
        large = client.submit(QUEUE, "x" * 100_000, idempotency_key="once")
        assert client.submit(QUEUE, "again", idempotency_key="once") == large
        assert client.describe(large.id).position == 3
        assert jobs[0].cancel() is True
        assert [report.info.name for report in client.queues()] == [QUEUE]
        assert len(worker.take(10).jobs) == 4
        assert worker.payloads([large.id]) != [None]
        followed = client.submit(QUEUE, "followed", stream=True)
        (leased,) = worker.take(1).jobs
        piece = Piece(field=leased.field, job_id=followed.id, run=leased.field, offset=0, text="followed")
        assert worker.emit([piece]) == [True]
        assert next(followed.follow()).text == "followed"
    worker.close()
    assert {each for each in denied(admin) if OTHER not in each} == set()


@pytest.mark.usefixtures("admin")
def test_a_queue_that_a_producer_may_not_use_is_told(url: str) -> None:
    """Its jobs are refused by the broker, with where the rules come from; an unknown queue is still unknown."""
    with Client(url_as(url, Role.PRODUCER)) as client:
        with pytest.raises(BrokerRefused, match="`pipemill acl` writes the rules"):
            client.submit(OTHER, "text")
        with pytest.raises(UnknownQueue):
            client.submit("mnie", "text")


@pytest.mark.usefixtures("admin")
def test_an_operator_sees_how_queues_stand(url: str) -> None:
    """It sees what `pipemill queues` shows, of its queues only."""
    with Client(url) as client:
        client.submit_many(QUEUE, ["text", "text"])
    with Client(url_as(url, Role.OPERATOR)) as client:
        (report,) = client.queues()
    assert (report.info.name, sum(report.waiting.values())) == (QUEUE, 2)


def test_a_careful_producer_only_reads_results(url: str) -> None:
    """Without the right to cancel it can neither write, replace nor delete a result; all else goes on."""
    with users(url, QUEUE, cancels=False):
        for command in (("SET", RESULT, "forged"), ("DEL", RESULT), ("PUBLISH", RESULT, "forged")):
            assert not may(url, Role.PRODUCER, *command)
        with closing(RedisQueueStore(url_as(url, Role.PRODUCER))) as store:
            store.declare(QueueInfo(name=QUEUE, task="echo"))
        with Client(url_as(url, Role.PRODUCER)) as client:
            job = client.submit(QUEUE, "text")
            assert client.status(job.id) == "queued"
            with pytest.raises(BrokerRefused, match="refused a command"):
                job.cancel()


def until_over(expires: float) -> None:
    """Wait until a job that was submitted before with so many seconds is past its deadline."""
    over = time.time() + expires
    until(lambda: time.time() > over, "its deadline has passed")


def test_a_careful_producer_meets_no_refusal_by_the_way(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A job past its deadline is left to the workers, and a map that fails says why, not that it couldn't cancel."""
    with users(url, QUEUE, cancels=False), Client(url_as(url, Role.PRODUCER)) as client:
        with closing(RedisQueueStore(url_as(url, Role.PRODUCER))) as store:
            store.declare(QueueInfo(name=QUEUE, task="echo"))
        monkeypatch.setattr(wire, "OVERDUE_SECONDS", 0.0)
        job = client.submit(QUEUE, "text", expires=0.01)
        until_over(0.01)
        assert client.status(job.id) == "queued"
        with pytest.raises(ResultTimeout):
            job.result(0.01)
        with pytest.raises(ResultTimeout):
            client.results([job], timeout=0.01)
        with pytest.raises(ResultTimeout):
            list(client.map(QUEUE, ["text"], timeout=0.01))
        assert "can't be cancelled" in caplog.text


def test_an_asynchronous_careful_producer_meets_none_either(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As its blocking twin."""

    async def use() -> None:
        async with AsyncClient(url_as(url, Role.PRODUCER)) as client:
            job = await client.submit(QUEUE, "text", expires=0.01)
            until_over(0.01)
            assert await client.status(job.id) == "queued"
            with pytest.raises(ResultTimeout):
                await job.result(0.01)
            with pytest.raises(ResultTimeout):
                _ = [answer async for answer in client.map(QUEUE, ["text"], timeout=0.01)]

    monkeypatch.setattr(wire, "OVERDUE_SECONDS", 0.0)
    with users(url, QUEUE, cancels=False):
        with closing(RedisQueueStore(url_as(url, Role.PRODUCER))) as store:
            store.declare(QueueInfo(name=QUEUE, task="echo"))
        asyncio.run(use())


def test_a_cancel_that_is_refused_changes_nothing(url: str, admin: redis.Redis) -> None:
    """Who knows the id of another queue's job can't half end it."""
    with Client(url) as free, Client(url_as(url, Role.PRODUCER)) as client:
        job = free.submit(OTHER, "text")
        with pytest.raises(BrokerRefused):
            client.cancel(job.id)
        assert job.status() == "queued"
    assert admin.exists(names.result_key(job.id)) == 0


def test_a_plain_celery_client_can_be_a_producer(url: str) -> None:
    """With rules for it, send_task and AsyncResult work and no more than before is allowed."""
    with users(url, QUEUE, celery=True) as admin, ExitStack() as stack:
        app = stack.enter_context(Celery(broker=url_as(url, Role.PRODUCER), backend=url_as(url, Role.PRODUCER)))
        stack.callback(app.backend.client.close)
        sent = app.send_task(names.TASK_NAME, args=["text"], queue=QUEUE, priority=3)
        assert sent.state == "PENDING"
        admin.set(names.result_key(sent.id), f'{{"status": "SUCCESS", "result": 7, "task_id": "{sent.id}"}}')
        assert sent.get(timeout=10) == 7
        assert denied(admin) == set()
        refused = [command for command in NOBODY if may(url, Role.PRODUCER, *command)]
        assert refused == []


@pytest.mark.usefixtures("admin")
def test_a_worker_leaves_the_dead_of_other_queues_to_theirs(url: str) -> None:
    """An owner whose jobs it may not give back doesn't keep it from giving back its own queue's."""
    for queue in (OTHER, QUEUE):
        dead = RedisJobStore(url, queue, lease_seconds=0.01)
        message = encode_message(queue, queue, encode_arguments("text", {}))
        with closing(RedisQueueStore(url)) as store:
            store.enqueue(queue, [Submission(job_id=queue, list_index=0, message=message)])
        assert len(dead.take(1).jobs) == 1
    worker = RedisJobStore(url_as(url, Role.WORKER), QUEUE)
    until(lambda: worker.reap() == 1, "the job of the worker's own queue is given back")
    assert worker.reap() == 0
    worker.close()
