"""Jobs of the slow echo lane, and the account of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import redis

from pipemill import Client
from tests.e2e.rig import SLOW_ECHO, Process, Serve, freeze_at_work, report_on
from tests.faults.accounting import Account, settle
from tests.faults.watch import Watcher, leftovers, results
from tests.helpers import until

COUNT = 2_000


def submit(client: Client, count: int = COUNT, *, first: int = 0) -> dict[str, str]:
    """Submit jobs whose answers tell them apart; the answer to each."""
    texts = [f"text {number}" for number in range(first, first + count)]
    return {job.id: text for job, text in zip(client.submit_many("echo", texts), texts, strict=True)}


def caught_at_work(serve: Serve, client: Client) -> tuple[Process, dict[str, str]]:
    """A worker frozen in the middle of jobs of the slow lane; the answer to each of them."""
    worker = serve(SLOW_ECHO)
    return worker, freeze_at_work(worker, client, "echo", lambda: submit(client))


def until_quiet(client: Client) -> None:
    """Wait until nothing waits and nobody holds a job."""

    def quiet() -> bool:
        report = report_on(client, "echo")
        return not sum(report.waiting.values()) and not report.leased

    until(quiet, "all that was pushed is worked off")


def draw_up(watcher: Watcher, url: str, expected: Mapping[str, Any]) -> Account:
    """The account of these jobs of the echo queue, once the workers have gone."""
    with redis.Redis.from_url(url) as broker:
        return settle(
            expected, watcher.seen, results(broker, list(expected)), leftovers(broker, ["echo"], list(expected))
        )


def assert_balanced(watcher: Watcher, url: str, expected: Mapping[str, Any]) -> None:
    """Each job has one end, the right one, unchanged since it was first seen; nothing is left."""
    account = draw_up(watcher, url, expected)
    assert account.balanced, account.figures()
