"""Following a job's text with both clients, against the double that users test with."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from pipemill import StreamEvent, errors, testing
from pipemill.protocol import encode_success, names
from pipemill.store.memory import MemoryJobStore
from pipemill.store.streams import Piece
from tests.helpers import PATIENCE_SECONDS, until

QUEUE = "writer"


def spell(word: str, **_: Any) -> Iterator[str]:
    """Tell a word letter by letter; its answer is the word."""
    yield from word
    return [{"generated_text": word}]


@pytest.fixture
def broker() -> testing.MemoryBroker:
    """A broker in memory."""
    return testing.MemoryBroker()


def text_of(events: Sequence[StreamEvent]) -> str:
    """The text that a reader has in the end."""
    text = ""
    for event in events:
        text = event.text if event.restarted else text + event.text
    return text


def test_a_stream_tells_the_text_and_the_answer(broker: testing.MemoryBroker) -> None:
    """Pieces first, then one end with what ``result`` returns; all name the job."""
    with testing.client(broker) as client, testing.answering(broker, QUEUE, spell):
        *pieces, end = client.stream(QUEUE, "hello", job_id="mine", timeout=PATIENCE_SECONDS)
        assert [event.text for event in pieces] == list("hello")
        assert {event.job_id for event in (*pieces, end)} == {"mine"}
        assert (end.ended, end.result) == (True, [{"generated_text": "hello"}])
        assert client.result("mine", PATIENCE_SECONDS) == end.result


def test_the_asynchronous_stream_is_alike(broker: testing.MemoryBroker) -> None:
    """The same events, awaited; a handle follows, too."""

    async def read() -> tuple[list[StreamEvent], list[StreamEvent]]:
        async with testing.async_client(broker) as client:
            events = [event async for event in client.stream(QUEUE, "hello", timeout=PATIENCE_SECONDS)]
            job = client.job(events[0].job_id)
            return events, [event async for event in job.follow(after=events[1].id, timeout=PATIENCE_SECONDS)]

    with testing.answering(broker, QUEUE, spell):
        events, rest = asyncio.run(read())
    assert text_of(events) == "hello"
    assert events[-1].result == [{"generated_text": "hello"}]
    assert rest == events[2:]


def test_another_process_follows_on(broker: testing.MemoryBroker) -> None:
    """With the id of the last event, another client is told the rest, also after the end."""
    with testing.client(broker) as first, testing.client(broker) as second:
        with testing.answering(broker, QUEUE, spell):
            events = list(first.stream(QUEUE, "hello", timeout=PATIENCE_SECONDS))
        assert list(second.follow(events[0].job_id, after=events[2].id, timeout=0)) == events[3:]
        assert list(second.job(events[0].job_id).follow(after=events[-1].id, timeout=0)) == events[-1:]


def test_a_job_without_a_stream_has_its_end(broker: testing.MemoryBroker) -> None:
    """Who follows a job that wasn't submitted so gets its answer, and no pieces."""
    with testing.client(broker) as client, testing.answering(broker, QUEUE, spell):
        job = client.submit(QUEUE, "hello")
        (end,) = job.follow(timeout=PATIENCE_SECONDS)
        assert (end.ended, end.text, end.result) == (True, "", [{"generated_text": "hello"}])


def test_an_answer_of_a_worker_without_streams_is_followed(broker: testing.MemoryBroker) -> None:
    """A worker of an older version answers a streamed job: its end comes, and voids the pieces of another's run."""
    testing.announce(broker, QUEUE)
    with testing.client(broker) as client:
        job = client.submit(QUEUE, "hello", stream=True)
        broker.append(job.id, Piece(field="", job_id=job.id, run="1|0", offset=0, text="hel"))
        broker.results[job.id] = encode_success(job.id, "good")
        piece, end = job.follow(timeout=PATIENCE_SECONDS)
        assert (piece.text, end.result, end.restarted) == ("hel", "good", True)


def test_a_job_that_fails_raises(broker: testing.MemoryBroker) -> None:
    """What was told of its text comes first, then what ``result`` raises."""

    def stumble(word: str) -> Iterator[str]:
        yield word
        raise errors.InvalidInput("enough")

    told = []
    with testing.client(broker) as client, testing.answering(broker, QUEUE, stumble):
        with pytest.raises(errors.InvalidInput, match="enough"):
            told += [event.text for event in client.stream(QUEUE, "hello", timeout=PATIENCE_SECONDS)]
        events = client.stream(QUEUE, "hello", timeout=PATIENCE_SECONDS)
        assert next(events).text == "hello"
        with pytest.raises(errors.InvalidInput, match="enough"):
            next(events)
    assert told == []


def test_a_job_that_ends_without_a_worker_ends_its_stream(broker: testing.MemoryBroker) -> None:
    """Cancelled while it waits, or expired: who follows isn't left waiting."""
    testing.announce(broker, QUEUE)
    with testing.client(broker) as client:
        cancelled = client.submit(QUEUE, "a", stream=True)
        expired = client.submit(QUEUE, "b", stream=True, expires=0)
        cancelled.cancel()
        with pytest.raises(errors.JobCancelled):
            list(cancelled.follow())
        with pytest.raises(errors.JobExpired):
            list(expired.follow())


def test_who_waits_too_long_is_told(broker: testing.MemoryBroker) -> None:
    """The timeout is that of ``result``: the job goes on. An unknown job is unknown."""
    testing.announce(broker, QUEUE)
    with testing.client(broker) as client:
        events = client.stream(QUEUE, "a", timeout=0, job_id="a")
        with pytest.raises(errors.ResultTimeout, match="still queued"):
            next(events)
        with pytest.raises(errors.UnknownJob):
            next(client.follow("nobody"))
        with pytest.raises(errors.UnknownJob):
            next(client.follow("\n"))
        with pytest.raises(ValueError, match="id of an event"):
            next(client.follow("a", after="yesterday"))


def test_a_stream_needs_its_result(broker: testing.MemoryBroker) -> None:
    """It ends with the result, so the result can't be ignored."""
    testing.announce(broker, QUEUE)
    with testing.client(broker) as client, pytest.raises(ValueError, match="stream or ignore_result"):
        client.submit(QUEUE, "a", stream=True, ignore_result=True)


def test_a_job_says_that_it_is_followed(broker: testing.MemoryBroker) -> None:
    """By a header, which jobs that nobody follows don't have."""
    with testing.client(broker) as client, testing.answering(broker, QUEUE, spell) as started:
        client.results([client.submit(QUEUE, "a"), client.submit(QUEUE, "b", stream=True)], timeout=PATIENCE_SECONDS)
        assert [job.headers.get(names.STREAM_HEADER) for job in started] == [None, True]


def test_who_is_told_much_is_still_told_of_the_timeout(broker: testing.MemoryBroker) -> None:
    """Pieces that keep coming don't put off the timeout."""
    testing.announce(broker, QUEUE)
    with testing.client(broker) as client:
        job = client.submit(QUEUE, "hello", stream=True)
        broker.append(job.id, Piece(field="", job_id=job.id, run="1|0", offset=0, text="hel"))
        events = job.follow(timeout=0)
        assert next(events).text == "hel"
        broker.append(job.id, Piece(field="", job_id=job.id, run="1|0", offset=3, text="lo"))
        with pytest.raises(errors.ResultTimeout):
            next(events)


def test_a_replayed_letter_is_followed_to_its_second_end(broker: testing.MemoryBroker) -> None:
    """The end of a job's first life isn't taken for that of its second."""
    testing.announce(broker, QUEUE)
    with testing.client(broker) as client:
        job = client.submit(QUEUE, "hello", stream=True)
        broker.append(job.id, Piece(field="", job_id=job.id, run="0|0", offset=0, text="hel"))
        broker.append(job.id)
        with testing.answering(broker, QUEUE, spell):
            events = list(job.follow(timeout=PATIENCE_SECONDS))
        assert text_of(events) == "hello"
        assert [event.restarted for event in events[:2]] == [False, True]


def test_usage_is_part_of_results(broker: testing.MemoryBroker) -> None:
    """What a document says of the tokens is read; what isn't of that form is left out."""
    testing.announce(broker, QUEUE)
    said: dict[str, Any] = {"prompt_tokens": 3, "completion_tokens": 5, "finish_reason": "length"}
    with testing.client(broker) as client:
        for number, usage in enumerate([said, {**said, "finish_reason": 7}, "many", None]):
            links = {names.USAGE_FIELD: usage}
            broker.results[f"job-{number}"] = encode_success(f"job-{number}", "text", links=links)
        results = client.results([f"job-{number}" for number in range(4)], timeout=PATIENCE_SECONDS)
        assert results[0].usage is not None
        assert (results[0].usage.total_tokens, results[0].usage.finish_reason) == (8, "length")
        assert [result.usage for result in results[1:]] == [None] * 3
        (end,) = client.follow("job-0", timeout=0)
        assert end.usage == results[0].usage


def test_pieces_are_told_while_the_job_runs(broker: testing.MemoryBroker) -> None:
    """Who follows has a piece long before the end."""
    testing.announce(broker, QUEUE)
    worker = MemoryJobStore(broker, QUEUE)
    with testing.client(broker) as client:
        job = client.submit(QUEUE, "hello", stream=True)
        (leased,) = worker.take(1).jobs
        worker.emit([Piece(field=leased.field, job_id=job.id, run=leased.field, offset=0, text="hel")])
        events = job.follow()
        assert next(events).text == "hel"
        assert until(lambda: not job.status().ended, "it runs")
        events.close()
        assert not job.status().ended
