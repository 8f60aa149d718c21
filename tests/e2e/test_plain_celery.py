"""Any Celery client can enqueue, poll, compose and revoke, without ever importing pipemill."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.mill import Mill
from tests.e2e.rig import ROOT, Serve
from tests.unit.pipelines.tiny import assert_same


@pytest.fixture(scope="module")
def seen(mill: Mill, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What the script saw, beside a stock Celery worker with ordinary tasks on the same broker."""
    serving = Serve(tmp_path_factory.mktemp("plain"), mill.url)
    environment = {"PLAIN_BROKER": mill.url, "PYTHONPATH": str(ROOT)}
    app = ("celery", "-A", "tests.e2e.plain_worker")
    try:
        stock = serving.run(*app, "worker", "-Q", "plain", "-P", "solo", "-n", "stock@%h", "-l", "INFO", **environment)
        stock.until(lambda: "ready." in stock.output(), "the stock worker is ready")
        told = serving.folder / "told.json"
        script = serving.run(sys.executable, str(Path(__file__).with_name("plain_script.py")), str(told), **environment)
        assert script.wait(150) == 0, script.output()
        yield json.loads(told.read_text("utf-8"))
    finally:
        serving.end()


def test_pipemill_is_never_imported(seen: dict[str, Any]) -> None:
    """All that follows is done with Celery alone."""
    assert seen["pipemill_imported"] is False


def test_a_job_gets_the_pipelines_own_answer(seen: dict[str, Any], mill: Mill) -> None:
    """What AsyncResult.get returns equals the direct pipeline call."""
    assert_same(seen["one"], mill.pipeline("text-classification")(seen["text"], top_k=2))


def test_a_failing_job_raises_its_error(seen: dict[str, Any]) -> None:
    """AsyncResult.get raises an error with the class name and the text that the worker meant."""
    assert seen["failing"] == {"type": "InvalidInput", "text": "the input must be a string, not a number"}


def test_groups(seen: dict[str, Any]) -> None:
    """A group's answers come in its members' order."""
    assert seen["in_group"] == [f"text {n}" for n in range(20)]


def test_chains(seen: dict[str, Any], mill: Mill) -> None:
    """Each member gets the answer of the one before, and the whole chain can be looked up."""
    assert_same(seen["in_chain"]["first"], mill.pipeline("text-classification")(seen["text"]))
    assert seen["in_chain"]["last"] == seen["in_chain"]["first"]


def test_an_ordinary_task_in_the_middle_of_a_chain(seen: dict[str, Any]) -> None:
    """A stock worker's task between two jobs gets the first one's answer, and the second one gets the task's."""
    assert seen["through_an_ordinary_task"] == "RIVER"


def test_a_failure_marks_the_rest_of_its_chain(seen: dict[str, Any]) -> None:
    """The later members of a chain fail with the first one's error; nobody waits for them in vain."""
    assert {failure["type"] for failure in seen["broken_chain"]} == {"InvalidInput"}
    assert len(seen["broken_chain"]) == 3


def test_chords(seen: dict[str, Any]) -> None:
    """A chord's body gets the answers of its header, in order."""
    assert seen["in_chord"] == [f"part {n}" for n in range(5)]


def test_a_failure_in_a_chord_reaches_its_body(seen: dict[str, Any]) -> None:
    """The body of a chord with a failing member ends with Celery's ChordError, which names the cause."""
    assert seen["broken_chord"]["type"] == "ChordError"
    assert "InvalidInput" in seen["broken_chord"]["text"]


def test_links(seen: dict[str, Any]) -> None:
    """What is linked to a job runs with its answer."""
    assert seen["linked"] == "river"


def test_link_error(seen: dict[str, Any]) -> None:
    """What is linked to a job's failure runs with the id of the job."""
    assert seen["linked_error"] is True


def test_expires(seen: dict[str, Any]) -> None:
    """A job that wasn't started before it expired is revoked; one with time left is answered."""
    assert seen["expired"] == {"type": "TaskRevokedError", "text": "expired", "timely": "timely"}


def test_countdown(seen: dict[str, Any]) -> None:
    """A job isn't started before its countdown is over."""
    assert seen["counted_down"]["answer"] == "later"
    assert seen["counted_down"]["seconds"] >= 1.5


def test_priorities(seen: dict[str, Any]) -> None:
    """Jobs that waited while nobody took them are run most urgent first, 0 before 9."""
    assert seen["by_priority"] == [0, 3, 6, 9]


def test_ignored_results(seen: dict[str, Any]) -> None:
    """A job whose result is ignored is run, and leaves none."""
    assert seen["ignored"] == {"heard": "heard", "unheard": "PENDING"}
