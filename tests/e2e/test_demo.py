"""The demo, run as a user would."""

from __future__ import annotations

import json
import re
import signal
from typing import Any, Final

import pytest

from pipemill import Client
from tests.e2e.rig import Serve
from tests.helpers import until

LINES: Final = [
    "A warm, funny, generous film.",
    "An insult to everyone who paid for a ticket.",
    "Dull, loud and far too long.",
    "The best performance of the year.",
    "I laughed, I cried, I want to see it again!",
] * 5


class Demo:
    """A demo on a file of sentences, with a folder for temporary files that is its own."""

    def __init__(self, serve: Serve, *options: str):
        self.temporary = serve.folder / "temporary"
        self.temporary.mkdir()
        sentences = serve.folder / "sentences.txt"
        sentences.write_text("\n".join(LINES), encoding="utf-8")
        self.process = serve.run(
            "pipemill", "demo", str(sentences), *options, TMPDIR=str(self.temporary), COLUMNS="120"
        )

    def assert_nothing_left(self) -> None:
        """No process of it lives, and no temporary file lies about; torch keeps a cache of its own there."""
        until(lambda: not self.process.family(), "all processes of the demo have ended")
        left = [path.name for path in self.temporary.iterdir() if not path.name.startswith("torchinductor_")]
        assert left == []


def test_the_demo_shows_and_cleans_up(serve: Serve) -> None:
    """Exit code 0, one JSON document with an answer for each line, and nothing left behind."""
    demo = Demo(serve, "--json")
    assert demo.process.wait(150) == 0, demo.process.output()
    document = read_document(demo.process.output())
    assert document["jobs"] == len(LINES)
    assert all({"label", "score"} <= set(answer[0]) for answer in document["answers"])
    labels = [answer[0]["label"] for answer in document["answers"]]
    assert labels == labels[:5] * 5
    assert sum(int(size) * count for size, count in document["batch_sizes"].items()) == len(LINES)
    assert document["generated_text"].startswith("The film is")
    assert document["jobs_per_second"] > 0
    assert document["direct_calls_per_second"] > 0
    demo.assert_nothing_left()


def read_document(output: str) -> dict[str, Any]:
    """The JSON document in what was printed; messages for people, on stderr, stand before it."""
    (line,) = [line for line in output.splitlines() if line.startswith('{"')]
    document: dict[str, Any] = json.loads(line)
    return document


def test_the_demo_is_kept_until_it_is_told_to_stop(serve: Serve) -> None:
    """With --keep broker and worker answer whoever comes, until SIGTERM ends them all: exit code 0."""
    demo = Demo(serve, "--keep", "--rows", "3")
    invited = re.compile(r"Still up.*PIPEMILL_BROKER=(\S+)\s", re.DOTALL)
    address = demo.process.until(lambda: invited.search(demo.process.output()), "the demo invites")
    with Client(address[1]) as client:
        assert client.run("sentiment", LINES[0], timeout=60)[0]["label"] == "POSITIVE"
    assert "3 of 25 answers" in demo.process.output()
    assert demo.process.stop() == 0
    demo.assert_nothing_left()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=lambda how: how.name)
def test_a_demo_that_is_broken_off_cleans_up(how: signal.Signals, serve: Serve) -> None:
    """Ctrl-C or SIGTERM while the models are being loaded leaves nothing behind either."""
    demo = Demo(serve)
    logs = demo.temporary.glob
    demo.process.until(lambda: any(log.stat().st_size for log in logs("pipemill-worker-*")), "the worker is starting")
    assert len(demo.process.family()) >= 3
    assert demo.process.stop(how) != 0
    demo.assert_nothing_left()


@pytest.mark.parametrize("content", ["", "\n \n"], ids=["empty", "blank"])
def test_a_demo_without_lines(content: str, serve: Serve) -> None:
    """A file without a sentence is told as such, before anything is started."""
    lines = serve.folder / "lines.txt"
    lines.write_text(content, encoding="utf-8")
    process = serve.run("pipemill", "demo", str(lines))
    assert process.wait() != 0
    assert "there is no line to send" in process.output()
