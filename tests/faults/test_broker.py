"""A broker that stands still, has no disk, or has no memory."""

from __future__ import annotations

import pytest

from pipemill import Client
from pipemill.errors import BrokerError, BrokerRefused, QueueFull
from tests.e2e.rig import SLOW_ECHO, Serve, report_on
from tests.e2e.test_streams import GENERATOR, Follower, asked, frozen_while_it_tells, read
from tests.faults.durable import DurableBroker
from tests.faults.echo import COUNT, assert_balanced, caught_at_work, submit
from tests.faults.watch import Watcher
from tests.unit.pipelines.test_streams import answered


def test_a_broker_that_stands_still(serve: Serve, durable: DurableBroker) -> None:
    """A broker that answers nobody for longer than a command may take, and than a lease: every job ends once."""
    serve.broker = durable.url
    with Watcher(durable.url) as watcher, Client(durable.url) as client:
        worker, expected = caught_at_work(serve, client)
        durable.freeze()
        worker.thaw()
        worker.until(lambda: "no answer from the broker" in worker.output(), "the worker has noticed")
        durable.thaw()
        client.results(expected, timeout=120)
        assert worker.stop() == 0
    assert_balanced(watcher, durable.url, expected)


def test_a_full_disk(serve: Serve, durable: DurableBroker) -> None:
    """A broker that refuses writes (MISCONF): producers are told, workers wait, and every job ends once."""
    serve.broker = durable.url
    with Watcher(durable.url) as watcher, Client(durable.url) as client:
        worker, expected = caught_at_work(serve, client)
        durable.fill_disk()
        worker.thaw()
        worker.until(lambda: "MISCONF" in worker.output(), "the worker has noticed")
        with pytest.raises(BrokerRefused, match="MISCONF"):
            client.submit("echo", "one more")
        assert report_on(client, "echo").totals["succeeded"] < COUNT
        durable.free_disk()
        client.results(expected, timeout=120)
        totals = report_on(client, "echo").totals
        assert totals["succeeded"] == totals["enqueued"] == COUNT
        assert worker.stop() == 0
    assert_balanced(watcher, durable.url, expected)


def test_a_broker_without_memory(serve: Serve, durable: DurableBroker) -> None:
    """A broker out of memory refuses new jobs; what it has is answered meanwhile, by a worker started only then."""
    serve.broker = durable.url
    catalogue = serve.catalogue(SLOW_ECHO)
    with (
        Watcher(durable.url) as watcher,
        Client(durable.url, catalogue=catalogue) as client,
        durable.admin() as admin,
    ):
        # One is to be parked, and due when its lane has nothing else to do.
        later = client.submit("echo", "later", countdown=5)
        expected = submit(client) | {later.id: "later"}
        admin.config_set("maxmemory", 1)
        with pytest.raises(QueueFull, match="memory"):
            client.submit("echo", "one more")
        worker = serve.start(catalogue)
        client.results(expected, timeout=120)
        admin.config_set("maxmemory", 0)
        serve.wait_until_serving(worker, "echo")
        again = client.submit("echo", "again")
        assert again.result(60) == "again"
        assert worker.stop() == 0
    expected[again.id] = "again"
    assert_balanced(watcher, durable.url, expected)


def test_streams_go_on_behind_a_restart(serve: Serve, durable: DurableBroker) -> None:
    """A broker killed in the middle of thirty streams: who follows on from the last event has every text whole."""
    serve.broker = durable.url
    worker, jobs = serve(GENERATOR), asked(30)
    with Client(durable.url) as client:
        ids = [client.submit("generator", *job, stream=True).id for job in jobs]
    first = Follower(durable.url, ids)
    with frozen_while_it_tells(worker, first):
        durable.restart()
        first.wait()
        worker.thaw()
    assert first.errors.keys() == set(ids)
    assert all(isinstance(error, BrokerError) for error in first.errors.values())
    second = Follower(durable.url, ids, {job_id: events[-1].id for job_id, events in first.events.items() if events})
    second.wait()
    assert second.errors == {}
    for job, job_id in zip(jobs, ids, strict=True):
        events = first.events[job_id] + second.events[job_id]
        assert read(events) == answered(*job)
        assert [event.ended for event in events] == [False] * (len(events) - 1) + [True]
        assert not events[-1].restarted
    assert worker.stop() == 0
