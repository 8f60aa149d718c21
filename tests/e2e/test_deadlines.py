"""Deadlines and cancels while the device is busy, and a device that never comes back."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from celery.exceptions import TaskRevokedError

from pipemill import Client, JobStatus, errors
from pipemill.client import Job
from pipemill.parameters.generation import MAX_NEW_TOKENS
from pipemill.protocol import names
from tests.e2e.rig import ROOT, Process, Serve, leased_messages, operator, report_on
from tests.helpers import until

TASK = "pipemill.infer"
ECHO = "queues: {echo: {task: echo, device: cpu}}"
STUCK = "worker: {stuck_seconds: 5, max_deliveries: 2}\n" + ECHO
#: As many tokens as a job may ask for.
ENDLESS = {"max_new_tokens": MAX_NEW_TOKENS, "min_new_tokens": MAX_NEW_TOKENS, "do_sample": False}
#: What Python runs first in every process of a fleet: the echo lanes of tests/e2e/sabotaged.py.
SITE = """
from pipemill_worker.pipelines import factory
from tests.e2e.sabotaged import Sabotaged
factory.EchoRunner = Sabotaged
"""


def sabotaged(serve: Serve, catalogue: str, sabotage: str, **environment: str) -> Process:
    """A worker with an echo lane that "poison" breaks."""
    script = str(Path(__file__).with_name("sabotaged.py"))
    file = str(serve.catalogue(catalogue))
    variables = {"SABOTAGE": sabotage, "PYTHONPATH": str(ROOT), **environment}
    return serve.run(sys.executable, script, "worker", "--catalogue", file, **variables)


@dataclass
class Busy:
    """A worker whose device is busy with one job until ``go``."""

    worker: Process
    running: Job
    gate: Path

    def go(self) -> None:
        """Let the device go on."""
        self.gate.touch()


@pytest.fixture
def busy(serve: Serve, client: Client) -> Busy:
    """A worker in the middle of a pass that takes as long as a test likes."""
    gate = serve.folder / "gate"
    worker = sabotaged(serve, ECHO, "wait", GATE=str(gate))
    serve.wait_until_serving(worker, "echo")
    running = client.submit("echo", "poison")
    worker.until(lambda: running.status() is JobStatus.RUNNING, "it runs")
    return Busy(worker, running, gate)


def lane(client: Client) -> Mapping[str, Any]:
    """What the one worker last said of its lane."""
    (said,) = report_on(client, "echo").lanes.values()
    return said


def holds(busy: Busy, client: Client, count: int) -> None:
    """Wait until the worker says that it has so many jobs in hand."""
    busy.worker.until(lambda: lane(client)["held"] == count, f"{count} jobs are held")


def test_a_deadline_passes_while_the_device_is_busy(busy: Busy, client: Client) -> None:
    """A job in the worker's hands expires and is told so, though the pass before it goes on."""
    late = client.submit("echo", "late", expires=6)
    holds(busy, client, 2)
    with pytest.raises(errors.JobExpired):
        late.result(timeout=60)
    holds(busy, client, 1)
    assert busy.running.status() is JobStatus.RUNNING
    busy.go()
    assert busy.running.result(timeout=60) == "poison"
    assert report_on(client, "echo").totals["expired"] == 1


def test_a_celery_message_that_comes_too_late(busy: Busy, serve: Serve) -> None:
    """A plain message whose deadline has passed ends where it is read, while the device is busy."""
    with operator(serve.broker) as app:
        late = app.send_task(TASK, args=["late"], queue="echo", expires=0.001)
        with pytest.raises(TaskRevokedError, match="expired"):
            late.get(timeout=60)
    busy.go()


@pytest.mark.parametrize("way", ["cancel", "revoke"])
def test_a_waiting_job_is_cancelled_at_once(way: str, busy: Busy, serve: Serve, client: Client) -> None:
    """Our cancel and Celery's revoke both end it at once, and its place in the worker is free."""
    job = client.submit("echo", "waits")
    holds(busy, client, 2)
    end(way, serve, job)
    with pytest.raises(errors.JobCancelled):
        job.result(timeout=60)
    holds(busy, client, 1)
    assert busy.running.status() is JobStatus.RUNNING
    busy.go()
    assert busy.running.result(timeout=60) == "poison"


@pytest.mark.parametrize("way", ["cancel", "revoke"])
def test_a_running_job_is_cancelled(way: str, busy: Busy, serve: Serve, client: Client) -> None:
    """Its state says so while the pass, which nothing can stop, goes on; its answer is dropped."""
    end(way, serve, busy.running)
    with pytest.raises(errors.JobCancelled):
        busy.running.result(timeout=60)
    after = client.submit("echo", "after")
    busy.go()
    assert after.result(timeout=60) == "after"
    until(lambda: report_on(client, "echo").totals.get("cancelled") == 1, "its end is counted")
    assert busy.running.status() is JobStatus.CANCELLED
    assert not busy.worker.ended


def end(way: str, serve: Serve, job: Job) -> None:
    """Cancel a job by our client, or by Celery's remote control."""
    if way == "cancel":
        assert job.cancel()
        return
    with operator(serve.broker) as app:
        assert app.control.revoke(job.id, reply=True, timeout=10, limit=1)


def test_a_generation_stops_when_it_is_cancelled(serve: Serve, client: Client) -> None:
    """A job that would write for minutes makes room for the next, cancelled either way."""
    from tests.e2e.models import save  # noqa: PLC0415  # loads torch, which these tests leave to workers
    from tests.unit.pipelines.tiny import byte_tokenizer, tiny_model  # noqa: PLC0415  # as above

    tokenizer = byte_tokenizer()
    deep = tiny_model("text-generation", "llama", tokenizer, num_hidden_layers=40)  # some 40 ms for a token
    save(serve.folder / "writer", deep, tokenizer)
    worker = serve("queues: {writes: {task: text-generation, model: ./writer, device: cpu}}")
    for way in ("cancel", "revoke"):
        endless = client.submit("writes", "river", ENDLESS)
        worker.until(lambda job=endless: job.status() is JobStatus.RUNNING, "it writes")
        after = client.submit("writes", "stone", {"max_new_tokens": 1})
        end(way, serve, endless)
        assert after.result(timeout=60)
        assert endless.status() is JobStatus.CANCELLED


@pytest.mark.parametrize("way", ["cancel", "revoke"])
def test_a_queued_job_is_cancelled(way: str, serve: Serve, client: Client) -> None:
    """A job that no worker has room for ends at once, and isn't run later."""
    gate = serve.folder / "gate"
    full = ECHO.replace("device: cpu", "device: cpu, prefetch: 1")
    worker = sabotaged(serve, full, "wait", GATE=str(gate))
    serve.wait_until_serving(worker, "echo")
    running = client.submit("echo", "poison")
    worker.until(lambda: running.status() is JobStatus.RUNNING, "it runs")
    queued, after = client.submit("echo", "queued"), client.submit("echo", "after")
    end(way, serve, queued)
    with pytest.raises(errors.JobCancelled):
        queued.result(timeout=60)
    gate.touch()
    assert after.result(timeout=60) == "after"
    assert (running.result(timeout=60), queued.status()) == ("poison", JobStatus.CANCELLED)
    until(lambda: lane(client)["cost"] == 2, "two jobs were run")


def test_a_job_nobody_has_room_for_expires(serve: Serve, client: Client, broker: redis.Redis) -> None:
    """Whoever asks for a job well past its deadline ends it, without any worker; one that comes later drops it."""
    worker = serve(ECHO)
    assert worker.stop() == 0
    job = client.submit("echo", "late", expires=0.5)
    with pytest.raises(errors.JobExpired):
        job.result(timeout=60)
    assert job.status() is JobStatus.EXPIRED
    assert broker.llen("echo") == 1
    serve(ECHO)
    assert client.run("echo", "after", timeout=60) == "after"
    until(lambda: report_on(client, "echo").totals.get("expired") == 1, "its end is counted")
    assert job.status() is JobStatus.EXPIRED


def test_a_stuck_pass_ends_its_process(serve: Serve, client: Client, broker: redis.Redis) -> None:
    """Exit code 70, the stack is in the log; only what ran is blamed, all others are answered by the next worker."""
    with Client(serve.broker, catalogue=serve.catalogue(STUCK)) as early:
        poison = early.submit("echo", "poison")
    worker = sabotaged(serve, STUCK, "hang")
    worker.until(lambda: poison.status() is JobStatus.RUNNING, "it hangs")
    others = client.submit_many("echo", [f"text {number}" for number in range(20)])
    assert worker.wait() == 70
    assert "forward pass of 1 items" in worker.output()
    assert "threading.Event().wait()" in worker.output()
    assert leased_messages(broker) == 0
    assert broker.zcard(names.LEASES_KEY) == 0
    second = sabotaged(serve, STUCK, "hang")
    assert second.wait() == 70
    third = sabotaged(serve, STUCK, "hang")
    assert [each.result(timeout=60) for each in others] == [f"text {number}" for number in range(20)]
    with pytest.raises(errors.DeliveryLimitReached, match="2 workers died while they held this job"):
        poison.result(timeout=60)
    assert report_on(client, "echo").dead == 1
    assert third.stop() == 0


def test_a_fleet_replaces_a_stuck_process(serve: Serve, client: Client, broker: redis.Redis) -> None:
    """One of two processes hangs: the supervisor starts another, the job at fault fails, all others are answered."""
    (serve.folder / "sitecustomize.py").write_text(SITE, encoding="utf-8")
    catalogue = STUCK.replace("stuck_seconds", "processes: 2, stuck_seconds")
    fleet = serve.start(catalogue, SABOTAGE="hang", PYTHONPATH=f"{serve.folder}{os.pathsep}{ROOT}")
    fleet.until(lambda: any(len(report.lanes) == 2 for report in client.queues()), "both serve")
    jobs = client.submit_many("echo", ["one", "poison", "two"])
    one, poison, two = client.results(jobs, timeout=120)
    assert (one.get(), two.get()) == ("one", "two")
    with pytest.raises(errors.DeliveryLimitReached):
        poison.get()
    fleet.until(lambda: fleet.output().count("died with code 70") == 2, "the supervisor has seen both ends")
    assert fleet.stop() == 0
    assert leased_messages(broker) == 0
