"""Both clients against a real Valkey server."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import redis

from pipemill import errors
from pipemill.aio import AsyncClient
from pipemill.client import Client
from pipemill.protocol import (
    JobStatus,
    Outcome,
    decode_arguments,
    decode_message,
    encode_failure,
    encode_success,
    names,
)
from pipemill.store.base import Completion, Leased, QueueInfo
from pipemill.store.jobs import RedisJobStore
from tests.helpers import PATIENCE_SECONDS, until

QUEUE = "sentiment"


@pytest.fixture
def announced(broker_url: str) -> str:
    """Address of a server that knows one queue."""
    worker = RedisJobStore(broker_url, QUEUE)
    worker.announce(QueueInfo(name=QUEUE, task="text-classification", max_depth=100, max_input_bytes=200_000))
    worker.close()
    return broker_url


@pytest.fixture
def client(announced: str) -> Iterator[Client]:
    """A client of it."""
    with Client(announced) as client:
        yield client


def _end(worker: RedisJobStore, leased: Leased, function: Callable[..., Any]) -> Completion:
    job = decode_message(leased.raw, QUEUE)
    if job.by_reference:
        (payload,) = worker.payloads([job.id])
        assert payload is not None
        job.inputs, job.parameters, _ = decode_arguments(payload)
    try:
        document, outcome = encode_success(job.id, function(job.inputs, **job.parameters)), Outcome.SUCCEEDED
    except errors.JobError as error:
        document, outcome = encode_failure(job.id, error), Outcome.FAILED
    return Completion(field=leased.field, job_id=job.id, outcome=outcome, document=document)


@contextmanager
def working(url: str, function: Callable[..., Any]) -> Iterator[None]:
    """Answer jobs in a thread, in small batches."""
    stop = threading.Event()

    def work() -> None:
        worker = RedisJobStore(url, QUEUE)
        while not stop.is_set():
            taken = worker.take(16)
            worker.complete([_end(worker, leased, function) for leased in taken.jobs])
            if not taken.jobs:
                worker.wait(0.05)
        worker.close()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_a_job_runs_from_queued_to_succeeded(client: Client, announced: str) -> None:
    """Every step of a job's life is seen, and its result stays readable."""
    job = client.submit(QUEUE, "good", {"top_k": 1})
    second = client.submit(QUEUE, "bad")
    assert job.status() is JobStatus.QUEUED
    assert (second.describe().position, second.describe().queue) == (1, QUEUE)
    worker = RedisJobStore(announced, QUEUE)
    (leased,) = worker.take(1).jobs
    worker.renew({leased.field: job.id})
    assert job.status() is JobStatus.RUNNING
    worker.complete([_end(worker, leased, lambda text, top_k: [text] * top_k)])
    assert job.status() is JobStatus.SUCCEEDED
    assert (job.result(), job.result(0)) == (["good"], ["good"])
    assert client.status("stranger") is JobStatus.UNKNOWN
    worker.close()


def test_a_waiting_client_is_woken(client: Client, announced: str) -> None:
    """A result that comes from another connection ends the wait."""
    job = client.submit(QUEUE, "good")
    answers: list[Any] = []
    waiting = threading.Thread(target=lambda: answers.append(job.result(PATIENCE_SECONDS)))
    waiting.start()
    with redis.Redis.from_url(announced) as looking:
        until(lambda: looking.pubsub_numsub(names.result_key(job.id))[0][1], "the client waits")
    with working(announced, str.upper):
        waiting.join()
    assert answers == ["GOOD"]


def test_a_result_that_doesnt_come_in_time_is_told(client: Client) -> None:
    """The job goes on after the timeout."""
    job = client.submit(QUEUE, "good")
    for timeout in (0, 0.05):
        with pytest.raises(errors.ResultTimeout, match="still queued"):
            job.result(timeout)
    assert job.status() is JobStatus.QUEUED


def test_a_full_queue_accepts_what_fits(client: Client, announced: str) -> None:
    """The error has the accepted ids and a time that fits the workers' rate; what was refused left nothing."""
    worker = RedisJobStore(announced, QUEUE)
    worker.report({"rate": 10.0})
    with pytest.raises(errors.QueueFull, match="100 of 130 jobs were accepted") as caught:
        client.submit_many(QUEUE, range(130))
    assert len(caught.value.accepted) == 100
    assert caught.value.retry_after == 3.0
    with pytest.raises(errors.QueueFull) as alone:
        client.submit(QUEUE, "x" * 100_000)
    assert (alone.value.retry_after, alone.value.accepted) == (0.1, ())
    with redis.Redis.from_url(announced) as looking:
        assert not list(looking.scan_iter(f"{names.payload_key('')}*"))
    results = [job.status() for job in map(client.job, caught.value.accepted)]
    assert results == [JobStatus.QUEUED] * 100
    worker.close()


def test_large_inputs_travel_beside_the_message(client: Client, announced: str) -> None:
    """Inputs over the reference size arrive whole, those over the limit are refused with their size."""
    inputs = ["é" * 40_000, "x" * 20_000]
    with working(announced, lambda texts: [len(text) for text in texts]):
        assert client.run(QUEUE, inputs, timeout=PATIENCE_SECONDS) == [40_000, 20_000]
    with pytest.raises(errors.PayloadTooLarge, match="takes 200000"):
        client.submit(QUEUE, "x" * 200_000)


def test_large_answers_come_back_whole(client: Client, announced: str) -> None:
    """An answer over the reference size ends the wait as any other."""
    with working(announced, lambda n: "y" * n):
        assert client.run(QUEUE, 500_000, timeout=PATIENCE_SECONDS) == "y" * 500_000


def test_errors_come_back_as_the_worker_meant_them(client: Client, announced: str) -> None:
    """A failed job raises its class with its text."""

    def refuse(_: Any) -> None:
        raise errors.InputTooLong("9 tokens, the model takes 8")

    with working(announced, refuse), pytest.raises(errors.InputTooLong, match="9 tokens"):
        client.run(QUEUE, "good", timeout=PATIENCE_SECONDS)


def test_cancel_ends_a_job(client: Client, announced: str) -> None:
    """A cancelled job is over at once; strangers and ended jobs are told apart."""
    job = client.submit(QUEUE, "good")
    assert job.cancel() is True
    assert job.cancel() is False
    with pytest.raises(errors.JobCancelled):
        job.result()
    with pytest.raises(errors.UnknownJob):
        client.cancel("stranger")
    with redis.Redis.from_url(announced) as looking:
        assert looking.zrange(names.cancelled_key(QUEUE), 0, -1) == [job.id.encode()]


def test_equal_idempotency_keys_are_one_job(client: Client) -> None:
    """A repeated submission is answered with the first job, over all calls."""
    first = client.submit(QUEUE, "good", idempotency_key="order-7")
    assert client.submit(QUEUE, "good", idempotency_key="order-7") == first
    assert client.submit_many(QUEUE, ["good"], idempotency_keys=["order-7"]) == [first]
    assert sum(client.queues()[0].waiting.values()) == 1


def test_map_answers_in_order_and_keeps_to_its_window(client: Client, announced: str) -> None:
    """A bulk run larger than window and queue comes back whole and in order, errors at their places."""
    drawn = given = ahead = 0

    def inputs() -> Iterator[int]:
        nonlocal drawn, ahead
        for n in range(1000):
            drawn += 1
            ahead = max(ahead, drawn - given)
            yield n

    def double(n: int) -> int:
        if n == 500:
            raise errors.InvalidInput("no five hundred")
        return 2 * n

    answers = []
    with working(announced, double):
        for answer in client.map(QUEUE, inputs(), window=150, timeout=PATIENCE_SECONDS, return_errors=True):
            answers.append(answer)
            given += 1
    assert isinstance(answers[500], errors.InvalidInput)
    assert [answer for n, answer in enumerate(answers) if n != 500] == [2 * n for n in range(1000) if n != 500]
    assert ahead <= 150


def test_closing_a_map_cancels_its_jobs(client: Client, announced: str) -> None:
    """Who stops half-way leaves nothing that waits to be run in vain."""
    running = client.map(QUEUE, range(80), window=40, timeout=PATIENCE_SECONDS)
    with working(announced, lambda n: n):
        assert next(running) == 0
    running.close()
    with redis.Redis.from_url(announced) as looking:
        assert not list(looking.scan_iter(f"{names.record_key('')}*"))


def test_results_of_many_jobs_come_at_once(client: Client, announced: str) -> None:
    """Waiting for a list of handles takes them in order."""
    jobs = client.submit_many(QUEUE, range(90))
    with working(announced, lambda n: n + 1):
        assert [result.get() for result in client.results(jobs, PATIENCE_SECONDS)] == list(range(1, 91))


def test_an_unknown_queue_lists_the_known(client: Client) -> None:
    """The refusal names what there is."""
    with pytest.raises(errors.UnknownQueue, match=r"did you mean 'sentiment'\? Known queues: 'sentiment'"):
        client.submit("sentimant", "good")


@pytest.mark.parametrize("job_id", ["", "x" * 1000, "\ud800"])
def test_ids_that_cant_be_are_strangers(client: Client, job_id: str) -> None:
    """What a user types into an address never breaks the client."""
    assert client.status(job_id) is JobStatus.UNKNOWN
    for ask in (client.job(job_id).result, client.job(job_id).cancel, lambda: client.results([job_id])):
        with pytest.raises(errors.UnknownJob):
            ask()


def test_a_broker_that_is_down_is_told_without_its_password() -> None:
    """Whoever reads the log learns the address and the mend, and no secret."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with Client(f"redis://user:hunter2@127.0.0.1:{port}/0") as client:
        for call in (lambda: client.submit(QUEUE, "good"), lambda: client.result("a"), client.queues):
            with pytest.raises(errors.BrokerUnavailable, match=f"127.0.0.1:{port}.*is it up") as caught:
                call()
            assert "hunter2" not in f"{caught.value!r} {caught.value.__cause__!r}"


async def test_the_asynchronous_client_does_the_same(announced: str) -> None:
    """Submit, wait, cancel, fill up and run in bulk, on one event loop."""
    async with AsyncClient(announced) as client:
        job = await client.submit(QUEUE, "x" * 50_000)
        assert (await job.describe()).position == 0
        with pytest.raises(errors.QueueFull) as caught:
            await client.submit_many(QUEUE, range(130))
        assert len(caught.value.accepted) == 99
        for job_id in caught.value.accepted[1:]:
            assert await client.cancel(job_id)
        with working(announced, lambda inputs: inputs if isinstance(inputs, int) else len(inputs)):
            assert await job.result(PATIENCE_SECONDS) == 50_000
            answers = client.map(QUEUE, range(300), timeout=PATIENCE_SECONDS)
            assert [answer async for answer in answers] == list(range(300))
        statuses = [result.status for result in await client.results(caught.value.accepted)]
        assert statuses == [JobStatus.SUCCEEDED] + [JobStatus.CANCELLED] * 98
        assert (await client.queues())[0].totals["succeeded"] == 302


async def test_hundreds_of_jobs_are_awaited_over_a_few_connections(broker_url: str) -> None:
    """200 waits at once all run until their own time is over, on connections that don't grow with their number."""
    worker = RedisJobStore(broker_url, QUEUE)
    worker.announce(QueueInfo(name=QUEUE, task="text-classification", max_depth=1_000))
    worker.close()
    with redis.Redis.from_url(broker_url) as broker:
        before = len(broker.client_list())
        async with AsyncClient(broker_url) as client:
            jobs = await client.submit_many(QUEUE, [f"text {number}" for number in range(200)])
            waits = [asyncio.create_task(job.result(timeout=1)) for job in jobs]
            assert await asyncio.to_thread(
                until, lambda: len(broker.pubsub_channels()) == len(jobs), "all have subscribed"
            )
            opened = len(broker.client_list()) - before
            ends = await asyncio.gather(*waits, return_exceptions=True)
    assert {type(end) for end in ends} == {errors.ResultTimeout}
    assert opened < 30


async def test_two_who_wait_for_one_job_both_hear_of_it(announced: str) -> None:
    """The first that leaves doesn't take the subscription with it."""
    async with AsyncClient(announced) as client:
        job = await client.submit(QUEUE, "good")
        impatient = asyncio.create_task(job.result(timeout=0.2))
        patient = asyncio.create_task(job.result(PATIENCE_SECONDS))
        with pytest.raises(errors.ResultTimeout):
            await impatient
        with working(announced, len):
            assert await patient == 4


async def test_a_wait_outlives_its_subscription(announced: str) -> None:
    """When the subscribed connection is cut, waits look for themselves, and the next ones subscribe anew."""
    async with AsyncClient(announced) as client:
        for word in ("good", "better"):
            job = await client.submit(QUEUE, word)
            waiting = asyncio.create_task(job.result(PATIENCE_SECONDS))
            with redis.Redis.from_url(announced) as broker:
                assert await asyncio.to_thread(until, broker.pubsub_channels, "the wait has subscribed")
                broker.client_kill_filter(_type="pubsub")
                with working(announced, len):
                    assert await waiting == len(word)


async def test_many_waits_begin_on_a_lost_connection(announced: str) -> None:
    """Those that wait when the connection is cut, and those that subscribe just then, each get their own answer."""
    async with AsyncClient(announced) as client:
        texts = [f"word {number}" for number in range(50)]
        jobs = await client.submit_many(QUEUE, texts)
        waits = [asyncio.create_task(job.result(PATIENCE_SECONDS)) for job in jobs[:25]]
        with redis.Redis.from_url(announced) as broker:
            everyone = lambda: len(broker.pubsub_channels()) == len(waits)  # noqa: E731  # as short as it is
            assert await asyncio.to_thread(until, everyone, "all have subscribed")
            broker.client_kill_filter(_type="pubsub")  # The loop hasn't seen it yet.
        waits += [asyncio.create_task(job.result(PATIENCE_SECONDS)) for job in jobs[25:]]
        with working(announced, lambda inputs: inputs):
            assert await asyncio.gather(*waits) == texts


async def test_an_asynchronous_client_tells_of_a_broker_that_is_down() -> None:
    """The error is the blocking client's."""
    async with AsyncClient("redis://:hunter2@127.0.0.1:1/0") as client:
        with pytest.raises(errors.BrokerUnavailable, match=r"127\.0\.0\.1:1.*is it up") as caught:
            await client.submit(QUEUE, "good")
        assert "hunter2" not in str(caught.value)


async def test_media_travel_through_a_real_server(announced: str) -> None:
    """Large inputs come back as they were, and what a worker left in the server is read by both clients."""
    array = np.arange(20_000, dtype="float32")
    worker = RedisJobStore(announced, QUEUE)
    reference = worker.blobs.put(array.tobytes(), 60)
    worker.close()
    kept = {"$array": {"ref": reference}, "dtype": "float32", "shape": [20_000]}
    with working(announced, lambda inputs: [inputs, kept]):
        with Client(announced) as client:
            answer = client.run(QUEUE, array, timeout=PATIENCE_SECONDS)
        async with AsyncClient(announced) as other:
            answer += await other.run(QUEUE, array, timeout=PATIENCE_SECONDS)
    assert [each.tobytes() == array.tobytes() for each in answer] == [True] * 4
