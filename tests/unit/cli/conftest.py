"""The command line over a broker in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pipemill import testing
from pipemill.cli import main
from pipemill.cli.common import Invocation
from pipemill.testing import MemoryBroker

Run = Callable[..., Result]


@pytest.fixture
def broker() -> MemoryBroker:
    """A broker in memory, with nothing in it."""
    return MemoryBroker()


@pytest.fixture
def run(broker: MemoryBroker) -> Run:
    """Call the command line over the broker in memory."""

    def call(*arguments: str, stdin: str | bytes | None = None) -> Result:
        invocation = Invocation(connect=lambda told: testing.client(broker, decode=told.decode))
        return CliRunner().invoke(main, arguments, input=stdin, obj=invocation)

    return call


def answer(inputs: Any, **parameters: Any) -> Any:
    """Answer a job: fail for "bad", else hand back what was given, shouted if asked for."""
    if inputs == "bad":
        raise ValueError("I can't bear it")
    if parameters.get("labels"):
        return [{"label": label, "score": 0.5} for label in parameters["labels"]]
    return inputs.upper() if parameters.get("shout") else inputs


@pytest.fixture
def sentiment(broker: MemoryBroker) -> Iterator[list[Any]]:
    """A queue that is answered; gives the list of the jobs started so far."""
    with testing.answering(broker, "sentiment", answer, max_input_bytes=1000) as started:
        yield started
