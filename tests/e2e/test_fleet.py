"""Several worker processes of one command: they share the work, and live and die together."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import redis

from pipemill import Client, JobStatus, errors
from pipemill.client import Job
from pipemill.protocol import names
from tests.e2e.rig import Process, Serve, importing_tests, leased_messages, operator, pid_of, published, report_on
from tests.helpers import until

#: One job a batch and few leased, so that both processes get their part, and can be interrupted in its middle.
ECHO = """
worker: {lease_seconds: 2, drain_seconds: 20, processes: 2}
queues:
  echo: {task: echo, device: cpu, batch: {max_items: 1}, prefetch: 8}
"""
COUNT = 2_000
#: What Python runs first in every process of ours: the echo lanes of tests/e2e/sabotaged.py.
SITE = """
from pipemill_worker.pipelines import factory
from tests.e2e.sabotaged import Sabotaged
factory.EchoRunner = Sabotaged
"""
CELERY = ("celery", "-A", "pipemill_worker.app", "worker")


def sabotaged(serve: Serve, catalogue: str, sabotage: str) -> Process:
    """Start a fleet with echo lanes that "poison" breaks."""
    (serve.folder / "sitecustomize.py").write_text(SITE, encoding="utf-8")
    return serve.start(catalogue, SABOTAGE=sabotage, PYTHONPATH=f"{serve.folder}{os.pathsep}{importing_tests()}")


def owners(client: Client, queue: str = "echo") -> set[int]:
    """The process ids of those that report a lane."""
    reports = [report for report in client.queues() if report.info.name == queue]
    return {pid_of(owner) for report in reports for owner in report.lanes}


def children(fleet: Process) -> set[int]:
    """The process ids of a supervisor's workers, as far as they live."""
    return set(fleet.family()) - {fleet.pid}


def serving(fleet: Process, client: Client, count: int = 2) -> set[int]:
    """Wait until so many workers live and each reports its lane; their process ids."""

    def all_there() -> set[int]:
        living = children(fleet)
        return living if len(living) == count and living <= owners(client) else set()

    found: set[int] = fleet.until(all_there, f"{count} worker processes serve")
    return found


def submit(client: Client, count: int = COUNT) -> list[Job]:
    """Submit jobs whose answers tell them apart."""
    return client.submit_many("echo", [f"text {number}" for number in range(count)])


def assert_all_answered(client: Client, jobs: Sequence[Job]) -> None:
    """Every job has the answer that is its own."""
    results = client.results(jobs, timeout=120)
    assert [result.get() for result in results] == [f"text {number}" for number in range(len(jobs))]


def ended_by(client: Client) -> dict[int, int]:
    """How many jobs each process says it has ended."""
    lanes = report_on(client, "echo").lanes
    return {int(owner.split(":")[-2]): lane["ended"] for owner, lane in lanes.items()}


def test_two_processes_share_the_work_and_end_together(serve: Serve, client: Client, broker: redis.Redis) -> None:
    """Two owners answer jobs, each on cores of its own; SIGTERM ends all with 0, and nothing is held."""
    fleet = serve.start(ECHO, "echo", PIPEMILL_TORCH_THREADS="")
    living = serving(fleet, client)
    jobs = submit(client)
    assert_all_answered(client, jobs)
    until(lambda: all(ended_by(client).get(pid) for pid in living), "both have ended jobs")
    if len(os.sched_getaffinity(0)) > 1:
        mine, others = (os.sched_getaffinity(pid) for pid in living)
        assert not mine & others
    with operator(serve.broker) as app:
        nodes = until(lambda: app.control.inspect(limit=2).ping(), "they answer to Celery")
    assert {name.partition("@")[0] for name in nodes} == {"celery-1", "celery-2"}
    assert fleet.stop() == 0
    assert fleet.family() == []
    assert leased_messages(broker) == 0
    assert broker.zcard(names.LEASES_KEY) == 0


def test_a_stopped_fleet_gives_its_jobs_back(serve: Serve, client: Client, broker: redis.Redis) -> None:
    """SIGTERM amid the work: all end with 0 within the drain, nothing is leased, and no delivery was for nothing."""
    fleet = serve.start(ECHO)
    serving(fleet, client)
    jobs = submit(client, 5 * COUNT)
    fleet.until(lambda: report_on(client, "echo").totals.get("succeeded"), "they are at work")
    assert fleet.stop() == 0
    assert fleet.family() == []
    assert leased_messages(broker) == 0
    report = report_on(client, "echo")
    assert report.totals["succeeded"] + sum(report.waiting.values()) == len(jobs)
    assert report.totals.get("redelivered", 0) == 0


def test_a_killed_process_is_replaced(serve: Serve, client: Client, broker: redis.Redis) -> None:
    """After kill -9 of one its jobs are answered, each once, and a new process takes its place."""
    fleet = serve.start(ECHO)
    victim, survivor = sorted(serving(fleet, client))
    with published(serve.broker) as heard:
        jobs = submit(client)
        os.kill(victim, signal.SIGKILL)
        assert_all_answered(client, jobs)
        assert Counter(heard()) == Counter(job.id for job in jobs)
    again = serving(fleet, client)
    assert survivor in again
    assert victim not in again
    assert re.search(r"worker process \d died with code -9", fleet.output())
    assert fleet.stop() == 0
    assert leased_messages(broker) == 0


def test_no_process_outlives_its_supervisor(serve: Serve, client: Client, broker: redis.Redis) -> None:
    """After kill -9 of the supervisor its workers end by themselves, and give back what they hold."""
    fleet = serve.start(ECHO)
    serving(fleet, client)
    jobs = submit(client, 5 * COUNT)
    fleet.until(lambda: report_on(client, "echo").totals.get("succeeded"), "they are at work")
    fleet.send(signal.SIGKILL)
    assert fleet.wait() == -signal.SIGKILL
    until(lambda: not children(fleet), "the workers have ended")
    assert "the supervisor is gone" in fleet.output()
    assert leased_messages(broker) == 0
    report = report_on(client, "echo")
    assert report.totals["succeeded"] + sum(report.waiting.values()) == len(jobs)
    assert report.totals.get("redelivered", 0) == 0


def test_one_that_was_told_to_stop_stays_away(serve: Serve, client: Client) -> None:
    """A worker that an operator stops isn't started again; when the last one is stopped, that is the end."""
    fleet = serve.start(ECHO)
    first, second = serving(fleet, client)
    os.kill(first, signal.SIGTERM)
    fleet.until(lambda: "was stopped by others" in fleet.output(), "its end is noticed")
    assert children(fleet) == {second}
    os.kill(second, signal.SIGTERM)
    assert fleet.wait() == 0


def test_a_catalogue_with_a_mistake(serve: Serve) -> None:
    """Exit code 4, told once, before any process is started."""
    fleet = serve.start("worker: {processes: 2}\nqueues: {echo: {task: ecko}}")
    assert fleet.wait() == 4
    assert fleet.output().count("queues.echo.task") == 1
    assert "Traceback" not in fleet.output()


def test_a_model_that_cant_be_loaded(serve: Serve) -> None:
    """The mistake that only a worker can find ends all with 4, and is told once: the others weren't started."""
    (serve.folder / "empty").mkdir()
    fleet = serve.start(
        "queues: {labels: {task: text-classification, model: ./empty, device: cpu}}", "--processes", "2"
    )
    assert fleet.wait() == 4
    assert fleet.output().count("holds no config.json") == 1
    assert "no other could" in fleet.output()


def test_one_process_has_no_supervisor(serve: Serve, client: Client) -> None:
    """One process, also when the environment says so over the catalogue, is the command's own."""
    worker = serve(ECHO, PIPEMILL_PROCESSES="1")
    assert worker.family() == [worker.pid]
    assert owners(client) == {worker.pid}
    assert worker.stop() == 0


def test_too_many_threads_are_told(serve: Serve) -> None:
    """More threads than cores are warned of once, with the mend, before the workers start."""
    many = str(len(os.sched_getaffinity(0)))
    fleet = serve.start(ECHO, "--processes", "2", "--torch-threads", many)
    fleet.until(lambda: "process 1 started" in fleet.output(), "the first starts")
    if many == "1":
        pytest.skip("one core: there is no number of threads to advise")
    assert fleet.output().count("leave worker.torch_threads out") == 1
    assert fleet.stop() == 0


def test_celerys_own_command_stays_one_process(serve: Serve) -> None:
    """It serves by itself, and says which command runs several."""
    worker = serve.run(*CELERY, "-Q", "echo", PIPEMILL_CATALOGUE=str(serve.catalogue(ECHO)))
    serve.wait_until_serving(worker, "echo")
    assert worker.family() == [worker.pid]
    assert worker.output().count("worker.processes is 2, but this command runs one process") == 1
    assert worker.stop() == 0


def test_a_job_that_takes_processes_down(serve: Serve, client: Client, broker: redis.Redis) -> None:
    """Workers that end with 70 are started again; the job at fault fails after as many as may die, the others don't."""
    fleet = sabotaged(serve, ECHO.replace("{lease", "{max_deliveries: 2, lease"), "lose")
    serving(fleet, client)
    *others, poison = client.submit_many("echo", [*(f"text {number}" for number in range(20)), "poison"])
    assert_all_answered(client, others)
    with pytest.raises(errors.DeliveryLimitReached, match="2 workers died while they held this job"):
        poison.result(timeout=60)
    serving(fleet, client)
    assert fleet.output().count("died with code 70") == 2
    assert fleet.stop() == 0
    assert leased_messages(broker) == 0


def test_two_requests_to_stop_hurry_a_fleet(serve: Serve, client: Client, broker: redis.Redis) -> None:
    """Ctrl-C twice ends a fleet whose drain would wait for a job that hangs; the job goes back to its queue."""
    fleet = sabotaged(serve, ECHO.replace("drain_seconds: 20", "drain_seconds: 3600"), "hang")
    serving(fleet, client)
    job = client.submit("echo", "poison")
    fleet.until(lambda: job.status() is JobStatus.RUNNING, "it hangs")
    fleet.send(signal.SIGINT)
    fleet.until(lambda: fleet.output().count("Warm shutdown") == 2, "both drain")
    fleet.send(signal.SIGINT)
    assert fleet.wait() == 0
    assert fleet.family() == []
    assert leased_messages(broker) == 0
    assert job.status() is JobStatus.QUEUED


def test_a_second_request_to_stop_hurries(serve: Serve, client: Client, broker: redis.Redis) -> None:
    """SIGQUIT, which a supervisor sends at the second request, ends a drain that waits for a job that hangs."""
    catalogue = serve.catalogue("worker: {drain_seconds: 3600}\nqueues: {echo: {task: echo}}")
    script = str(Path(__file__).with_name("sabotaged.py"))
    worker = serve.run(
        sys.executable, script, "worker", "--catalogue", str(catalogue), SABOTAGE="hang", PYTHONPATH=importing_tests()
    )
    serve.wait_until_serving(worker, "echo")
    job = client.submit("echo", "poison")
    worker.until(lambda: job.status() is JobStatus.RUNNING, "it hangs")
    worker.send(signal.SIGTERM)
    worker.until(lambda: "Warm shutdown" in worker.output(), "it drains")
    worker.send(signal.SIGQUIT)
    assert worker.wait() == 0
    assert leased_messages(broker) == 0
    assert job.status() is JobStatus.QUEUED


def test_a_node_has_the_name_it_was_given(serve: Serve) -> None:
    """%h in a node's name is the host, as in Celery's own command."""
    worker = serve.start(ECHO, "--hostname", "gpu1@%h", "--processes", "1")
    serve.wait_until_serving(worker, "echo")
    with operator(serve.broker) as app:
        (name,) = until(lambda: app.control.inspect(limit=1).ping(), "it answers to Celery")
    assert re.fullmatch(r"gpu1@[^%]+", name)
    assert worker.stop() == 0
