"""A broker whose memory has an end: new jobs are refused in time, and real workers end all that was accepted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from pipemill import Client, QueueFull
from pipemill.embedded import EmbeddedBroker
from tests.e2e.rig import Serve, report_on

#: Room for what is under way while Celery starts: its own first writes need memory.
CATALOGUE = "queues: {echo: {task: echo, result_ttl_seconds: 600, limits: {max_memory_share: 0.6}}}"
#: Inputs of a job, in characters: some travel by reference, and so do their answers.
SIZES = (2_000, 60_000)


@pytest.fixture
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Serve, redis.Redis]]:
    """A broker of its own with 160 MiB beside what it needs, and processes on it."""
    with EmbeddedBroker() as broker, redis.Redis.from_url(broker.url) as server:
        serve = Serve(tmp_path_factory.mktemp("full"), broker.url)
        used = int(server.info("memory")["used_memory"])
        server.config_set("maxmemory", used + 160 * 1024 * 1024)
        yield serve, server
        serve.end()


def fill(client: Client) -> tuple[list[tuple[str, str]], QueueFull]:
    """Submit until the broker has no memory for more; ids and inputs of what it accepted, and what it said."""
    accepted = []
    for number in range(100_000):
        inputs = f"{number} " + "x" * SIZES[number % len(SIZES)]
        try:
            accepted.append((client.submit("echo", inputs, tenant=f"t{number % 3}").id, inputs))
        except QueueFull as full:
            return accepted, full
    raise AssertionError("the broker took everything")


def test_a_full_broker_is_worked_off_by_a_worker_that_starts_then(full: tuple[Serve, redis.Redis]) -> None:
    """Producers filled it while no worker ran: every accepted job is answered, and then there is room again."""
    serve, server = full
    catalogue = serve.catalogue(CATALOGUE)
    with Client(serve.broker, catalogue=catalogue) as client:
        accepted, full_at = fill(client)
        assert full_at.bound == "max_memory_share"
        assert full_at.retry_after > 0
        assert len(accepted) > 50
        serve(catalogue, "echo")
        for job_id, inputs in accepted:
            assert client.result(job_id, timeout=120) == inputs
            server.delete(f"celery-task-meta-{job_id}")
        assert client.run("echo", "there is room", timeout=60) == "there is room"
        assert report_on(client, "echo").waiting_bytes == 0


def test_a_worker_ends_what_it_has_when_there_is_no_memory_at_all(full: tuple[Serve, redis.Redis]) -> None:
    """The limit falls below what is used while jobs wait: all are answered all the same, large answers too."""
    serve, server = full
    worker = serve(CATALOGUE, "echo")
    with Client(serve.broker) as client:
        client.run("echo", "warm", timeout=60)
        worker.until(lambda: " ready." in worker.output(), "Celery has started, too: it can't without memory")
        worker.freeze()
        jobs = client.submit_many("echo", ["y" * SIZES[number % len(SIZES)] for number in range(100)], tenant="acme")
        server.config_set("maxmemory", int(server.info("memory")["used_memory"]) // 2)
        with pytest.raises(QueueFull) as caught:
            client.submit("echo", "more")
        assert caught.value.bound == "max_memory_share"
        worker.thaw()
        for number, job in enumerate(jobs):
            assert job.result(timeout=120) == "y" * SIZES[number % len(SIZES)]
        assert report_on(client, "echo").totals["succeeded"] == 101
        server.config_set("maxmemory", 0)
        assert worker.stop() == 0
