"""Whatever dies, an accepted job ends once; tests/faults lets more die, again and again."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import redis

from pipemill import Client
from pipemill.client import Job
from pipemill.embedded import EmbeddedBroker
from pipemill.protocol import names
from tests.e2e.mill import direct_pipeline
from tests.e2e.rig import SLOW_ECHO, Serve, free_port, freeze_at_work, leased_messages, published, report_on
from tests.unit.pipelines.tiny import WORDS, assert_same

COUNT = 2_000


def submit(client: Client, count: int = COUNT) -> list[Job]:
    """Submit jobs whose answers tell them apart."""
    return client.submit_many("echo", [f"text {number}" for number in range(count)])


def assert_all_answered(client: Client, jobs: Sequence[Job]) -> None:
    """Every job has the answer that is its own."""
    results = client.results(jobs, timeout=120)
    assert [result.get() for result in results] == [f"text {number}" for number in range(len(jobs))]


def test_a_killed_workers_batches_end_once(serve: Serve, client: Client, broker: redis.Redis, models: Path) -> None:
    """After kill -9 amid a model's shared batches every job has the direct call's answer, and each ended once."""
    model = models / "text-classification"
    catalogue = serve.catalogue(
        f"worker: {{lease_seconds: 2}}\nqueues: {{labels: {{task: text-classification, model: {model}, device: cpu}}}}"
    )
    worker = serve(catalogue)
    with published(serve.broker) as heard:
        texts = [" ".join(WORDS[: 1 + number % 20]) for number in range(COUNT)]
        jobs = freeze_at_work(worker, client, "labels", lambda: client.submit_many("labels", texts))
        worker.kill()
        assert leased_messages(broker) > 0
        serve(catalogue)
        results = client.results(jobs, timeout=120)
        assert Counter(heard()) == Counter(job.id for job in jobs)
    pipe = direct_pipeline("text-classification", str(model))
    expected = {text: pipe(text) for text in set(texts)}
    for text, result in zip(texts, results, strict=True):
        assert_same(result.get(), expected[text])
    report = report_on(client, "labels")
    assert report.totals["succeeded"] == COUNT
    assert report.totals["redelivered"] > 0


def test_a_stopped_worker_gives_its_jobs_back(serve: Serve, client: Client, broker: redis.Redis) -> None:
    """After SIGTERM in the middle: exit code 0, nothing leased; the next worker ends the rest, none twice."""
    count = 5 * COUNT  # More than it can end between the signal and the last batch.
    worker = serve(SLOW_ECHO)
    with published(serve.broker) as heard:
        jobs = freeze_at_work(worker, client, "echo", lambda: submit(client, count))
        worker.send(signal.SIGTERM)
        worker.thaw()
        assert worker.wait() == 0
        assert leased_messages(broker) == 0
        assert broker.zcard(names.LEASES_KEY) == 0
        assert 0 < report_on(client, "echo").totals["succeeded"] < count
        serve(SLOW_ECHO)
        assert_all_answered(client, jobs)
        assert Counter(heard()) == Counter(job.id for job in jobs)
    totals = report_on(client, "echo").totals
    assert totals["succeeded"] == count
    assert totals.get("redelivered", 0) == 0


def test_a_broker_that_forgot_everything_is_served_again(serve: Serve, client: Client, broker: redis.Redis) -> None:
    """A broker that comes back empty learns anew which queues there are, and their jobs are answered."""
    worker = serve(SLOW_ECHO)
    broker.flushall()
    worker.until(client.queues, "the queue is known again")
    assert_all_answered(client, submit(client, 100))
    assert worker.stop() == 0


def test_a_worker_ends_without_its_broker(serve: Serve) -> None:
    """SIGTERM ends a worker whose broker is away in bounded time, as it would end any other."""
    with EmbeddedBroker() as gone:
        serve.broker = gone.url
        worker = serve(SLOW_ECHO)
    assert worker.stop() == 0


def test_a_worker_waits_for_its_broker(serve: Serve) -> None:
    """A worker that is started before its broker says so, waits, and then serves."""
    port = free_port()
    url = f"redis://127.0.0.1:{port}/0"
    serve.broker = url
    worker = serve.start(SLOW_ECHO)
    worker.until(lambda: "no answer from the broker" in worker.output(), "the worker says that it waits")
    with EmbeddedBroker(port=port), Client(url) as client:
        worker.until(lambda: any(report.lanes for report in client.queues()), "the queue is served")
        assert_all_answered(client, submit(client, 10))
        assert worker.stop() == 0
