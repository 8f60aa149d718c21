"""The double that users test with."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime

import pytest

from pipemill import Array, Image, errors, testing
from pipemill.protocol import JobStatus, names
from tests.helpers import PATIENCE_SECONDS, until

QUEUE = "sentiment"


def test_the_docstrings_example_holds() -> None:
    """What the module shows works as shown."""
    broker = testing.MemoryBroker()
    with testing.client(broker) as client, testing.answering(broker, QUEUE, lambda _: {"label": "good"}):
        assert client.run(QUEUE, "I like it") == {"label": "good"}


def test_errors_of_the_function_fail_the_job() -> None:
    """A JobError comes back as it is, anything else as InferenceFailed, an answer that is no JSON as such."""
    broker = testing.MemoryBroker()

    def answer(which: str) -> object:
        if which == "own":
            raise errors.InputTooLong("9 tokens, the model takes 8")
        return {"any": 1 // len(which)} if which == "" else {1, 2}

    with testing.client(broker) as client, testing.answering(broker, QUEUE, answer):
        with pytest.raises(errors.InputTooLong, match="9 tokens"):
            client.run(QUEUE, "own", timeout=PATIENCE_SECONDS)
        with pytest.raises(errors.InferenceFailed, match="ZeroDivisionError: integer division"):
            client.run(QUEUE, "", timeout=PATIENCE_SECONDS)
        with pytest.raises(errors.ResultNotSerialisable, match="set"):
            client.run(QUEUE, "other", timeout=PATIENCE_SECONDS)
        with pytest.raises(errors.InferenceFailed, match="unexpected keyword argument"):
            client.run(QUEUE, "own", {"top_k": 1}, timeout=PATIENCE_SECONDS)


def test_broken_media_fail_the_job_alone() -> None:
    """Neither inputs nor answers that can't be read or written end the answering."""
    broker = testing.MemoryBroker()
    answers = {"form": Array(b"", "float32", (3,)), "fine": "fine"}
    with testing.client(broker) as client, testing.answering(broker, QUEUE, lambda inputs: answers[inputs]):
        with pytest.raises(errors.InvalidInput, match="can't be read"):
            client.run(QUEUE, Image(b"\x89PNG\r\n\x1a\n broken"), timeout=PATIENCE_SECONDS)
        with pytest.raises(errors.ResultNotSerialisable, match="12 bytes"):
            client.run(QUEUE, "form", timeout=PATIENCE_SECONDS)
        assert client.run(QUEUE, "fine", timeout=PATIENCE_SECONDS) == "fine"


def test_jobs_wait_until_somebody_answers() -> None:
    """Announcing alone leaves jobs queued; what waits when the block ends stays queued."""
    broker = testing.MemoryBroker()
    testing.announce(broker, QUEUE, task="text-classification", max_depth=7)
    with testing.client(broker) as client:
        (report,) = client.queues()
        assert (report.info.task, report.info.max_depth) == ("text-classification", 7)
        first = client.submit(QUEUE, "a")
        with testing.answering(broker, QUEUE, str.upper):
            assert first.result(PATIENCE_SECONDS) == "A"
        second = client.submit(QUEUE, "b")
        assert second.status() is JobStatus.QUEUED


def test_a_running_job_says_so_and_the_started_ones_are_listed() -> None:
    """A test sees from outside that its job runs, and what the worker was given."""
    broker, seen = testing.MemoryBroker(), []
    with testing.client(broker) as client:

        def look(_: str) -> None:
            seen.append(client.status("mine"))

        with testing.answering(broker, QUEUE, look) as started:
            client.submit(QUEUE, "a", {}, job_id="mine").result(PATIENCE_SECONDS)
    assert seen == [JobStatus.RUNNING]
    assert [(job.id, job.inputs, job.parameters) for job in started] == [("mine", "a", {})]


def test_what_isnt_a_job_harms_nobody() -> None:
    """Garbage in the queue is put aside, the next job is answered."""
    broker = testing.MemoryBroker()
    with testing.client(broker) as client, testing.answering(broker, QUEUE, str.upper):
        broker.push(QUEUE, b"garbage")
        broker.push(QUEUE, b'{"headers": {"id": "named", "task": "other"}}')
        assert client.run(QUEUE, "a", timeout=PATIENCE_SECONDS) == "A"
        with pytest.raises(errors.MalformedJob, match="answers to the task name"):
            client.result("named", PATIENCE_SECONDS)


def test_a_payload_that_is_gone_is_told() -> None:
    """The double loses a payload as Redis would, when a test makes it."""
    broker = testing.MemoryBroker()
    testing.announce(broker, QUEUE)
    with testing.client(broker) as client:
        job = client.submit(QUEUE, "x" * (names.REFERENCE_BYTES + 1))
        broker.payloads.clear()
        with testing.answering(broker, QUEUE, len), pytest.raises(errors.PayloadMissing, match="submit the job again"):
            job.result(PATIENCE_SECONDS)


async def test_the_asynchronous_client_sees_the_same_broker() -> None:
    """Both kinds of client stand on one broker."""
    broker = testing.MemoryBroker()
    testing.announce(broker, QUEUE)
    with testing.client(broker) as client:
        job = client.submit(QUEUE, "a", eta=datetime.now(UTC))
        async with testing.async_client(broker) as other:
            assert await other.status(job.id) is JobStatus.QUEUED
            with testing.answering(broker, QUEUE, str.upper):
                assert await other.result(job.id, PATIENCE_SECONDS) == "A"
                until(lambda: client.status(job.id) is JobStatus.SUCCEEDED, "both see the end")


def test_it_needs_neither_redis_nor_models() -> None:
    """Importing and using the double loads none of the heavy libraries."""
    script = (
        "import sys; from pipemill import testing; broker = testing.MemoryBroker()\n"
        "with testing.client(broker) as client, testing.answering(broker, 'q', str.upper):\n"
        "    assert client.run('q', 'a') == 'A'\n"
        "print(*{'torch', 'transformers', 'celery', 'redis', 'pydantic'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []
