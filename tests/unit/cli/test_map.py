"""map over a broker in memory."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from click.testing import CliRunner

from pipemill import testing
from pipemill.cli import main
from pipemill.cli.common import Invocation
from pipemill.errors import BrokerRefused
from pipemill.testing import MemoryBroker
from tests.helpers import until
from tests.unit.cli.conftest import Run


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Where the input is."""
    return tmp_path / "in.jsonl"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where the output goes."""
    return tmp_path / "out.jsonl"


def write(source: Path, *values: Any) -> None:
    """Write an input, a JSON value a line."""
    source.write_text("".join(json.dumps(value) + "\n" for value in values))


def read(target: Path) -> list[Any]:
    """Read an output."""
    return [json.loads(line) for line in target.read_text().splitlines()]


def results(target: Path) -> list[Any]:
    """The results of an output, whose indexes must be in order."""
    lines = read(target)
    assert [line["index"] for line in lines] == list(range(len(lines)))
    return [line.get("result", line.get("error")) for line in lines]


@pytest.mark.usefixtures("sentiment")
def test_every_input_has_its_line(run: Run, source: Path, target: Path) -> None:
    """Answers come in the order of the inputs, more of them than the window holds."""
    write(source, *(f"text {n}" for n in range(50)))
    done = run("map", "sentiment", str(source), str(target), "--window", "8")
    assert done.exit_code == 0, done.output
    assert results(target) == [f"text {n}" for n in range(50)]
    assert done.stdout == ""
    assert done.stderr == "50 done, 0 failed\n"


def test_each_line_has_its_own_parameters(run: Run, source: Path, target: Path, sentiment: list[Any]) -> None:
    """Lines with different parameters, all on their way at once, are answered each by its own."""
    write(source, *({"inputs": f"a{n}", "id": n, "parameters": {"shout": n % 3 == 0, "n": n}} for n in range(40)))
    run("map", "sentiment", str(source), str(target), "-p", "n=-1", "-p", "more=x")
    assert [line["result"] for line in read(target)] == [f"A{n}" if n % 3 == 0 else f"a{n}" for n in range(40)]
    assert [line["id"] for line in read(target)] == list(range(40))
    assert [job.parameters for job in sentiment] == [{"n": n, "more": "x", "shout": n % 3 == 0} for n in range(40)]


def test_a_run_says_whose_it_is(run: Run, source: Path, target: Path, sentiment: list[Any]) -> None:
    """With --tenant all its jobs are that tenant's; a name that can't be one is wrong usage."""
    write(source, "a", "b")
    assert run("map", "sentiment", str(source), str(target), "--tenant", "acme").exit_code == 0
    assert [job.headers["pipemill_tenant"] for job in sentiment] == ["acme", "acme"]
    assert run("map", "sentiment", str(source), str(target), "--tenant", "a:b").exit_code == 2


@pytest.mark.usefixtures("sentiment")
def test_bad_lines_fail_alone(run: Run, source: Path, target: Path) -> None:
    """A job that fails, a line too large and lines that aren't JSON leave errors at their places, and the code 3."""
    source.write_text(f'{{\n"a"\n"bad"\n{{\n[\n"{"x" * 2000}"\n"b"\n{{\n')
    done = run("map", "sentiment", str(source), str(target), "--json")
    assert done.exit_code == 3
    kinds = [line["error"]["type"] if "error" in line else line["result"] for line in read(target)]
    malformed = "MalformedJob"
    assert kinds == [malformed, "a", "InferenceFailed", malformed, malformed, "PayloadTooLarge", "b", malformed]
    assert json.loads(done.stderr) == {"lines": 8, "failed": 6, "resumed_at": 0}


@pytest.mark.usefixtures("sentiment")
def test_text_lines(run: Run, source: Path, target: Path) -> None:
    """With --text each line is an input as it stands."""
    source.write_text('"a"\n\nb')
    run("map", "sentiment", str(source), str(target), "--text")
    assert results(target) == ['"a"', "", "b"]


def test_a_run_goes_on_after_what_is_there(run: Run, source: Path, target: Path, sentiment: list[Any]) -> None:
    """A second run sends only what has no complete line yet, and counts earlier failures."""
    write(source, "bad", "b", "c", "d")
    run("map", "sentiment", str(source), str(target))
    whole = target.read_bytes()
    lines = whole.splitlines(keepends=True)
    target.write_bytes(lines[0] + lines[1] + lines[2][:9])
    sentiment.clear()
    done = run("map", "sentiment", str(source), str(target), "--json")
    assert [job.inputs for job in sentiment] == ["c", "d"]
    assert target.read_bytes() == whole
    assert json.loads(done.stderr) == {"lines": 4, "failed": 1, "resumed_at": 2}
    assert done.exit_code == 3


def test_a_finished_run_sends_nothing(run: Run, source: Path, target: Path, sentiment: list[Any]) -> None:
    """Running it once more does nothing, until the input has grown."""
    write(source, "a")
    run("map", "sentiment", str(source), str(target))
    assert run("map", "sentiment", str(source), str(target)).stderr == "1 done (1 of them before), 0 failed\n"
    write(source, "a", "b")
    run("map", "sentiment", str(source), str(target))
    assert [job.inputs for job in sentiment] == ["a", "b"]
    assert results(target) == ["a", "b"]


@pytest.mark.usefixtures("sentiment")
def test_stdin_and_stdout(run: Run) -> None:
    """Dashes stand for stdin and stdout, which get nothing but the lines."""
    done = run("map", "sentiment", "-", "-", stdin='"a"\n"b"\n')
    assert [json.loads(line)["result"] for line in done.stdout.splitlines()] == ["a", "b"]
    assert done.stderr == "2 done, 0 failed\n"


def test_stdin_cannot_go_on(run: Run, source: Path, target: Path, sentiment: list[Any]) -> None:
    """An output with lines isn't continued from stdin, which may hold anything."""
    write(source, "a")
    run("map", "sentiment", str(source), str(target))
    done = run("map", "sentiment", "-", str(target), stdin='"a"\n"b"\n')
    assert done.exit_code == 2
    assert len(sentiment) == 1
    assert len(read(target)) == 1


def test_files_that_do_not_belong_together_are_left_alone(run: Run, source: Path, target: Path) -> None:
    """An output of a longer input, a file that is no output, and the input itself are refused."""
    write(source, "a")
    target.write_text('{"index": 0, "result": 1}\n{"index": 1, "result": 1}\n')
    before = source.read_bytes(), target.read_bytes()
    longer = run("map", "sentiment", str(source), str(target))
    no_output = run("map", "sentiment", str(target), str(source))
    itself = run("map", "sentiment", str(source), str(source))
    assert [each.exit_code for each in (longer, no_output, itself)] == [2, 2, 2]
    assert (source.read_bytes(), target.read_bytes()) == before


def test_an_unknown_queue_writes_nothing(run: Run, source: Path, target: Path) -> None:
    """What can't begin leaves an empty output."""
    write(source, "a")
    assert run("map", "nobody", str(source), str(target)).exit_code == 6
    assert target.read_bytes() == b""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_an_output_to_go_on_with(
    run: Run, broker: MemoryBroker, source: Path, target: Path, number: int
) -> None:
    """After Ctrl-C or SIGTERM complete lines are there, jobs on their way are cancelled, and a second run ends it."""
    write(source, *map(str, range(20)))

    def stop_at_7(text: str) -> str:
        if text == "7":
            until(lambda: broker.queue("sentiment").totals["enqueued"] == 10, "the window is full")
            os.kill(os.getpid(), number)
        if text == "8":
            until(lambda: broker.queue("sentiment").cancelled, "jobs on their way are cancelled")
        return text

    before = signal.getsignal(signal.SIGTERM)
    with testing.answering(broker, "sentiment", stop_at_7):
        done = run("map", "sentiment", str(source), str(target), "--window", "4")
    assert done.exit_code == 130
    assert signal.getsignal(signal.SIGTERM) is before
    assert results(target) == list(map(str, range(len(read(target)))))
    there = len(read(target))
    assert there <= 8
    with testing.answering(broker, "sentiment", lambda text: text) as started:
        assert run("map", "sentiment", str(source), str(target)).exit_code == 0
    assert results(target) == list(map(str, range(20)))
    assert {job.inputs for job in started} >= set(map(str, range(there, 20)))
    (report,) = testing.client(broker).queues()
    assert report.totals["cancelled"] > 0


def test_a_broker_that_refuses_says_how_to_go_on(source: Path, target: Path) -> None:
    """An error in the midst of a run leaves what is written, and a word on how to continue."""
    write(source, "a", "b")

    class Refusing:
        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def map(self, _queue: str, inputs: Iterator[Any], *_: Any, **__: Any) -> Iterator[Any]:
            yield next(inputs)
            raise BrokerRefused("out of memory")

    invocation = Invocation(connect=lambda _: Refusing())  # type: ignore[arg-type,return-value]  # a client that fails
    done = CliRunner().invoke(main, ["map", "sentiment", str(source), str(target)], obj=invocation)
    assert done.exit_code == 5
    assert results(target) == ["a"]
    assert "out.jsonl: 1 done, 0 failed; run the same command again to go on" in done.stderr
