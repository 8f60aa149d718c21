"""The demo: a broker and a worker of its own, 500 sentences as independent jobs, and what became of them."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from pipemill import Client
from pipemill.embedded import EmbeddedBroker
from pipemill.errors import CatalogueError
from pipemill_worker.demo import show
from pipemill_worker.demo.process import WorkerProcess

#: The demo's own catalogue: two queues with the models that come with the package.
CATALOGUE: Final = Path(__file__).parent / "catalogue.yaml"
#: What it sends unless it is given lines.
SENTENCES: Final = Path(__file__).parent / "sentences.txt"
#: What the generator goes on with.
PROMPT: Final = "The film is"
#: How long the worker's own figures are waited for, in seconds; it publishes them once a second.
REPORT_SECONDS: Final = 5.0
#: How often they are looked at, in seconds.
POLL_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the demo saw."""

    lines: Sequence[str]
    answers: Sequence[Any]
    generated: str
    #: From the first submission to the last answer.
    seconds: float
    #: Number of items of a forward pass → number of passes.
    batch_sizes: Counter[int]
    #: The same lines, one pipeline call each, in one process with as many threads; None if not measured.
    direct_seconds: float | None


def run_demo(lines: Sequence[str] | None, *, keep: bool, rows: int, as_json: bool) -> int:
    """Run it and print what came of it; the exit code.

    Raises
    ------
    PipemillError
        When the broker or the worker can't start; the text says why.

    """
    texts = [line for line in lines if line.strip()] if lines is not None else SENTENCES.read_text("utf-8").splitlines()
    if not texts:
        text = "there is no line to send: give a file with a sentence on each line"
        raise CatalogueError(text)
    console = Console(stderr=as_json, highlight=False)
    with _sigterm_as_interrupt(), ExitStack() as stack:
        console.print("Starting an embedded Valkey and a worker with two small models …")
        broker = stack.enter_context(EmbeddedBroker())
        worker = stack.enter_context(WorkerProcess(CATALOGUE, broker.url))
        client = stack.enter_context(Client(broker.url))
        worker.wait_until_serving(client)
        outcome = _send(client, texts, console)
        if not keep:
            worker.stop()
            outcome = _compare(outcome, console)
        if as_json:
            print(orjson.dumps(show.as_document(outcome)).decode())  # noqa: T201  # the command's output
        else:
            show.print_outcome(console, outcome, rows)
        if keep:
            show.print_invitation(console, broker.url)
            _wait_for_interrupt()
    return 0


def _send(client: Client, texts: Sequence[str], console: Console) -> Outcome:
    """Send every line as a job of its own, and wait for every answer."""
    with _progress(console) as progress:
        bar = progress.add_task("queued jobs", total=len(texts))
        started = time.perf_counter()
        answers: list[Any] = []
        for answer in client.map("sentiment", texts, window=len(texts), return_errors=True):
            answers.append(answer)
            progress.update(bar, completed=len(answers))
        seconds = time.perf_counter() - started
    generated = client.run("generator", PROMPT)
    return Outcome(
        lines=texts,
        answers=answers,
        generated=generated[0]["generated_text"],
        seconds=seconds,
        batch_sizes=_batch_sizes(client, len(texts)),
        direct_seconds=None,
    )


def _batch_sizes(client: Client, items: int) -> Counter[int]:
    """The sizes of the batches that were run, as the worker reports them (about once a second)."""
    sizes: Counter[int] = Counter()
    deadline = time.monotonic() + REPORT_SECONDS
    while sum(size * count for size, count in sizes.items()) < items and time.monotonic() < deadline:
        report = next(report for report in client.queues() if report.info.name == "sentiment")
        sizes = Counter()
        for lane in report.lanes.values():
            sizes.update({int(size): count for size, count in lane["batch_sizes"].items()})
        time.sleep(POLL_SECONDS)
    return sizes


def _compare(outcome: Outcome, console: Console) -> Outcome:
    """Run the same lines through the direct pipeline, one call each."""
    from pipemill.catalogue import load_catalogue  # noqa: PLC0415  # loads pydantic
    from pipemill_worker.pipelines.loading import load_pipeline  # noqa: PLC0415  # loads torch

    catalogue = load_catalogue(CATALOGUE, environ={})
    pipe: Any = load_pipeline("sentiment", catalogue.queues["sentiment"], threads=catalogue.worker.torch_threads)
    pipe(outcome.lines[0])
    with _progress(console) as progress:
        bar = progress.add_task("direct calls", total=len(outcome.lines))
        started = time.perf_counter()
        for line in outcome.lines:
            pipe(line, truncation=True)
            progress.advance(bar)
        return replace(outcome, direct_seconds=time.perf_counter() - started)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end the demo as Ctrl-C does, so that its broker and its worker end with it."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _wait_for_interrupt() -> None:
    asked = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: asked.set())
    asked.wait()
