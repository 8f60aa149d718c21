"""Texts followed while they are written, through a real broker and real workers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import redis

from pipemill import AsyncClient, Client, JobCancelled, PipemillError, StreamEvent
from pipemill.protocol import names
from tests.e2e.mill import Mill
from tests.e2e.rig import Process, Serve, leased_messages, operator
from tests.helpers import PATIENCE_SECONDS, until
from tests.unit.pipelines.test_streams import answered
from tests.unit.pipelines.test_writing import prompts

GENERATOR = """
worker: {lease_seconds: 2, torch_threads: 1, max_deliveries: 10}
queues:
  generator: {task: text-generation, model: "builtin:generator", device: cpu, prefetch: 64}
"""
#: A text that comes to its end by its length alone.
LONG = {"do_sample": False, "max_new_tokens": 60, "min_new_tokens": 60}


def asked(count: int) -> list[tuple[str, dict[str, Any]]]:
    """Prompts whose texts all have their full length."""
    words = ["the", "food", "was", "very", "good", "and", "the", "price", "is", "fine"]
    return [(" ".join(words[: 1 + number % len(words)]), LONG) for number in range(count)]


def read(events: Sequence[StreamEvent]) -> str:
    """The text that a reader has in the end."""
    text = ""
    for event in events:
        text = event.text if event.restarted else text + event.text
    return text


class Follower:
    """Follows many jobs at once, from another thread, each behind an event if one is given for it."""

    def __init__(self, url: str, job_ids: Sequence[str], after: Mapping[str, str] | None = None):
        self.events: dict[str, list[StreamEvent]] = {job_id: [] for job_id in job_ids}
        self.errors: dict[str, PipemillError] = {}
        self._url, self._after = url, after or {}
        self._thread = threading.Thread(target=lambda: asyncio.run(self._follow_all()))
        self._thread.start()

    async def _follow_all(self) -> None:
        async with AsyncClient(self._url) as client:
            await asyncio.gather(*(self._follow(client, job_id) for job_id in self.events))

    async def _follow(self, client: AsyncClient, job_id: str) -> None:
        try:
            async for event in client.follow(job_id, after=self._after.get(job_id), timeout=300):
                self.events[job_id].append(event)
        except PipemillError as error:
            self.errors[job_id] = error

    def wait(self) -> None:
        """Wait until all have ended."""
        self._thread.join(330)
        assert not self._thread.is_alive()


@contextmanager
def frozen_while_it_tells(worker: Process, follower: Follower) -> Iterator[None]:
    """Hold a worker still when at least twenty of its texts were begun, and none has ended."""

    def caught() -> bool:
        if sum(map(bool, follower.events.values())) < 20:
            return False
        worker.freeze()
        return True

    worker.until(caught, "twenty texts are begun")
    assert not any(events[-1].ended for events in follower.events.values() if events)
    yield


def test_fifty_streams_outlive_their_worker(serve: Serve, client: Client, broker: redis.Redis) -> None:
    """After kill -9 in their middle every stream begins anew, and ends complete and right."""
    worker, jobs = serve(GENERATOR), asked(50)
    follower = Follower(serve.broker, [client.submit("generator", *job, stream=True).id for job in jobs])
    with frozen_while_it_tells(worker, follower):
        worker.kill()
    assert leased_messages(broker) > 0
    serve(GENERATOR)
    follower.wait()
    assert follower.errors == {}
    for job, events in zip(jobs, follower.events.values(), strict=True):
        assert read(events) == answered(*job)
        assert events[-1].result[0]["generated_text"] == job[0] + read(events)
        assert [event.ended for event in events] == [False] * (len(events) - 1) + [True]
        assert sum(event.restarted for event in events) <= 1
        assert not events[-1].restarted
    assert sum(any(event.restarted for event in events) for events in follower.events.values()) >= 20


def test_of_fifty_streams_twenty_are_cancelled(serve: Serve, client: Client) -> None:
    """Cancelled in their middle, twenty stop short of their end and say so; thirty are complete and right."""
    worker, jobs = serve(GENERATOR), asked(50)
    ids = [client.submit("generator", *job, stream=True).id for job in jobs]
    follower = Follower(serve.broker, ids)
    with frozen_while_it_tells(worker, follower):
        assert all(client.cancel(job_id) for job_id in ids[:20])
        worker.thaw()
    follower.wait()
    assert {type(error) for error in follower.errors.values()} == {JobCancelled}
    assert follower.errors.keys() == set(ids[:20])
    for number, (job, events) in enumerate(zip(jobs, follower.events.values(), strict=True)):
        expected = answered(*job)
        if number >= 20:
            assert read(events) == expected
        else:
            assert expected.startswith(read(events))
            assert len(read(events)) < len(expected)
    assert worker.stop() == 0


def test_mixed_jobs_are_told_as_alone(mill: Mill) -> None:
    """Seeds, processors, stop sequences and lengths: pieces join to the direct call's text, and usage comes along."""
    jobs = [job for job in prompts(60) if "num_return_sequences" not in job[1]]
    follower = Follower(mill.url, [mill.client.submit("generator", *job, stream=True).id for job in jobs])
    follower.wait()
    assert follower.errors == {}
    for job, (job_id, events) in zip(jobs, follower.events.items(), strict=True):
        assert read(events) == answered(*job)
        assert not any(event.restarted for event in events)
        assert events[-1].result == mill.client.result(job_id)
        (result,) = mill.client.results([job_id])
        assert result.usage is not None
        assert events[-1].usage == result.usage


def test_a_second_client_follows_on(mill: Mill) -> None:
    """With the id of the last event, another is told the rest and nothing twice, while it is written or later."""
    (job,) = asked(1)
    with Client(mill.url) as first, Client(mill.url) as second:
        events = first.stream("generator", *job, timeout=PATIENCE_SECONDS)
        begun = [next(events), next(events)]
        events.close()
        rest = list(second.follow(begun[0].job_id, after=begun[-1].id, timeout=PATIENCE_SECONDS))
        assert read([*begun, *rest]) == answered(*job)
        again = list(second.follow(begun[0].job_id, timeout=0))
        assert read(again) == answered(*job)
        assert again[-1].result == rest[-1].result


@pytest.mark.parametrize(
    "parameters", [{"num_beams": 3, "do_sample": False}, {"num_return_sequences": 2, "do_sample": True, "seed": 3}]
)
def test_what_is_not_written_token_by_token_has_its_end(mill: Mill, parameters: dict[str, Any]) -> None:
    """Beams are told in one piece, several answers in none; the end has the answer either way."""
    given = {"max_new_tokens": 5, **parameters}
    *pieces, end = mill.client.stream("generator", "the food was", given, timeout=PATIENCE_SECONDS)
    assert end.result == mill.client.run("generator", "the food was", given, timeout=PATIENCE_SECONDS)
    text = end.result[0]["generated_text"].removeprefix("the food was")
    assert [event.text for event in pieces] == ([] if "num_return_sequences" in parameters else [text])
    assert end.usage is not None


def test_other_tasks_are_streamed_to_their_end(mill: Mill) -> None:
    """A job that writes nothing has no pieces and no usage, and its answer."""
    (end,) = mill.client.stream("echo", {"any": "thing"}, timeout=PATIENCE_SECONDS)
    assert (end.result, end.usage, end.ended) == ({"any": "thing"}, None, True)


def test_plain_celery_reads_a_result_with_usage(mill: Mill) -> None:
    """What writing took stands beside the answer: AsyncResult doesn't mind it, and send_task can ask for a stream."""
    text, given = "the food was", {"max_new_tokens": 3, "do_sample": False}
    with operator(mill.url) as app:
        sent = app.send_task(
            names.TASK_NAME, args=[text], kwargs=given, queue="generator", headers={names.STREAM_HEADER: True}
        )
        answer = sent.get(timeout=PATIENCE_SECONDS)
    events = list(mill.client.follow(sent.id, timeout=PATIENCE_SECONDS))
    assert (answer, read(events)) == (events[-1].result, answered(text, given))
    assert events[-1].usage is not None


def test_a_stream_leaves_one_bounded_key(mill: Mill) -> None:
    """It is kept as long as the result, and no longer."""
    events = list(mill.client.stream("generator", *asked(1)[0], timeout=PATIENCE_SECONDS))
    with redis.Redis.from_url(mill.url) as look:
        key = names.stream_key(events[0].job_id)
        assert look.type(key) == b"stream"
        assert 0 < until(lambda: look.ttl(key), "it expires") <= 3600
