"""Dead letters as clients see them, over a broker in memory."""

from __future__ import annotations

import pytest

from pipemill import errors, testing
from pipemill.letters import AT_ONCE
from pipemill.protocol import JobStatus, Outcome, encode_failure, message_id
from pipemill.protocol.history import encode_letter
from pipemill.store.base import Completion
from pipemill.store.memory import MemoryJobStore
from pipemill.testing import MemoryBroker

QUEUE = "sentiment"


@pytest.fixture
def broker() -> MemoryBroker:
    """A broker with a queue that nobody serves."""
    made = MemoryBroker()
    testing.announce(made, QUEUE, max_depth=1_000)
    return made


def give_up(broker: MemoryBroker, count: int) -> list[str]:
    """Submit jobs and give each up; their ids, in order."""
    jobs = testing.client(broker).submit_many(QUEUE, [f"text {n}" for n in range(count)], {"top_k": 1})
    store = MemoryJobStore(broker, QUEUE)
    for leased in store.take(count).jobs:
        job_id = message_id(leased.raw) or ""
        document = encode_failure(job_id, errors.RetryLimitReached("enough"))
        letter = encode_letter(error="RetryLimitReached", text="enough", attempts=3)
        store.complete(
            [Completion(field=leased.field, job_id=job_id, outcome=Outcome.DEAD, document=document, letter=letter)]
        )
    store.close()
    return [job.id for job in jobs]


def test_a_job_that_was_given_up_is_shown_replayed_and_answered(broker: MemoryBroker) -> None:
    """Its handle waits again, and has its answer."""
    (job_id,) = give_up(broker, 1)
    with testing.client(broker) as client:
        job = client.job(job_id)
        assert job.status() is JobStatus.FAILED
        (listed,) = client.dead.latest(QUEUE)
        assert (listed.id, listed.error, listed.attempts) == (job_id, "RetryLimitReached", 3)
        assert client.dead.show(QUEUE, job_id).arguments() == ("text 0", {"top_k": 1})
        with pytest.raises(errors.MalformedJob, match="ask for this one by its id"):
            listed.arguments()
        assert client.dead.replay(QUEUE, [job_id]) == [job_id]
        assert job.status() is JobStatus.QUEUED
        assert client.dead.replay(QUEUE, [job_id]) == [job_id]
        with testing.answering(broker, QUEUE, lambda text, **_: text.upper()):
            assert job.result(timeout=30) == "TEXT 0"


def test_all_are_replayed_or_dropped_however_many(broker: MemoryBroker) -> None:
    """In parts, the oldest first, so that they come back in the order in which they died."""
    job_ids = give_up(broker, 2 * AT_ONCE + 1)
    with testing.client(broker) as client:
        assert client.dead.replay(QUEUE) == job_ids
        assert client.dead.replay(QUEUE) == []
        assert client.queues()[0].dead == 0
    give_up(broker, AT_ONCE + 1)
    with testing.client(broker) as client:
        assert client.dead.drop(QUEUE) > AT_ONCE
        assert client.dead.latest(QUEUE) == []
        assert client.dead.drop(QUEUE) == 0


def test_unknown_letters_are_named(broker: MemoryBroker) -> None:
    """The error says which, and that all others were done."""
    (first, second) = give_up(broker, 2)
    with testing.client(broker) as client:
        with pytest.raises(errors.UnknownJob, match=r"'x': no such dead letter.*1 others are back.*pipemill dead list"):
            client.dead.replay(QUEUE, ["x", first])
        with pytest.raises(errors.UnknownJob, match=r"'x': no such dead letter.*1 others were dropped"):
            client.dead.drop(QUEUE, ["x", second])
        with pytest.raises(errors.UnknownJob, match=r"'x': no such dead letter"):
            client.dead.show(QUEUE, "x")
        with pytest.raises(errors.UnknownJob, match="'6', …"):
            client.dead.drop(QUEUE, [str(n) for n in range(2, 9)])


def test_a_letter_whose_job_ended_well_since_is_refused(broker: MemoryBroker) -> None:
    """Its answer stands; the error says what to do with the letter."""
    (job_id,) = give_up(broker, 1)
    del broker.results[job_id]
    with testing.client(broker) as client, testing.answering(broker, QUEUE, lambda text, **_: text):
        client.submit(QUEUE, "anew", job_id=job_id).result(30)
        with pytest.raises(errors.UnknownJob, match="has ended otherwise since: drop its letter"):
            client.dead.replay(QUEUE, [job_id])


def test_a_full_queue_takes_back_what_fits(broker: MemoryBroker) -> None:
    """The error has the ids of those, and the others stay letters."""
    job_ids = give_up(broker, AT_ONCE + 50)
    testing.announce(broker, QUEUE, max_depth=10)
    with testing.client(broker) as client:
        with pytest.raises(errors.QueueFull, match=r"10 of 150 dead letters are back") as raised:
            client.dead.replay(QUEUE)
        assert list(raised.value.accepted) == job_ids[:10]
        assert len(client.dead.latest(QUEUE, 1_000)) == 140


def test_an_unknown_queue_is_told(broker: MemoryBroker) -> None:
    """A misspelt queue isn't one without dead letters."""
    with testing.client(broker) as client:
        for call in (client.dead.latest, client.dead.replay, client.dead.drop):
            with pytest.raises(errors.UnknownQueue, match="did you mean 'sentiment'"):
                call("sentimnet")
        with pytest.raises(errors.UnknownQueue):
            client.dead.replay("sentimnet", ["x"])
        assert client.dead.latest(QUEUE) == []


async def test_the_asynchronous_client_does_the_same(broker: MemoryBroker) -> None:
    """List, show, replay and drop, awaited."""
    first, second, third = give_up(broker, 3)
    async with testing.async_client(broker) as client:
        assert [letter.id for letter in await client.dead.latest(QUEUE, 2)] == [third, second]
        assert (await client.dead.show(QUEUE, first)).arguments() == ("text 0", {"top_k": 1})
        assert await client.dead.replay(QUEUE, [first]) == [first]
        assert await client.dead.drop(QUEUE, [second]) == 1
        assert await client.dead.replay(QUEUE) == [third]
        with pytest.raises(errors.UnknownJob):
            await client.dead.show(QUEUE, "x")
        with pytest.raises(errors.UnknownJob):
            await client.dead.drop(QUEUE, ["x"])
        with pytest.raises(errors.UnknownQueue):
            await client.dead.latest("nowhere")
        with pytest.raises(errors.UnknownQueue):
            await client.dead.replay("nowhere", ["x"])
