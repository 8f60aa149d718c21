"""Celery's remote control works on lanes as on ordinary queues."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import TaskRevokedError

from pipemill import JobStatus
from tests.e2e.mill import Mill
from tests.e2e.rig import Serve, operator, report_on
from tests.helpers import until

TASK = "pipemill.infer"
#: Sixteen beams through all of the tiny model's positions: a job that is at it for seconds.
LONG = {"num_beams": 16, "max_new_tokens": 500, "min_new_tokens": 500}


@pytest.fixture
def app(mill: Mill) -> Iterator[Celery]:
    """A Celery application that knows the broker and nothing else."""
    with operator(mill.url) as opened:
        yield opened


def asked(app: Celery, what: str, *arguments: Any) -> Any:
    """What the one worker answers to an inspection."""

    def answered() -> Any:
        return getattr(app.control.inspect(timeout=1, limit=1), what)(*arguments)

    (answer,) = until(answered, f"the worker answers to {what}").values()
    return answer


def told(app: Celery, command: str, **arguments: Any) -> Any:
    """What the one worker answers to a command."""
    (answer,) = app.control.broadcast(command, arguments, reply=True, timeout=10, limit=1)
    (said,) = answer.values()
    return said


def lane_after(mill: Mill, queue: str, seconds: float) -> Mapping[str, Any]:
    """What the worker says of a queue's lane so many seconds from now."""
    moment = time.time() + seconds

    def said() -> Mapping[str, Any] | None:
        (lane,) = report_on(mill.client, queue).lanes.values()
        return lane if lane["at"] > moment else None

    return until(said, "the worker says how the lane is") or {}


@contextmanager
def paused(app: Celery, mill: Mill, queue: str) -> Iterator[None]:
    """Nothing is taken from the queue meanwhile; a wait that began before is over."""
    assert told(app, "cancel_consumer", queue=queue) == {"ok": f"no longer taking from {queue}"}
    assert lane_after(mill, queue, 0.5)["paused"] is True
    yield
    assert told(app, "add_consumer", queue=queue) == {"ok": f"taking from {queue}"}


def test_ping(app: Celery) -> None:
    """The worker answers a ping as any Celery worker does."""
    assert asked(app, "ping") == {"ok": "pong"}


def test_registered(app: Celery) -> None:
    """The one task name is registered."""
    assert TASK in asked(app, "registered")


def test_stats(app: Celery) -> None:
    """The pool's statistics tell what each lane does."""
    lanes = asked(app, "stats")["pool"]["lanes"]
    assert lanes["text-classification"]["task"] == "text-classification"
    assert lanes["echo"]["paused"] is False
    assert "unserved" not in lanes


def test_active_queues(app: Celery) -> None:
    """Lanes are listed as the queues the worker takes from."""
    names = {queue["name"] for queue in asked(app, "active_queues")}
    assert {"text-classification", "echo"} <= names
    assert "unserved" not in names


def test_jobs_in_hand_are_listed(app: Celery, mill: Mill) -> None:
    """A running job is active, one that waits behind it reserved; both are found by id, and no inputs are shown."""
    running, waiting = (mill.client.submit("text-generation", "a secret", LONG) for _ in range(2))
    until(lambda: running.id in {job["id"] for job in asked(app, "active")}, "the first job is active")
    assert [job["id"] for job in asked(app, "reserved")] == [waiting.id]
    found = asked(app, "query_task", [running.id, waiting.id, "another"])
    assert {job_id: state for job_id, (state, _) in found.items()} == {running.id: "active", waiting.id: "reserved"}
    assert found[running.id][1]["delivery_info"]["routing_key"] == "text-generation"
    assert "secret" not in str(found)
    assert waiting.cancel()
    running.result(timeout=60)


def test_a_revoked_job_never_runs(app: Celery, mill: Mill) -> None:
    """A job revoked while it waits raises TaskRevokedError and was never run; the one behind it is answered."""
    ran = lane_after(mill, "single", 0)["batch_sizes"].get("1", 0)
    with paused(app, mill, "single"):
        job, after = (app.send_task(TASK, args=[text], queue="single") for text in ("river", "after"))
        assert app.control.revoke(job.id, reply=True, timeout=10, limit=1)
    with pytest.raises(TaskRevokedError, match="revoked"):
        job.get(timeout=60)
    assert after.get(timeout=60) == "after"
    assert mill.client.status(job.id) is JobStatus.CANCELLED
    assert lane_after(mill, "single", 0)["batch_sizes"]["1"] == ran + 1


def test_a_lane_is_paused_and_resumed(app: Celery, mill: Mill) -> None:
    """After cancel_consumer a lane takes nothing, others do; after add_consumer it goes on."""
    with paused(app, mill, "single"):
        job = mill.client.submit("single", "river")
        assert "single" not in {queue["name"] for queue in asked(app, "active_queues")}
        assert mill.client.run("echo", "stone", timeout=60) == "stone"
        assert job.status() is JobStatus.QUEUED
    assert job.result(timeout=60) == "river"
    assert "single" in {queue["name"] for queue in asked(app, "active_queues")}


def test_a_queue_whose_pipeline_isnt_loaded_cant_be_added(app: Celery) -> None:
    """add_consumer of another queue of the catalogue says which worker to start instead."""
    said = told(app, "add_consumer", queue="unserved")
    assert "hasn't loaded the pipeline of unserved" in said["error"]
    assert "pipemill worker unserved" in said["error"]


def test_shutdown(serve: Serve) -> None:
    """The command ends the worker well."""
    worker = serve("queues: {echo: {task: echo}}")
    with operator(serve.broker) as own:
        asked(own, "ping")
        own.control.shutdown()
        assert worker.wait() == 0
