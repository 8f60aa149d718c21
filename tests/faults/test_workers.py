"""Workers that stop, die in part, or have a wrong clock; messages that come more than once."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import redis

from pipemill import Client, errors
from pipemill.protocol import encode_arguments, encode_message, names
from tests.e2e.rig import (
    SLOW_ECHO,
    Process,
    Serve,
    importing_tests,
    leased_messages,
    report_on,
)
from tests.faults.echo import COUNT, assert_balanced, caught_at_work, submit, until_quiet
from tests.faults.watch import Watcher
from tests.helpers import until

#: Every kind of thread that an engine has: one that is new here must die here, too.
KINDS: Final = (
    "complete",
    "forward",
    "heartbeat",
    "intake",
    "listen",
    "overdue",
    "prepare",
    "reap",
    "stream",
    "sweep",
    "watchdog",
)
#: One job a batch and few leased; media have a place of their own, so that there is a sweeper.
WITH_BLOBS: Final = """
worker: {{lease_seconds: 2, max_deliveries: 100}}
blobs: {{location: "file://{folder}"}}
queues:
  echo: {{task: echo, batch: {{max_items: 1}}, prefetch: 8}}
"""


def doomed(serve: Serve, catalogue: Path, **how: str) -> Process:
    """Start a worker in which something goes wrong by itself."""
    script = str(Path(__file__).with_name("doomed.py"))
    return serve.run(
        sys.executable, script, "worker", "--catalogue", str(catalogue), PYTHONPATH=importing_tests(), **how
    )


def server_time(broker: redis.Redis) -> float:
    """The broker's clock, in seconds since the epoch."""
    told: Any = broker.time()
    return float(told[0] + told[1] / 1e6)


def test_a_sleeper_overwrites_nothing_when_it_wakes(serve: Serve, client: Client, broker: redis.Redis) -> None:
    """A worker frozen past its lease wakes after another ended its jobs: it overwrites nothing, and serves on."""
    with Watcher(serve.broker) as watcher:
        sleeper, expected = caught_at_work(serve, client)
        held = leased_messages(broker)
        other = serve(SLOW_ECHO)
        client.results(expected, timeout=120)
        assert other.stop() == 0
        sleeper.thaw()
        expected |= submit(client, 100, first=COUNT)
        client.results(expected, timeout=60)
        assert sleeper.stop() == 0
    assert_balanced(watcher, serve.broker, expected)
    totals = report_on(client, "echo").totals
    assert held > 0
    assert totals["redelivered"] > 0
    assert totals["succeeded"] == len(expected)


def test_every_thread_dies_once(serve: Serve, broker: redis.Redis, tmp_path: Path) -> None:
    """Whichever thread of the engine dies, its process ends with 70 and gives its jobs back; others end them, once."""
    catalogue = serve.catalogue(WITH_BLOBS.format(folder=tmp_path / "blobs"))
    with Watcher(serve.broker) as watcher, Client(serve.broker, catalogue=catalogue) as client:
        expected = submit(client)
        workers = {kind: doomed(serve, catalogue, DOOM="thread", KIND=kind) for kind in KINDS}

        def dead() -> bool:
            """Whether all of them are; while they aren't, they don't run out of jobs, however fast they are."""
            if broker.llen("echo") < COUNT:
                expected.update(submit(client, first=len(expected)))
            return all(worker.ended for worker in workers.values())

        until(dead, "every worker lost its thread, and ended", patience=180)
        for kind, worker in workers.items():
            assert worker.wait() == 70, worker.output()
            assert f"threads: {' '.join(KINDS)}." in worker.output()
            assert f"thread {kind}" in worker.output()
        assert (leased_messages(broker), broker.zcard(names.LEASES_KEY)) == (0, 0)
        assert report_on(client, "echo").totals["succeeded"] < len(expected)
        last = serve("worker: {max_deliveries: 100}\nqueues: {echo: {task: echo}}")
        client.results(expected, timeout=120)
        assert last.stop() == 0
        assert report_on(client, "echo").totals["succeeded"] == len(expected)
    assert_balanced(watcher, serve.broker, expected)


def test_deadlines_are_the_brokers(serve: Serve, broker: redis.Redis) -> None:
    """A worker whose clock jumps by up to a day at every look expires, parks and leases as it should."""
    catalogue = serve.catalogue(SLOW_ECHO.replace("lease_seconds: 2", "lease_seconds: 15"))
    with Watcher(serve.broker) as watcher, Client(serve.broker, catalogue=catalogue) as client:
        late = client.submit("echo", "late", expires=0.05)
        over = server_time(broker) + 0.1
        until(lambda: server_time(broker) > over, "its deadline has passed")
        worker = doomed(serve, catalogue, DOOM="clock")
        began = server_time(broker)
        parked = client.submit("echo", "parked", countdown=2)
        timely = client.submit("echo", "timely", expires=600)
        serve.wait_until_serving(worker, "echo")
        expected = submit(client) | {timely.id: "timely", parked.id: "parked"}
        client.results(expected, timeout=120)
        assert server_time(broker) >= began + 2
        with pytest.raises(errors.JobExpired):
            late.result(60)
        report = report_on(client, "echo")
        assert [abs(facts["at"] - server_time(broker)) < 60 for facts in report.lanes.values()] == [True]
        assert worker.stop() == 0
    watcher.seen.first.pop(late.id, None)
    assert_balanced(watcher, serve.broker, expected)
    assert report.totals.get("redelivered", 0) == 0


def test_a_message_published_again_is_the_same_job(serve: Serve, client: Client, broker: redis.Redis) -> None:
    """However often a message is pushed, before its job ends and after, the job ends once."""
    texts = {f"job-{number}": f"text {number}" for number in range(300)}
    messages = [encode_message(job_id, "echo", encode_arguments(text, {})) for job_id, text in texts.items()]
    pushed = messages * 3
    random.Random(20).shuffle(pushed)
    with Watcher(serve.broker) as watcher:
        worker = serve(SLOW_ECHO)
        broker.lpush("echo", *pushed)
        until(lambda: len(watcher.heard(texts)) == len(texts), "every job has ended")
        broker.lpush("echo", *messages)
        assert [client.submit("echo", "another text", job_id=job_id).id for job_id in texts] == list(texts)
        until_quiet(client)
        assert worker.stop() == 0
    assert_balanced(watcher, serve.broker, texts)
    assert report_on(client, "echo").totals["succeeded"] == len(texts)
