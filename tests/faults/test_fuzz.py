"""Ten thousand messages that nobody should send, between jobs as they should be."""

from __future__ import annotations

import random
import re
from typing import Any, Final

import redis

from pipemill import Client
from pipemill.protocol import names
from tests.e2e.rig import Serve
from tests.faults import fuzz
from tests.faults.echo import draw_up, submit, until_quiet
from tests.faults.watch import Watcher

ODD: Final = 10_000
#: Odd messages pushed at a time, and jobs submitted after them.
PART: Final = 500
NEIGHBOURS: Final = 50
CATALOGUE: Final = """
worker: {lease_seconds: 2}
queues: {echo: {task: echo, limits: {max_input_bytes: 100000}}}
"""


def test_neighbours_of_odd_messages_are_answered(serve: Serve, client: Client, broker: Any) -> None:
    """Every well-formed job between 10,000 odd messages is answered; no thread dies, and nothing stays leased."""
    rng, expected = random.Random(20), dict[str, str]()
    lists = names.list_keys("echo")
    with Watcher(serve.broker) as watcher:
        worker = serve(CATALOGUE)
        for _ in range(ODD // PART):
            with broker.pipeline(transaction=False) as pipe:
                for _ in range(PART):
                    pipe.lpush(rng.choice(lists), fuzz.message(rng))
                pipe.execute()
            expected |= submit(client, NEIGHBOURS, first=len(expected))
        worker.until(lambda: len(watcher.heard(expected)) == len(expected), "every neighbour is answered")
        until_quiet(client)
        assert worker.stop() == 0
    assert not re.search(r"thread \S+ died", worker.output())
    account = draw_up(watcher, serve.broker, expected)
    assert (account.lost, account.wrong, account.changed, account.repeated) == ([], [], [], [])
    assert (account.left.leased, account.left.inboxes, account.left.owners) == (0, 0, 0)
    assert account.left.waiting == 0


def test_the_fuzzer_draws_what_it_says() -> None:
    """The same seed draws the same messages, of many kinds."""
    first = [fuzz.message(random.Random(seed)) for seed in range(500)]
    assert first == [fuzz.message(random.Random(seed)) for seed in range(500)]
    assert len(set(first)) > 400


def test_redis_takes_them(broker: redis.Redis) -> None:
    """What is drawn can be pushed: it is bytes, whatever is in it."""
    for seed in range(200):
        broker.lpush("odd", fuzz.message(random.Random(seed)))
    assert broker.llen("odd") == 200
