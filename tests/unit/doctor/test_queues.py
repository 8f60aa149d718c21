"""Queues as the broker has them, judged beside the catalogue's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pipemill.doctor.findings import Verdict
from pipemill.doctor.queues import judge_queue, judge_queues
from pipemill.store.base import QueueInfo, QueueReport

INFO = QueueInfo(name="words", task="echo", max_depth=100)
LANE = {"owner": {"paused": False}}


def report(**changed: Any) -> QueueReport:
    """A queue that is served, with some facts changed."""
    well = QueueReport(info=INFO, waiting={0: 2, 3: 1}, parked=0, leased=1, dead=0, totals={}, lanes=LANE)
    return replace(well, **changed)


def test_a_queue_that_is_served_is_well() -> None:
    """One finding says how it stands."""
    (finding,) = judge_queue(report(), INFO)
    assert (finding.verdict, finding.mend) == (Verdict.OK, "")
    assert finding.seen == "3 waiting, 1 leased, 1 lane"


@pytest.mark.parametrize(
    ("changed", "verdict", "text"),
    [
        ({"lanes": {}}, Verdict.PROBLEM, "no lane serves it"),
        ({"lanes": {}, "waiting": {}, "leased": 2}, Verdict.PROBLEM, "2 leased"),
        ({"lanes": {"owner": {"paused": True}}}, Verdict.PROBLEM, "paused"),
        ({"lanes": {"owner": {"paused": True}}, "waiting": {}}, Verdict.WARNING, "paused"),
        ({"waiting": {0: 80}}, Verdict.WARNING, "80 of 100"),
        ({"waiting": {0: 100}}, Verdict.PROBLEM, "100 of 100"),
        ({"dead": 3}, Verdict.WARNING, "3 dead letters"),
    ],
)
def test_what_is_wrong_is_told_with_its_mend(changed: dict[str, Any], verdict: Verdict, text: str) -> None:
    """Each fault is a finding that says what to do."""
    (finding,) = judge_queue(report(**changed), INFO)
    assert finding.verdict is verdict
    assert text in finding.seen
    assert finding.mend


def test_an_empty_queue_without_lanes_is_no_fault() -> None:
    """Nobody waits for anybody."""
    (finding,) = judge_queue(report(lanes={}, waiting={}, leased=0), INFO)
    assert finding.verdict is Verdict.OK


def test_some_lanes_may_be_paused() -> None:
    """As long as one takes jobs, the queue is served."""
    lanes = {"one": {"paused": True}, "two": {"paused": False}}
    (finding,) = judge_queue(report(lanes=lanes), INFO)
    assert finding.verdict is Verdict.OK


def test_what_the_catalogue_says_otherwise_is_told() -> None:
    """Workers that run with another catalogue are named by what differs."""
    meant = replace(INFO, model="org/new", max_depth=200)
    findings = judge_queue(report(), meant)
    assert [finding.verdict for finding in findings] == [Verdict.WARNING] * 2
    assert "org/new" in findings[0].seen
    assert "max_depth" in findings[1].seen


def test_queues_of_one_side_only_are_told() -> None:
    """A queue that nobody announced is a warning; one that isn't in this catalogue is another's, and fine."""
    others = {name: QueueInfo(name=name, task="echo") for name in ("other", "another")}
    served, missed = judge_queues([report()], others)
    assert served.verdict is Verdict.OK
    assert "not in this catalogue" in served.seen
    assert missed.verdict is Verdict.WARNING
    assert missed.mend.endswith("pipemill worker another other")


def test_no_queue_at_all_is_told() -> None:
    """An empty broker says so."""
    (finding,) = judge_queues([], {})
    assert finding.verdict is Verdict.SKIPPED
