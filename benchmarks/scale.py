"""Long queues and many workers: `scripts/bench scale [--json] [--most N] [--repeats N]`.

A growing backlog for one worker with the demo's sentiment model: time and memory a job must stay flat. Then one to four
processes of `pipemill worker --processes N` with MiniLM, all on the same cores: what another process brings.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import psutil
import redis
from rich.console import Console
from rich.table import Table

from benchmarks.material import TASK, save_model, sentences
from benchmarks.measure import Spread, process, wait_for
from pipemill import Client
from pipemill.embedded import EmbeddedBroker
from pipemill.protocol import JobStatus

#: Jobs that wait when the worker begins.
BACKLOGS = (1_000, 10_000, 50_000, 200_000)
#: Jobs of all runs of one backlog, at least: short runs are repeated until they have so many.
ENOUGH = 5_000
#: Jobs put into the queue at a time.
CHUNK = 10_000
#: Jobs for the processes, and how many of them there are.
JOBS = 1_200
PROCESSES = (1, 2, 3, 4)
#: The bars: time and worker memory at the largest backlog ÷ at the smallest.
BARS = {"seconds": 1.10, "memory": 1.10}
MIB = 1 << 20


@contextmanager
def worker(folder: Path, url: str, queue: str, *options: str) -> Iterator[psutil.Process]:
    """A worker of one queue."""
    catalogue = folder / "scale.yaml"
    shared = f"worker: {{torch_threads: 1, cache_dir: {folder}}}"
    catalogue.write_text(f"{shared}\nqueues: {{scale: {{{queue}, limits: {{max_depth: 1000000}}}}}}", "utf-8")
    command = ["pipemill", "worker", "--catalogue", str(catalogue), "--broker", url, *options]
    with process(command) as child:
        yield child


def lanes(client: Client) -> int:
    """How many processes serve the queue."""
    return next((len(each.lanes) for each in client.queues() if each.info.name == "scale"), 0)


def drain(client: Client, child: psutil.Process, texts: list[str], server: redis.Redis) -> dict[str, float]:
    """Seconds a job, and memory, of a worker that finds them all waiting."""
    server.flushdb()
    wait_for(lambda: lanes(client) == 1, "the worker announces its queue again")
    empty = server.info("memory")["used_memory"]
    child.suspend()
    for start in range(0, len(texts), CHUNK):
        last = client.submit_many("scale", texts[start : start + CHUNK])[-1]
    full = server.info("memory")["used_memory"]
    started = time.perf_counter()
    child.resume()
    wait_for(lambda: client.status(last.id) is JobStatus.SUCCEEDED, f"{len(texts)} jobs", patience=1_800)
    seconds = time.perf_counter() - started
    kept = server.info("memory")["used_memory"]
    return {
        "seconds": seconds / len(texts),
        "worker_mib": child.memory_info().rss / MIB,
        "queued_bytes": (full - empty) / len(texts),
        "kept_bytes": (kept - empty) / len(texts),
    }


def backlogs(folder: Path, most: int, repeats: int) -> dict[int, dict[str, list[float]]]:
    """By backlog, the figures of each run; the sizes take turns."""
    found: dict[int, dict[str, list[float]]] = {}
    with ExitStack() as stack:
        url = stack.enter_context(EmbeddedBroker()).url
        client = stack.enter_context(Client(url))
        server = stack.enter_context(redis.Redis.from_url(url))
        model = f'task: {TASK}, model: "builtin:sentiment", device: cpu'
        child = stack.enter_context(worker(folder, url, model))
        wait_for(lambda: lanes(client) == 1, "the worker is there")
        prose = sentences(1_000)
        sizes = [size for size in BACKLOGS if size <= most]
        drain(client, child, prose * 5, server)  # What grows once, grows now.
        for size in chain.from_iterable([each] * max(repeats, ENOUGH // each) for each in sizes):
            texts = (prose * (size // len(prose)))[:size]
            for name, value in drain(client, child, texts, server).items():
                found.setdefault(size, {}).setdefault(name, []).append(value)
    return found


def processes(folder: Path, repeats: int) -> dict[int, dict[str, list[float]]]:
    """By number of processes, jobs a second and memory of all."""
    save_model(folder / "model")
    found: dict[int, dict[str, list[float]]] = {}
    texts = sentences(JOBS // 2) * 2
    for count in PROCESSES:
        with EmbeddedBroker() as broker, Client(broker.url) as client, ExitStack() as stack:
            model = f"task: {TASK}, model: {folder / 'model'}, device: cpu"
            parent = stack.enter_context(worker(folder, broker.url, model, "--processes", str(count)))
            wait_for(partial(_are_there, client, count), f"{count} processes")
            for each in client.results(client.submit_many("scale", texts[: 32 * count]), timeout=300):
                each.get()
            for _ in range(repeats):
                started = time.perf_counter()
                for each in client.results(client.submit_many("scale", texts), timeout=300):
                    each.get()
                family = [parent, *parent.children(recursive=True)]
                figures = {
                    "jobs_per_second": JOBS / (time.perf_counter() - started),
                    "mib": sum(member.memory_info().rss for member in family) / MIB,
                }
                for name, value in figures.items():
                    found.setdefault(count, {}).setdefault(name, []).append(value)
    return found


def _are_there(client: Client, count: int) -> bool:
    return lanes(client) == count


def report(by_backlog: dict[int, dict[str, list[float]]], by_processes: dict[int, Any]) -> dict[str, Any]:
    """All figures, and whether the bars are met."""
    first, last = (by_backlog[size] for size in (min(by_backlog), max(by_backlog)))
    ratios = {
        "seconds": statistics.median(last["seconds"]) / statistics.median(first["seconds"]),
        "memory": max(last["worker_mib"]) / max(first["worker_mib"]),
    }
    met = {name: ratios[name] <= bar for name, bar in BARS.items()}
    return {"backlogs": by_backlog, "processes": by_processes, "ratios": ratios, "met": met}


def show(figures: dict[str, Any]) -> None:
    """Print the tables."""
    table = Table("jobs waiting", "µs a job", "worker MiB", "broker, bytes a job waiting", "… ended", title="backlog")
    for size, each in figures["backlogs"].items():
        row = [[1e6 * value for value in each["seconds"]], each["worker_mib"], each["queued_bytes"], each["kept_bytes"]]
        table.add_row(f"{size:,}", *(str(Spread(tuple(values))) for values in row))
    Console().print(table)
    for name, bar in BARS.items():
        Console().print(f"{name} at the largest backlog ÷ at the smallest: {figures['ratios'][name]:.3f} (bar ≤ {bar})")
    table = Table("processes", "jobs/s", "MiB of all", title="processes on the same cores")
    for count, each in figures["processes"].items():
        table.add_row(str(count), str(Spread(tuple(each["jobs_per_second"]))), str(Spread(tuple(each["mib"]))))
    Console().print(table)


def main() -> int:
    """Measure and print; 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--most", type=int, default=max(BACKLOGS), help="the largest backlog (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each backlog, at least (default: %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        figures = report(backlogs(Path(name), options.most, options.repeats), processes(Path(name), options.repeats))
    if options.json:
        print(json.dumps(figures))
    else:
        show(figures)
    return int(not all(figures["met"].values()))


if __name__ == "__main__":
    raise SystemExit(main())
