"""What is special to the asynchronous client; what both clients do is in test_client."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator

import pytest

from pipemill import errors, testing
from pipemill.aio import AsyncClient, AsyncJob
from pipemill.client import Client, Job
from pipemill.following import AsyncFollowing, Following
from pipemill.protocol import JobStatus
from pipemill.store.memory import MemoryBroker
from tests.helpers import PATIENCE_SECONDS

QUEUE = "sentiment"


@pytest.fixture
def broker() -> MemoryBroker:
    """A broker in memory that knows one queue."""
    broker = MemoryBroker()
    testing.announce(broker, QUEUE)
    return broker


def _public(cls: type) -> dict[str, list[tuple[str, object, object]]]:
    """The public methods of a class, each with the names, defaults and kinds of its parameters."""
    methods = {
        name: value for name, value in vars(cls).items() if callable(value) and (name[0] != "_" or name == "__init__")
    }
    return {
        name: [(each.name, each.default, each.kind) for each in inspect.signature(method).parameters.values()]
        for name, method in methods.items()
    }


@pytest.mark.parametrize(
    ("blocking", "asynchronous"), [(Client, AsyncClient), (Following, AsyncFollowing), (Job, AsyncJob)]
)
def test_the_clients_are_parallel(blocking: type, asynchronous: type) -> None:
    """Both have the same methods with the same parameters; all that talk to the broker are awaited, or iterated."""
    assert _public(blocking) == _public(asynchronous)
    for name in _public(asynchronous).keys() - {"__init__", "map", "stream", "follow", "job"}:
        assert inspect.iscoroutinefunction(getattr(asynchronous, name)), name


async def test_jobs_run_side_by_side(broker: MemoryBroker) -> None:
    """Many coroutines share a client, and each gets its own answer."""
    async with testing.async_client(broker) as client:
        with testing.answering(broker, QUEUE, str.upper):
            answers = await asyncio.gather(
                *(client.run(QUEUE, text, timeout=PATIENCE_SECONDS) for text in "abcdefghij"),
            )
    assert "".join(answers) == "ABCDEFGHIJ"


async def test_waiting_lets_others_work(broker: MemoryBroker) -> None:
    """The event loop goes on while a result is waited for, and the wait can be broken off; the job goes on."""
    async with testing.async_client(broker) as client:
        job = await client.submit(QUEUE, "good")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(job.result(), 0.01)
        assert await job.status() is JobStatus.QUEUED
        waiting = asyncio.create_task(job.result(PATIENCE_SECONDS))
        assert await job.cancel()
        with pytest.raises(errors.JobCancelled):
            await waiting


async def test_map_is_iterated_with_async_for(broker: MemoryBroker) -> None:
    """Answers come one by one and in order, and leaving the loop cancels what is on its way."""
    async with testing.async_client(broker) as client:
        with testing.answering(broker, QUEUE, lambda n: n):
            assert [answer async for answer in client.map(QUEUE, range(100), timeout=PATIENCE_SECONDS)] == [*range(100)]
        running = client.map(QUEUE, range(100), window=10, timeout=0.05)
        with pytest.raises(errors.ResultTimeout):
            await anext(running)
        assert broker.records == {}


async def test_a_cancelled_task_cancels_its_bulk_jobs(broker: MemoryBroker) -> None:
    """A web request that is broken off leaves no work behind."""
    async with testing.async_client(broker) as client:
        drawn = asyncio.Event()

        def inputs() -> Iterator[int]:
            yield from range(5)
            drawn.set()

        async def consume() -> list[int]:
            return [answer async for answer in client.map(QUEUE, inputs())]

        task = asyncio.create_task(consume())
        await drawn.wait()
        assert len(broker.records) == 5
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert broker.records == {}


async def test_handles_of_one_job_are_equal(broker: MemoryBroker) -> None:
    """Handles compare and hash by id, show no inputs, and are taken for their ids."""
    async with testing.async_client(broker) as client:
        job = await client.submit(QUEUE, "secret text", job_id="a")
        assert job == client.job("a")
        assert len({job, client.job("a"), client.job("b")}) == 2
        assert job != "a"
        assert repr(job) == "AsyncJob(id='a', queue='sentiment')"
        await job.cancel()
        assert [result.status for result in await client.results([job])] == [JobStatus.CANCELLED]
