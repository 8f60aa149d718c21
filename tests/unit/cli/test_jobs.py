"""submit, result, status and cancel."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from pipemill import testing
from pipemill.client import Client
from pipemill.testing import MemoryBroker
from tests.unit.cli.conftest import Run


def submit(run: Run, *arguments: str) -> str:
    """Submit a job that must be accepted; its id."""
    done = run("submit", *arguments)
    assert done.exit_code == 0, done.output
    return str(done.stdout.strip())


def test_submit_prints_the_id_and_result_the_answer(run: Run, sentiment: list[Any]) -> None:
    """What submit prints is what result takes."""
    job_id = submit(run, "sentiment", "Fine.")
    done = run("result", job_id)
    assert done.exit_code == 0
    assert done.stdout == "Fine.\n"
    assert [job.id for job in sentiment] == [job_id]


def test_wait_prints_the_answer(run: Run, sentiment: list[Any]) -> None:
    """With --wait the answer comes at once, as JSON with the job's id."""
    done = run("submit", "sentiment", "Fine.", "--wait", "--json", "-p", "shout=true")
    assert json.loads(done.stdout) == {"id": sentiment[0].id, "result": "FINE."}


def test_parameters_are_json_or_text(run: Run, sentiment: list[Any]) -> None:
    """A value that is JSON counts as what it says, any other as text."""
    given = ["-p", "labels=[]", "-p", "a=1.5", "-p", "b=null", "-p", "c=x=y", "-p", "d=", "--parameter", 'e="1"']
    run("submit", "sentiment", "Fine.", "--wait", *given)
    assert sentiment[0].parameters == {"labels": [], "a": 1.5, "b": None, "c": "x=y", "d": "", "e": "1"}


@pytest.mark.parametrize("given", [["nothing"], ["=1"], ["a=1", "a=2"]])
def test_parameters_of_the_wrong_form_are_refused(run: Run, given: list[str]) -> None:
    """What isn't name=value, or comes twice, is wrong usage."""
    options = [part for each in given for part in ("-p", each)]
    assert run("submit", "sentiment", "Fine.", *options).exit_code == 2


def test_a_job_says_whose_it_is(run: Run, sentiment: list[Any]) -> None:
    """With --tenant the job is that tenant's; a name that can't be one is wrong usage."""
    run("submit", "sentiment", "Fine.", "--wait", "--tenant", "acme")
    assert sentiment[0].headers["pipemill_tenant"] == "acme"
    refused = run("submit", "sentiment", "Fine.", "--tenant", "two words")
    assert refused.exit_code == 2
    assert "1 to 64 letters" in refused.output


def test_stdin_is_the_input(run: Run, sentiment: list[Any]) -> None:
    """A dash reads stdin, without the newline at its end."""
    run("submit", "sentiment", "-", "--wait", stdin="two\nlines\n")
    assert sentiment[0].inputs == "two\nlines"


def test_stdin_must_be_text(run: Run) -> None:
    """Bytes that aren't UTF-8 are wrong usage."""
    done = run("submit", "sentiment", "-", stdin=b"\xff")
    assert done.exit_code == 2
    assert "UTF-8" in done.stderr


def test_json_input(run: Run, sentiment: list[Any]) -> None:
    """With --json-input the input is what the JSON says."""
    run("submit", "sentiment", '{"text": "a"}', "--json-input", "--wait")
    assert sentiment[0].inputs == {"text": "a"}


def test_json_input_must_be_json(run: Run) -> None:
    """With --json-input other text is wrong usage."""
    assert run("submit", "sentiment", "{text", "--json-input").exit_code == 2


def test_records_are_a_table_for_people(run: Run, sentiment: list[Any]) -> None:
    """A list of records is shown as a table; a pipe gets no colours."""
    done = run("submit", "sentiment", "Fine.", "--wait", "-p", 'labels=["good", "[bad]"]')
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["label", "score"],
        ["good", "0.5"],
        ["[bad]", "0.5"],
    ]
    assert "\x1b" not in done.stdout
    assert len(sentiment) == 1


def test_options_reach_the_job(run: Run, broker: MemoryBroker) -> None:
    """Priority, countdown and deadline are those that were given."""
    testing.announce(broker, "sentiment")
    urgent = submit(run, "sentiment", "a", "--priority", "0")
    late = submit(run, "sentiment", "b", "--priority", "9", "--countdown", "3600", "--expires", "7200")
    with testing.answering(broker, "sentiment", lambda text: text) as started:
        assert run("result", urgent).stdout == "a\n"
        assert run("status", late).exit_code == 0
    assert [job.inputs for job in started] == ["a"]
    (report,) = testing.client(broker).queues()
    assert report.parked + sum(report.waiting.values()) == 1


def test_an_idempotency_key_makes_one_job(run: Run, sentiment: list[Any]) -> None:
    """Two calls with the same key name the same job."""
    first = submit(run, "sentiment", "a", "--idempotency-key", "k")
    assert submit(run, "sentiment", "a", "--idempotency-key", "k") == first
    assert run("result", first).exit_code == 0
    assert len(sentiment) == 1


@pytest.mark.parametrize("option", [["--countdown", "nan"], ["--countdown", "-1"], ["--countdown", "9e9"]])
def test_times_out_of_bounds_are_wrong_usage(run: Run, sentiment: list[Any], option: list[str]) -> None:
    """A time that can't be is refused before anything is sent."""
    assert run("submit", "sentiment", "a", *option).exit_code == 2
    assert sentiment == []


def test_a_failed_job_ends_with_3(run: Run, sentiment: list[Any]) -> None:
    """A job's failure is told with its type, and is no success."""
    done = run("submit", "sentiment", "bad", "--wait")
    assert done.exit_code == 3
    assert done.stderr == "Error: InferenceFailed: ValueError: I can't bear it\n"
    assert len(sentiment) == 1


def test_a_timeout_without_a_wait_is_wrong_usage(run: Run, sentiment: list[Any]) -> None:
    """An option that would do nothing is refused before anything is sent."""
    assert run("submit", "sentiment", "a", "--timeout", "1").exit_code == 2
    assert sentiment == []


def test_ctrl_c_names_the_job_that_was_waited_for(
    run: Run, broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who breaks off the wait is told the id, by which the answer can still be had."""
    testing.announce(broker, "sentiment")

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "result", interrupted)
    done = run("submit", "sentiment", "a", "--wait")
    assert done.exit_code == 130
    (job_id,) = broker.records
    assert f"pipemill result {job_id}" in done.stderr


def test_an_unknown_queue_ends_with_6(run: Run, sentiment: list[Any]) -> None:
    """A queue that nobody announced is refused, with those that there are."""
    done = run("submit", "sentimnet", "a")
    assert done.exit_code == 6
    assert "'sentiment'" in done.stderr
    assert sentiment == []


def test_a_full_queue_ends_with_6(run: Run, broker: MemoryBroker) -> None:
    """A queue at its depth cap refuses."""
    testing.announce(broker, "sentiment", max_depth=1)
    submit(run, "sentiment", "a")
    assert run("submit", "sentiment", "b").exit_code == 6


def test_a_result_that_takes_too_long_ends_with_7(run: Run, broker: MemoryBroker) -> None:
    """After the timeout the job is said to go on."""
    testing.announce(broker, "sentiment")
    job_id = submit(run, "sentiment", "a")
    done = run("result", job_id, "--timeout", "0")
    assert done.exit_code == 7
    assert "goes on" in done.stderr


@pytest.mark.parametrize("command", ["result", "status", "cancel"])
def test_an_unknown_job_ends_with_8(run: Run, command: str) -> None:
    """A job without a trace has a code of its own, whatever is asked of it."""
    assert run(command, "nobody").exit_code == 8


def test_status_says_where_a_job_stands(run: Run, broker: MemoryBroker) -> None:
    """A waiting job has its queue and position; an ended one its end."""
    testing.announce(broker, "sentiment")
    first, second = submit(run, "sentiment", "a"), submit(run, "sentiment", "b")
    assert json.loads(run("status", second, "--json").stdout) == {
        "id": second,
        "status": "queued",
        "queue": "sentiment",
        "position": 1,
        "estimate_seconds": None,
    }
    shown = dict(line.split() for line in run("status", second).stdout.splitlines())
    assert shown == {"id": second, "status": "queued", "queue": "sentiment", "position": "1"}
    with testing.answering(broker, "sentiment", lambda text: text):
        run("result", first)
    assert json.loads(run("status", first, "--json").stdout)["status"] == "succeeded"


def test_status_of_an_unknown_job_is_still_printed(run: Run) -> None:
    """The unknown is a status like others, on stdout."""
    assert json.loads(run("status", "nobody", "--json").stdout)["status"] == "unknown"


def test_cancel_says_what_became_of_it(run: Run, broker: MemoryBroker) -> None:
    """A waiting job is cancelled once; after that there is nothing to cancel."""
    testing.announce(broker, "sentiment")
    job_id = submit(run, "sentiment", "a")
    assert run("cancel", job_id).stdout == "cancelled\n"
    assert json.loads(run("cancel", job_id, "--json").stdout) == {"id": job_id, "cancelled": False}
    assert "already ended" in run("cancel", job_id).stdout
    assert run("result", job_id).exit_code == 3


@pytest.fixture
def writer(broker: MemoryBroker) -> Iterator[list[Any]]:
    """A queue that tells a text letter by letter; "bell" with a control character."""

    def spell(text: str) -> Iterator[str]:
        yield from text
        return [{"generated_text": text}]

    with testing.answering(broker, "writer", spell) as started:
        yield started


def test_stream_prints_the_text(run: Run, writer: list[Any]) -> None:
    """With --stream the text comes as it is written, then a line's end; what steers a terminal is made visible."""
    done = run("submit", "writer", "Fine\x07.", "--stream", "--timeout", "60")
    assert (done.exit_code, done.stdout) == (0, "Fine\\x07.\n")
    assert len(writer) == 1


def test_follow_goes_on_after_an_event(run: Run, writer: list[Any]) -> None:
    """With --json each event is a line; its id is where another call goes on."""
    lines = [json.loads(line) for line in run("submit", "writer", "abc", "--stream", "--json").stdout.splitlines()]
    assert [line.get("text") for line in lines] == ["a", "b", "c", None]
    assert (lines[-1]["result"], lines[-1]["usage"]) == ([{"generated_text": "abc"}], None)
    rest = run("follow", writer[0].id, "--after", lines[1]["id"], "--json")
    assert [json.loads(line) for line in rest.stdout.splitlines()] == lines[2:]
    assert run("follow", writer[0].id).stdout == "abc\n"
    assert run("follow", writer[0].id, "--after", "yesterday").exit_code == 2
    assert run("follow", "nobody", "--timeout", "1").exit_code == run("result", "nobody").exit_code


def test_follow_prints_the_answer_of_a_job_without_text(run: Run, sentiment: list[Any]) -> None:
    """A job that tells nothing has its answer printed."""
    assert run("submit", "sentiment", "Fine.", "--stream").stdout == "Fine.\n"
    assert run("submit", "sentiment", "Fine.", "--stream", "--wait").exit_code == 2
    assert len(sentiment) == 1
