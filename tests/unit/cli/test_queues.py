"""The list of queues."""

from __future__ import annotations

import io
import json
import time

import pytest
from rich.console import Console

from pipemill import testing
from pipemill.cli import queues
from pipemill.store.base import QueueInfo, QueueReport
from pipemill.store.memory import MemoryJobStore
from pipemill.testing import MemoryBroker
from tests.unit.cli.conftest import Run


def announce(broker: MemoryBroker) -> None:
    """A queue with two jobs, and two lanes that tell of themselves."""
    testing.announce(broker, "sentiment", task="text-classification", model="org/name")
    testing.client(broker).submit_many("sentiment", ["a", "b"])
    for rate, sizes in ((1.5, {"1": 2, "4": 1}), (2.0, {"8": 1})):
        MemoryJobStore(broker, "sentiment").report(
            {"rate": rate, "batch_sizes": sizes, "sharing": "padded", "busy": 0.4, "cost": 75, "padded_cost": 100}
        )


def test_no_queues_says_what_to_do(run: Run) -> None:
    """An empty broker isn't an empty table."""
    done = run("queues")
    assert done.exit_code == 0
    assert "pipemill worker" in done.stdout


def test_queues_are_a_table(run: Run, broker: MemoryBroker) -> None:
    """Each queue is a row with its figures, those of its lanes together."""
    announce(broker)
    head, row = run("queues").stdout.splitlines()
    assert " ".join(head.split()) == "queue task model waiting parked leased dead rate/s lanes mean batch busy items"
    expected = ["sentiment", "text-classification", "org/name", "2", "0", "0", "0", "3.5", "2", "3.5", "40%", "padded"]
    assert row.split() == expected


def test_queues_are_json_when_asked_for(run: Run, broker: MemoryBroker) -> None:
    """Programs get every figure by name."""
    announce(broker)
    (facts,) = json.loads(run("queues", "--json").stdout)
    assert facts["queue"] == "sentiment"
    assert facts["waiting"] == 2
    assert facts["waiting_by_priority"] == {"0": 2, "3": 0, "6": 0, "9": 0}
    assert facts["mean_batch"] == 3.5
    assert (facts["busy"], facts["padding"]) == (0.4, 0.25)
    assert len(facts["lanes"]) == 2


def test_tenants_that_wait_are_named(run: Run, broker: MemoryBroker) -> None:
    """Those with most jobs first, a few by name; where nobody waits in a list of its own there is no such column."""
    announce(broker)
    for number, tenant in enumerate(["acme", "bolt", "crane", "dray"]):
        testing.client(broker, tenant=tenant).submit_many("sentiment", ["x"] * (number + 1))
    head, row = run("queues").stdout.splitlines()
    assert head.split()[-1] == "tenants"
    assert row.endswith("dray 4, crane 3, bolt 2, 1 more")
    (facts,) = json.loads(run("queues", "--json").stdout)
    assert facts["waiting_by_tenant"] == {"dray": 4, "crane": 3, "bolt": 2, "acme": 1}
    assert facts["waiting"] == 12
    assert facts["waiting_bytes"] > 12 * 1024


def test_mean_batch_of_no_batch() -> None:
    """Before the first batch there is no mean."""
    report = QueueReport(
        info=QueueInfo(name="a", task="echo"), waiting={}, parked=0, leased=0, dead=0, totals={}, lanes={"x": {}}
    )
    assert queues.mean_batch(report) is None


def test_what_a_self_check_forbade_is_told(run: Run, broker: MemoryBroker) -> None:
    """A lane that doesn't share as its task would says so in the table and by name."""
    check = {"meant": "padded", "sharing": "exact", "difference": 0.25}
    MemoryJobStore(broker, "sentiment").report({"sharing": "exact", "self_check": check})
    testing.announce(broker, "sentiment", task="text-classification", model="org/name")
    assert run("queues").stdout.splitlines()[1].endswith("exact (not padded: answers differed)")
    (facts,) = json.loads(run("queues", "--json").stdout)
    (lane,) = facts["lanes"].values()
    assert lane["self_check"] == check


def test_what_a_calibration_chose_is_told(run: Run, broker: MemoryBroker) -> None:
    """A lane that pads because packing is slower for its model doesn't look like one whose answers differed."""
    check = {"meant": "packed", "sharing": "packed", "difference": 0.0}
    MemoryJobStore(broker, "sentiment").report({"sharing": "padded", "self_check": check})
    testing.announce(broker, "sentiment", task="text-classification", model="org/name")
    assert run("queues").stdout.splitlines()[1].endswith("padded (faster here than packed)")


def test_watch_redraws_a_terminal(run: Run, broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal one table is drawn over and over, with the figures of each look."""
    announce(broker)
    screen = io.StringIO()
    monkeypatch.setattr(queues, "console", lambda: Console(file=screen, force_terminal=True, width=200))

    def wait(_: float) -> None:
        if "org/other" in screen.getvalue():
            raise KeyboardInterrupt
        testing.announce(broker, "sentiment", task="text-classification", model="org/other")

    monkeypatch.setattr(time, "sleep", wait)
    done = run("queues", "--watch")
    assert done.exit_code == 0
    assert done.stdout == ""
    assert "org/name" in screen.getvalue()


def test_watch_looks_until_ctrl_c(run: Run, broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    """--watch prints again after each interval; Ctrl-C is its normal end."""
    announce(broker)
    waited: list[float] = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", wait)
    done = run("queues", "--watch", "--json", "--interval", "0")
    assert done.exit_code == 0
    assert len(done.stdout.splitlines()) == 3
    assert waited == [queues.SHORTEST_INTERVAL_SECONDS] * 3
