"""A worker's process: two commands that start the same, and how it ends when it can't serve."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import redis

from pipemill import Client, errors
from pipemill.client import Job
from pipemill.protocol import names
from tests.e2e.rig import Serve, importing_tests, leased_messages, operator, report_on
from tests.helpers import until
from tests.unit.pipelines.tiny import assert_same

ECHO = "queues: {echo: {task: echo}}"
CELERY = ("celery", "-A", "pipemill_worker.app", "worker")
TEXTS = ["river", "stone cloud winter", "music garden letter window bridge"]


def classifier(models: Path) -> str:
    """A catalogue of one tiny classifier."""
    model = models / "text-classification"
    return f"queues: {{labels: {{task: text-classification, model: {model}, device: cpu, parameters: {{top_k: 2}}}}}}"


def submitted(serve: Serve, catalogue: Path, queue: str, *more: str) -> list[Job]:
    """Jobs that wait before any worker of theirs ever ran."""
    with Client(serve.broker, catalogue=catalogue) as client:
        return client.submit_many(queue, [*(f"text {number}" for number in range(20)), *more])


def assert_untouched(client: Client, broker: redis.Redis, jobs: list[Job]) -> None:
    """All jobs wait, nobody has them, none was delivered."""
    assert broker.llen(jobs[0].queue or "") == len(jobs)
    assert leased_messages(broker) == 0
    assert broker.zcard(names.LEASES_KEY) == 0
    assert report_on(client, jobs[0].queue or "").totals.get("redelivered", 0) == 0


def consumed(url: str) -> set[str]:
    """The queues from which the one worker says it takes."""
    with operator(url) as app:
        (queues,) = until(lambda: app.control.inspect(limit=1).active_queues(), "the worker answers").values()
    return {queue["name"] for queue in queues}


def test_both_commands_serve_the_same(serve: Serve, client: Client, models: Path) -> None:
    """Celery's command and ours serve a queue alike: same answers, same queues, both end with 0."""
    catalogue = serve.catalogue(classifier(models))
    found: list[Any] = []
    for command in ((*CELERY, "-Q", "labels"), ("pipemill", "worker", "labels")):
        worker = serve.run(*command, PIPEMILL_CATALOGUE=str(catalogue))
        serve.wait_until_serving(worker, "labels")
        answers = [client.run("labels", text, timeout=60) for text in TEXTS]
        found.append((answers, consumed(serve.broker)))
        assert worker.stop() == 0
    assert_same(found[0][0], found[1][0])
    assert found[0][1] == found[1][1] == {"labels"}


def test_a_model_that_cant_be_loaded(serve: Serve, client: Client, broker: redis.Redis) -> None:
    """Exit code 4, with queue, model and cause; the jobs wait on, untouched."""
    (serve.folder / "empty").mkdir()
    catalogue = serve.catalogue("queues: {labels: {task: text-classification, model: ./empty}}")
    jobs = submitted(serve, catalogue, "labels")
    worker = serve.start(catalogue, "labels")
    assert worker.wait() == 4
    for part in ("queue 'labels'", str(serve.folder / "empty"), "holds no config.json"):
        assert part in worker.output()
    assert "Traceback" not in worker.output()
    assert_untouched(client, broker, jobs)


def test_a_pool_that_cant_hold_a_model(serve: Serve, client: Client, broker: redis.Redis) -> None:
    """A worker with a pool of another kind refuses lanes and says why: exit code 4, the jobs wait on."""
    catalogue = serve.catalogue(ECHO)
    jobs = submitted(serve, catalogue, "echo")
    worker = serve.run(*CELERY, "-Q", "echo", "-P", "solo", PIPEMILL_CATALOGUE=str(catalogue))
    assert worker.wait() == 4
    for part in ("queues echo", "solo", "forked child can't use CUDA", "leave -P"):
        assert part in worker.output()
    assert_untouched(client, broker, jobs)


def test_an_unknown_queue(serve: Serve) -> None:
    """A queue that isn't in the catalogue: exit code 4, and the names of those that are."""
    worker = serve.start(ECHO, "ekho")
    assert worker.wait() == 4
    assert "no such queue in the catalogue: ekho; it has echo" in worker.output()


@pytest.mark.parametrize("command", [("pipemill", "worker"), (*CELERY, "-Q", "echo")], ids=["pipemill", "celery"])
def test_a_mistake_in_the_catalogue(command: tuple[str, ...], serve: Serve) -> None:
    """Exit code 4, and the mistake with its line, path and mend, from both commands."""
    catalogue = serve.catalogue("queues:\n  echo:\n    task: echo\n    batch: {max_itmes: 3}\n")
    worker = serve.run(*command, PIPEMILL_CATALOGUE=str(catalogue))
    assert worker.wait() == 4
    assert "line 4: queues.echo.batch.max_itmes: unknown key: did you mean max_items?" in worker.output()
    assert "Traceback" not in worker.output()


@pytest.mark.parametrize(("sabotage", "code"), [("lose", 70), ("kill", -9)])
def test_a_job_that_takes_workers_down(
    sabotage: str, code: int, serve: Serve, client: Client, broker: redis.Redis
) -> None:
    """The job at fault ends alone, after as many workers as the catalogue allows; all others succeed.

    A worker that loses its device gives its jobs back and ends with 70. One that is killed can't.
    """
    catalogue = serve.catalogue("worker: {lease_seconds: 2, max_deliveries: 2}\nqueues: {echo: {task: echo}}")
    jobs = submitted(serve, catalogue, "echo", "poison")
    command = (sys.executable, str(Path(__file__).with_name("sabotaged.py")), "worker", "--catalogue", str(catalogue))
    for _ in range(2):
        worker = serve.run(*command, SABOTAGE=sabotage, PYTHONPATH=importing_tests())
        assert worker.wait() == code
        assert (leased_messages(broker) > 0) == (sabotage == "kill")
    last = serve.run(*command, SABOTAGE=sabotage, PYTHONPATH=importing_tests())
    *others, poison = client.results(jobs, timeout=60)
    assert [result.get() for result in others] == [f"text {number}" for number in range(len(others))]
    with pytest.raises(errors.DeliveryLimitReached, match="2 workers died while they held this job"):
        poison.get()
    assert not last.ended
    assert report_on(client, "echo").dead == 1
