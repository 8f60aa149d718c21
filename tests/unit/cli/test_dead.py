"""The commands for dead letters."""

from __future__ import annotations

import json

import pytest

from pipemill import testing
from pipemill.errors import DeliveryLimitReached
from pipemill.protocol import IncidentKind, Outcome, encode_failure, message_id
from pipemill.protocol.history import encode_incident, encode_letter
from pipemill.store.base import Completion
from pipemill.store.memory import MemoryJobStore
from pipemill.testing import MemoryBroker
from tests.unit.cli.conftest import Run

QUEUE = "sentiment"


@pytest.fixture
def letters(broker: MemoryBroker) -> list[str]:
    """Two jobs that were given up; their ids."""
    testing.announce(broker, QUEUE)
    jobs = testing.client(broker).submit_many(QUEUE, ["a secret", "another"], {"top_k": 2})
    store = MemoryJobStore(broker, QUEUE)
    for leased in store.take(2).jobs:
        job_id = message_id(leased.raw) or ""
        broker.note(job_id, encode_incident(IncidentKind.LOST, worker="sentiment|host:7:ab"))
        done = Completion(
            field=leased.field,
            job_id=job_id,
            outcome=Outcome.DEAD,
            document=encode_failure(job_id, DeliveryLimitReached("enough")),
            incident=encode_incident(IncidentKind.FAILED, worker="w", attempt=1, error="SourceUnavailable", text="503"),
            letter=encode_letter(error="DeliveryLimitReached", text="enough", deliveries=3, attempts=1),
        )
        store.complete([done])
    store.close()
    return [job.id for job in jobs]


def test_letters_are_listed(run: Run, letters: list[str]) -> None:
    """A row for each, the latest first; nothing of the inputs."""
    shown = run("dead", "list", QUEUE).stdout
    head, *rows = shown.splitlines()
    assert head.split()[:5] == ["id", "died", "error", "attempts", "deliveries"]
    assert [row.split()[0] for row in rows] == letters[::-1]
    assert [row.split()[3:6] for row in rows] == [["DeliveryLimitReached", "1", "3"]] * 2
    assert "secret" not in shown
    assert len(run("dead", "list", QUEUE, "--limit", "1").stdout.splitlines()) == 2


def test_letters_are_json_when_asked_for(run: Run, letters: list[str]) -> None:
    """Programs get every fact by name."""
    facts = json.loads(run("dead", "list", QUEUE, "--json").stdout)
    assert [each["id"] for each in facts] == letters[::-1]
    assert (facts[0]["error"], facts[0]["text"], facts[0]["deliveries"]) == ("DeliveryLimitReached", "enough", 3)
    assert "inputs" not in facts[0]


def test_no_letters_are_told(run: Run, broker: MemoryBroker) -> None:
    """An empty list isn't an empty table; an unknown queue is an error."""
    testing.announce(broker, QUEUE)
    assert run("dead", "list", QUEUE).stdout == "queue 'sentiment' has no dead letters\n"
    assert json.loads(run("dead", "list", QUEUE, "--json").stdout) == []
    assert run("dead", "list", "nowhere").exit_code == 6


def test_a_letter_is_shown_with_its_history(run: Run, letters: list[str]) -> None:
    """Who died and what failed; the inputs only when asked for."""
    shown = run("dead", "show", QUEUE, letters[0]).stdout
    assert "worker died" in shown
    assert "sentiment|host:7:ab" in shown
    assert "attempt 1 failed" in shown
    assert "SourceUnavailable" in shown
    assert "secret" not in shown
    assert "a secret" in run("dead", "show", QUEUE, letters[0], "--inputs").stdout
    assert run("dead", "show", QUEUE, "stranger").exit_code == 8


def test_a_letter_is_json_when_asked_for(run: Run, letters: list[str]) -> None:
    """Its history is a list; its inputs are there only when asked for."""
    facts = json.loads(run("dead", "show", QUEUE, letters[0], "--json").stdout)
    assert [(each["kind"], each["worker"]) for each in facts["history"]] == [
        ("lost", "sentiment|host:7:ab"),
        ("failed", "w"),
    ]
    assert "inputs" not in facts
    whole = json.loads(run("dead", "show", QUEUE, letters[0], "--inputs", "--json").stdout)
    assert (whole["inputs"], whole["parameters"]) == ("a secret", {"top_k": 2})


def test_letters_are_replayed(run: Run, letters: list[str], broker: MemoryBroker) -> None:
    """By their ids or all; what is unknown ends with 8."""
    assert run("dead", "replay", QUEUE, letters[0]).stdout == "1 back in queue 'sentiment'\n"
    assert json.loads(run("dead", "replay", QUEUE, "--all", "--json").stdout) == {
        "queue": QUEUE,
        "replayed": letters[1:],
    }
    assert json.loads(run("status", letters[0], "--json").stdout)["status"] == "queued"
    assert run("dead", "replay", QUEUE, "stranger").exit_code == 8
    assert len(testing.client(broker).dead.latest(QUEUE)) == 0


def test_letters_are_dropped_after_a_question(run: Run, letters: list[str]) -> None:
    """Only a yes drops; --yes asks nothing."""
    refused = run("dead", "drop", QUEUE, "--all", stdin="n\n")
    assert refused.exit_code == 1
    assert "Drop all dead letters of queue 'sentiment' for good?" in refused.stderr
    agreed = run("dead", "drop", QUEUE, letters[0], stdin="y\n")
    assert agreed.exit_code == 0
    assert agreed.stdout.endswith("1 dropped\n")
    dropped = run("dead", "drop", QUEUE, "--all", "--yes", "--json")
    assert json.loads(dropped.stdout) == {"queue": QUEUE, "dropped": 1}
    assert run("dead", "drop", QUEUE, letters[0], "--yes").exit_code == 8


@pytest.mark.parametrize("command", ["replay", "drop"])
@pytest.mark.parametrize("more", [(), ("an-id", "--all")], ids=["neither", "both"])
def test_ids_or_all(run: Run, command: str, more: tuple[str, ...]) -> None:
    """Neither, or both, is wrong usage: nothing is done."""
    done = run("dead", command, QUEUE, *more)
    assert done.exit_code == 2
    assert "--all" in done.stderr
