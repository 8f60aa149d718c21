"""What a flood does to another tenant: `scripts/bench fairness [--json] [--check] [--model NAME] [--seconds N]`.

A light tenant asks now and then: alone, while another tenant sends a hundred times as much to the same queue, more than
the worker can do, and the same once more on a queue with `fair: false`. One real worker, phases by turns; MiniLM with a
classification head unless one of the demo's models, or the echo, is asked for.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import redis

from benchmarks.material import save_model, sentences
from benchmarks.measure import Spread, process, wait_for
from pipemill import Client, QueueFull
from pipemill.embedded import EmbeddedBroker
from pipemill.protocol import names

#: Jobs of the flood for each of the light tenant.
FLOOD: Final = 100
#: How much more the flood sends than the worker can do.
OVERLOAD: Final = 1.5
#: Most the light tenant's p95 under the flood may be of its p95 alone.
BAR: Final = 2.0
#: Longest wait for an answer of the light tenant's, in seconds; without fairness it waits behind the whole flood.
PATIENCE_SECONDS: Final = 120.0
#: By name, a queue's settings, and how much of a job's inputs are sent: a sentence, or a prompt.
MODELS: Final = {
    "minilm": "task: text-classification, model: {folder}, device: cpu",
    "sentiment": 'task: text-classification, model: "builtin:sentiment", device: cpu',
    "generator": 'task: text-generation, model: "builtin:generator", device: cpu, '
    "parameters: {max_new_tokens: 16, do_sample: false}",
    "echo": "task: echo",
}
QUEUES: Final = ("fair", "unfair")
CATALOGUE: Final = """
queues:
  fair: {{{queue}, batch: {{max_items: {items}}}}}
  unfair: {{{queue}, batch: {{max_items: {items}}}, fair: false}}
worker: {{torch_threads: 1, cache_dir: {folder}}}
"""


class Load:
    """Two tenants of one broker."""

    def __init__(self, url: str, client: Client):
        self._client = client
        self._redis: Any = redis.Redis.from_url(url)
        self._texts: Iterator[str] = itertools.cycle(sentences(600))
        self._chance = random.Random(7)  # noqa: S311  # the same arrivals in every run

    def capacity(self, queue: str, jobs: int) -> float:
        """Jobs a second that the worker ends when many wait."""
        started = time.perf_counter()
        ids = [job.id for job in self._client.submit_many(queue, [next(self._texts) for _ in range(jobs)])]
        self._client.results(ids, timeout=PATIENCE_SECONDS)
        return jobs / (time.perf_counter() - started)

    def light(self, queue: str, rate: float, seconds: float) -> list[float]:
        """How long each answer took, in seconds, of jobs that come at random, so many a second on average."""
        with ThreadPoolExecutor(64) as threads:
            asked: list[Future[float]] = []
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                asked.append(threads.submit(self._ask, queue))
                time.sleep(self._chance.expovariate(rate))
            return [each.result() for each in asked]

    def _ask(self, queue: str) -> float:
        started = time.perf_counter()
        self._client.run(queue, next(self._texts), tenant="light", timeout=PATIENCE_SECONDS)
        return time.perf_counter() - started

    @contextmanager
    def flood(self, queue: str, rate: float) -> Iterator[None]:
        """Let another tenant send so many jobs a second; what is left of them goes at the end."""
        stop = threading.Event()
        flooding = threading.Thread(target=self._flood, args=(queue, rate, stop))
        flooding.start()
        try:
            yield
        finally:
            stop.set()
            flooding.join()
            self._drop(queue)

    def _flood(self, queue: str, rate: float, stop: threading.Event) -> None:
        started, sent = time.monotonic(), 0
        while not stop.wait(0.02):
            due = int((time.monotonic() - started) * rate) - sent
            try:
                self._client.submit_many(queue, [next(self._texts) for _ in range(due)], tenant="flood")
            except QueueFull as full:
                stop.wait(full.retry_after)
            sent += due

    def _drop(self, queue: str) -> None:
        """Delete what waits, and let the worker end what it holds."""
        lists = [names.tenant_list_key(queue, 0, tenant) for tenant in ("", "flood", "light")]
        self._redis.delete(*lists, names.ring_key(queue, 0), names.waiting_key(queue), names.bytes_key(queue))
        wait_for(lambda: not any(report.leased for report in self._client.queues()), "the worker holds nothing")


def measure(model: str, items: int, seconds: float, repeats: int) -> dict[str, Any]:
    """All figures of one run."""
    with ExitStack() as stack:
        url = stack.enter_context(EmbeddedBroker()).url
        client = stack.enter_context(Client(url))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if model == "minilm":
            save_model(folder)
        catalogue, queue = folder / "catalogue.yaml", MODELS[model].replace("{folder}", str(folder))
        catalogue.write_text(CATALOGUE.format(queue=queue, items=items, folder=folder), "utf-8")
        stack.enter_context(process(["pipemill", "worker", "--catalogue", str(catalogue), "--broker", url]))
        wait_for(lambda: len([report for report in client.queues() if report.lanes]) == len(QUEUES), "the worker")
        load = Load(url, client)
        load.capacity("fair", 50)
        capacity = statistics.median(load.capacity("fair", 100 if model == "generator" else 300) for _ in range(3))
        flood = OVERLOAD * capacity
        waits: dict[str, list[list[float]]] = {"alone": [], "fair": [], "unfair": []}
        for _ in range(repeats):
            waits["alone"].append(load.light("fair", flood / FLOOD, seconds))
            for queue in QUEUES:
                with load.flood(queue, flood):
                    waits[queue].append(load.light(queue, flood / FLOOD, seconds))
        return figures(model, capacity, waits)


def p95(waits: list[float]) -> float:
    """The time within which 95 of 100 were answered, in ms."""
    return statistics.quantiles(waits, n=20)[-1] * 1e3 if len(waits) > 1 else waits[0] * 1e3


def figures(model: str, capacity: float, waits: dict[str, list[list[float]]]) -> dict[str, Any]:
    """Put the measurements together: medians over the repeats, and the ratios within each."""
    tails = {phase: [p95(each) for each in repeats] for phase, repeats in waits.items()}
    middles = {phase: [statistics.median(each) * 1e3 for each in repeats] for phase, repeats in waits.items()}
    ratios = {
        phase: Spread(tuple(mine / alone for mine, alone in zip(tails[phase], tails["alone"], strict=True)))
        for phase in QUEUES
    }
    return {
        "model": model,
        "capacity_jobs_per_second": capacity,
        "light_jobs": {phase: sum(map(len, repeats)) for phase, repeats in waits.items()},
        "p50_ms": {phase: statistics.median(each) for phase, each in middles.items()},
        "p95_ms": {phase: statistics.median(each) for phase, each in tails.items()},
        "p95_ratio": {phase: spread.median for phase, spread in ratios.items()},
        "p95_ratio_spread": {phase: str(spread) for phase, spread in ratios.items()},
        "met": ratios["fair"].median < BAR,
    }


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(prog="scripts/bench fairness", description=__doc__)
    parser.add_argument("--model", choices=sorted(MODELS), default="minilm")
    parser.add_argument("--items", type=int, default=64, help="most items of a forward pass (64, as queues have it)")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each phase")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one JSON document")
    parser.add_argument(
        "--check", action="store_true", help=f"exit 1 if p95 under flood isn't below {BAR:g} times alone"
    )
    options = parser.parse_args()
    found = measure(options.model, options.items, options.seconds, options.repeats)
    print(
        json.dumps(found, indent=2) if options.json else "\n".join(f"{name}: {value}" for name, value in found.items())
    )
    sys.exit(int(options.check and not found["met"]))


if __name__ == "__main__":
    main()
