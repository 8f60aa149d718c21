"""The short form of ``scripts/soak``: faults of all kinds over a few thousand jobs, and the account."""

from __future__ import annotations

import json
from typing import Final

from tests.e2e.rig import Serve
from tests.faults.campaign import Campaign, Settings
from tests.faults.durable import DurableBroker
from tests.faults.material import ECHO, Material
from tests.faults.schedule import Kind

COUNTS: Final = {
    Kind.KILL: 5,
    Kind.TERM: 2,
    Kind.CONNECTIONS: 3,
    Kind.RESTART: 2,
    Kind.FLUSH: 2,
    Kind.PAUSE: 1,
}


def test_every_job_ends_once_whatever_dies(serve: Serve, durable: DurableBroker) -> None:
    """Under kill -9, SIGTERM, cut connections, broker deaths and more each job has one right end; nothing is left."""
    settings = Settings(jobs=4_000, counts=COUNTS, lease_seconds=2)
    report = Campaign(serve, durable, settings, Material(20, ECHO, {})).run()
    figures = json.dumps(report.figures(), indent=2)
    print(figures)  # noqa: T201  # for people
    assert report.account.balanced, figures
    assert report.well, figures
    assert report.faults == COUNTS
