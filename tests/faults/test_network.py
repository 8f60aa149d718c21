"""Networks that cut connections, lose answers, or fall silent."""

from __future__ import annotations

from functools import partial
from urllib.parse import urlsplit

import pytest
import redis

from pipemill import Client
from pipemill.errors import BrokerUnavailable
from pipemill.store.connection import script
from tests.e2e.rig import SLOW_ECHO, Serve, leased_messages, report_on
from tests.faults.echo import COUNT, assert_balanced, caught_at_work, submit
from tests.faults.proxy import Proxy
from tests.faults.watch import Watcher
from tests.helpers import until

#: Answers of each script that are lost on their way to the worker.
LOST = 3


def port_of(url: str) -> int:
    """The port of a broker's URL."""
    port = urlsplit(url).port
    assert port is not None
    return port


def lose(proxy: Proxy, name: str, times: int) -> None:
    """Lose the next answers of a script."""
    proxy.lose_answers(script(name).digest.encode(), times)


def lost(proxy: Proxy, count: int) -> bool:
    """Whether so many answers were lost."""
    return proxy.lost >= count


def test_answers_lost_on_their_way_to_a_worker(serve: Serve, client: Client, broker: redis.Redis) -> None:
    """Whatever the broker did and couldn't tell the worker, every job ends once; the drain leaves nothing leased."""
    direct, expected = serve.broker, dict[str, str]()
    with Watcher(direct) as watcher, Proxy(port_of(direct)) as proxy:
        serve.broker = proxy.url
        worker = serve(SLOW_ECHO)
        for count, name in enumerate(("take", "complete", "renew"), start=1):
            expected |= submit(client, first=len(expected))
            lose(proxy, name, LOST)
            assert worker.until(partial(lost, proxy, LOST * count), f"answers of {name} are lost")
        client.results(expected, timeout=120)
        lose(proxy, "release", 1)
        assert worker.stop() == 0
        assert proxy.lost == 3 * LOST + 1
    assert leased_messages(broker) == 0
    assert_balanced(watcher, direct, expected)
    totals = report_on(client, "echo").totals
    assert totals["succeeded"] == totals["enqueued"] == len(expected)


def test_answers_lost_on_their_way_to_a_producer(serve: Serve, client: Client) -> None:
    """A producer that wasn't told whether its jobs were accepted submits them again, and they are the same jobs."""
    with Watcher(serve.broker) as watcher, Proxy(port_of(serve.broker)) as proxy, Client(proxy.url) as far:
        worker = serve(SLOW_ECHO)
        expected = submit(far, 100)  # the broker knows the script from now on
        lose(proxy, "enqueue", 1)
        with pytest.raises(BrokerUnavailable):
            far.submit("echo", "one", job_id="one")
        assert far.submit("echo", "one", job_id="one").id == "one"
        texts = [f"many {number}" for number in range(100)]
        lose(proxy, "enqueue", 1)
        with pytest.raises(BrokerUnavailable):
            far.submit_many("echo", texts, idempotency_keys=texts)
        jobs = far.submit_many("echo", texts, idempotency_keys=texts)
        lose(proxy, "enqueue", LOST)
        mapped = [f"mapped {number}" for number in range(300)]
        assert list(far.map("echo", mapped, timeout=60)) == mapped
        expected |= {"one": "one"} | {job.id: text for job, text in zip(jobs, texts, strict=True)}
        client.results(expected, timeout=60)
        assert worker.stop() == 0
        assert proxy.lost == 2 + LOST
    totals = report_on(client, "echo").totals
    assert totals["enqueued"] == totals["succeeded"] == len(expected) + len(mapped)
    for job_id in watcher.seen.first.keys() - expected.keys():
        del watcher.seen.first[job_id]  # those of ``map``, whose answers were compared
    assert_balanced(watcher, serve.broker, expected)


def test_a_network_that_is_cut(serve: Serve, client: Client) -> None:
    """A worker whose connections are cut, and cut again when it comes back, waits for its network and goes on."""
    direct = serve.broker
    with Watcher(direct) as watcher, Proxy(port_of(direct)) as proxy:
        serve.broker = proxy.url
        worker, expected = caught_at_work(serve, client)
        proxy.cut()
        worker.thaw()
        worker.until(lambda: "trying again" in worker.output(), "the worker has noticed")
        proxy.mend()
        client.results(expected, timeout=120)
        assert worker.stop() == 0
    assert_balanced(watcher, direct, expected)


def test_a_network_that_falls_silent(serve: Serve, client: Client) -> None:
    """Behind half-open connections a worker loses its leases, changes nothing, and serves again when it can."""
    direct = serve.broker
    with Watcher(direct) as watcher, Proxy(port_of(direct)) as proxy:
        serve.broker = proxy.url
        far, expected = caught_at_work(serve, client)
        proxy.part()
        far.thaw()
        serve.broker = direct
        near = serve(SLOW_ECHO)
        client.results(expected, timeout=120)
        assert report_on(client, "echo").totals["redelivered"] > 0
        assert near.stop() == 0
        until(lambda: "no answer from the broker" in far.output(), "the worker behind it has noticed")
        proxy.mend()
        expected |= submit(client, 100, first=COUNT)
        client.results(expected, timeout=120)
        assert far.stop() == 0
    assert_balanced(watcher, direct, expected)
    assert report_on(client, "echo").totals["succeeded"] == len(expected)
