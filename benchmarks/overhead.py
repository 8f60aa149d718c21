"""What the queue itself costs, beside stock Celery: `scripts/bench overhead [--json] [--jobs N] [--repeats N]`.

A no-op on both sides, the same messages, the same broker, interleaved repeats. CPU time is the steadier figure on a
shared machine; rates and latencies are medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import psutil
from celery import Celery
from rich.console import Console
from rich.table import Table

from benchmarks.measure import Spread, cpu_seconds, process, wait_for
from pipemill import Client
from pipemill.catalogue import load_catalogue
from pipemill.embedded import EmbeddedBroker
from pipemill.protocol import JobStatus
from pipemill.store.base import QueueInfo
from pipemill.store.queues import RedisQueueStore
from pipemill_worker.demo.run import SENTENCES
from pipemill_worker.pipelines.loading import load_pipeline

#: About 1 kB a message, as in the measurements of stock Celery that this is compared with.
INPUTS = "x" * 300
CATALOGUE = """
queues:
  echo: {task: echo}
  sentiment: {task: text-classification, model: "builtin:sentiment", device: cpu}
worker: {torch_threads: 1}
"""
#: The bars of the first release.
BARS: dict[str, tuple[Callable[[float, float], bool], float]] = {
    "rate_ratio": (float.__ge__, 10.0),
    "worker_us_per_job": (float.__le__, 60.0),
    "submit_many_us_per_job": (float.__le__, 40.0),
    "submit_us_per_job": (float.__le__, 150.0),
    "added_latency_ms": (float.__le__, 3.0),
    "import_seconds": (float.__le__, 0.15),
}


def enqueue(client: Client, queue: str, jobs: int) -> str:
    """Put jobs into a queue; the id of the last."""
    return client.submit_many(queue, [INPUTS] * jobs)[-1].id


def eat(client: Client, worker: psutil.Process, queue: str, jobs: int) -> tuple[float, float]:
    """Jobs a second and CPU µs a job of a worker that finds a full queue."""
    worker.suspend()
    last = enqueue(client, queue, jobs)
    before, started = cpu_seconds(worker), time.perf_counter()
    worker.resume()
    wait_for(lambda: client.status(last) is JobStatus.SUCCEEDED, f"{queue}: {jobs} jobs")
    seconds = time.perf_counter() - started
    return jobs / seconds, (cpu_seconds(worker) - before) / jobs * 1e6


def producers(client: Client, app: Celery, jobs: int) -> tuple[float, float, float]:
    """CPU µs a job of submit_many, of submit, and of stock delay()."""

    def cost(work: Callable[[], Any], count: int) -> float:
        before = time.process_time()
        work()
        return (time.process_time() - before) / count * 1e6

    many = cost(lambda: client.submit_many("idle", [INPUTS] * jobs), jobs)
    few = max(jobs // 10, 1)
    one = cost(lambda: [client.submit("idle", INPUTS) for _ in range(few)], few)
    stock = cost(lambda: [app.send_task("pipemill.infer", (INPUTS,), queue="idle") for _ in range(few)], few)
    return many, one, stock


def latency(client: Client, texts: Iterator[str], rounds: int) -> tuple[float, float]:
    """Median ms of the direct pipeline call, and of the same through the idle queue, taking turns."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(CATALOGUE)
        file.flush()
        settings = load_catalogue(file.name, environ={}).queues["sentiment"]
    pipe: Any = load_pipeline("sentiment", settings, threads=1)
    direct, queued = [], []
    for text in [next(texts) for _ in range(rounds)]:
        started = time.perf_counter()
        expected = pipe(text)
        between = time.perf_counter()
        answer = client.run("sentiment", text)
        ended = time.perf_counter()
        if answer[0]["label"] != expected[0]["label"]:
            raise AssertionError(text)
        direct.append((between - started) * 1e3)
        queued.append((ended - between) * 1e3)
    return statistics.median(direct), statistics.median(queued)


def import_seconds() -> float:
    """Seconds of `import pipemill` in a fresh process."""
    code = "import time; t = time.perf_counter(); import pipemill; print(time.perf_counter() - t)"
    runs = [subprocess.check_output([sys.executable, "-c", code]) for _ in range(5)]  # noqa: S603  # our own
    return statistics.median(map(float, runs))


def sentences() -> Iterator[str]:
    """The demo's sentences, again and again."""
    lines = SENTENCES.read_text("utf-8").splitlines()
    while True:
        yield from lines


def measure(jobs: int, repeats: int) -> dict[str, Any]:
    """All figures of one run."""
    with ExitStack() as stack:
        url = stack.enter_context(EmbeddedBroker()).url
        client = stack.enter_context(Client(url))
        store = RedisQueueStore(url)
        for name in ("stock", "idle", "echo", "sentiment"):
            store.declare(QueueInfo(name=name, task="echo", max_depth=10_000_000))
        catalogue = stack.enter_context(tempfile.NamedTemporaryFile("w", suffix=".yaml"))
        catalogue.write(CATALOGUE)
        catalogue.flush()
        ours = ["pipemill", "worker", "--catalogue", catalogue.name, "--broker", url]
        stock = ["celery", "-A", "benchmarks.stock", "worker", "-P", "solo", "-Q", "stock", "-l", "WARNING"]
        stock += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        pipemill_worker = stack.enter_context(process(ours))
        celery_worker = stack.enter_context(process(stock, BENCH_BROKER=url))
        eaters = {"pipemill": (pipemill_worker, "echo", jobs), "celery": (celery_worker, "stock", max(jobs // 10, 1))}
        for _, queue, _count in eaters.values():
            client.result(enqueue(client, queue, 200), timeout=300)
        rates: dict[str, list[float]] = {name: [] for name in eaters}
        cpu: dict[str, list[float]] = {name: [] for name in eaters}
        for _ in range(repeats):
            for name, (worker, queue, count) in eaters.items():
                rate, cost = eat(client, worker, queue, count)
                rates[name].append(rate)
                cpu[name].append(cost)
        made = [producers(client, Celery(broker=url, backend=url), jobs // 4) for _ in range(repeats)]
        celery_worker.suspend()
        client.run("sentiment", "warm", timeout=300)
        latencies = latency(client, sentences(), 200)
        sizes = next(report for report in client.queues() if report.info.name == "echo").lanes
        store.close()
    return figures(rates, cpu, made, latencies, next(iter(sizes.values()))["batch_sizes"])


def figures(
    rates: dict[str, list[float]],
    cpu: dict[str, list[float]],
    made: list[tuple[float, float, float]],
    latencies: tuple[float, float],
    sizes: dict[str, int],
) -> dict[str, Any]:
    """Put the measurements together; medians."""
    direct, queued = latencies
    many, one, delay = (Spread(tuple(column)) for column in zip(*made, strict=True))
    rate = {name: Spread(tuple(values)) for name, values in rates.items()}
    cost = {name: Spread(tuple(values)) for name, values in cpu.items()}
    found: dict[str, Any] = {
        "jobs_per_second": rate["pipemill"].median,
        "stock_jobs_per_second": rate["celery"].median,
        "rate_ratio": rate["pipemill"].median / rate["celery"].median,
        "worker_us_per_job": cost["pipemill"].median,
        "stock_worker_us_per_job": cost["celery"].median,
        "worker_cpu_ratio": cost["celery"].median / cost["pipemill"].median,
        "submit_many_us_per_job": many.median,
        "submit_us_per_job": one.median,
        "stock_delay_us_per_job": delay.median,
        "direct_call_ms": direct,
        "through_queue_ms": queued,
        "added_latency_ms": queued - direct,
        "import_seconds": import_seconds(),
        "batch_sizes": sizes,
    }
    found["met"] = {name: test(found[name], bar) for name, (test, bar) in BARS.items()}
    return found


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(prog="scripts/bench overhead", description=__doc__)
    parser.add_argument("--jobs", type=int, default=20_000, help="no-op jobs per repeat; stock Celery gets a tenth")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="one JSON document")
    parser.add_argument("--check", action="store_true", help="exit 1 if a bar is missed")
    options = parser.parse_args()
    found = measure(options.jobs, options.repeats)
    if options.json:
        print(json.dumps(found, indent=2))  # the command's output
    else:
        table = Table("figure", "value", "bar")
        for name, value in found.items():
            if isinstance(value, float):
                test, bar = BARS.get(name, (None, None))
                sign = {float.__ge__: "≥", float.__le__: "≤"}.get(test, "") if test else ""
                table.add_row(name, f"{value:,.3f}", f"{sign} {bar:g}" if bar is not None else "")
        Console().print(table)
    sys.exit(int(options.check and not all(found["met"].values())))


if __name__ == "__main__":
    main()
