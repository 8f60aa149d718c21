"""How soon jobs of a killed worker are answered by another: `scripts/bench recovery [--json] [--lease SECONDS]`.

A worker is killed with SIGKILL in the middle of its jobs, while a second one works, too. Figures are in lease lengths.
"""

from __future__ import annotations

import argparse
import json
import signal
import tempfile
import time
from contextlib import ExitStack
from typing import Any

from benchmarks.measure import process, wait_for
from pipemill import Client
from pipemill.embedded import EmbeddedBroker

CATALOGUE = """
queues:
  sentiment: {{task: text-classification, model: "builtin:sentiment", device: cpu}}
worker: {{torch_threads: 1, lease_seconds: {lease}}}
"""


def measure(lease: float, jobs: int) -> dict[str, Any]:
    """One kill in the middle of ``jobs``."""
    with ExitStack() as stack:
        url = stack.enter_context(EmbeddedBroker()).url
        client = stack.enter_context(Client(url))
        catalogue = stack.enter_context(tempfile.NamedTemporaryFile("w", suffix=".yaml"))
        catalogue.write(CATALOGUE.format(lease=lease))
        catalogue.flush()
        command = ["pipemill", "worker", "--catalogue", catalogue.name, "--broker", url]
        first = stack.enter_context(process(command))
        wait_for(lambda: _lanes(client) == 1, "the first worker")
        stack.enter_context(process(command))
        wait_for(lambda: _lanes(client) == 2, "the second worker")  # noqa: PLR2004  # both serve
        ids = [job.id for job in client.submit_many("sentiment", [f"A fine film, number {n}." for n in range(jobs)])]
        wait_for(lambda: _total(client, "succeeded") > jobs // 10, "the first answers")
        first.send_signal(signal.SIGKILL)
        killed = time.perf_counter()
        held = _held(client)
        wait_for(lambda: _total(client, "redelivered") > 0, "the first redelivery")
        redelivered = time.perf_counter() - killed
        results = client.results(ids, timeout=300)
        return {
            "jobs": jobs,
            "lease_seconds": lease,
            "held_by_both_when_killed": held,
            "succeeded": sum(result.error is None for result in results),
            "counted_ends": _total(client, "succeeded"),
            "first_redelivery_in_leases": redelivered / lease,
            "all_answered_in_leases": (time.perf_counter() - killed) / lease,
        }


def _total(client: Client, name: str) -> int:
    return sum(report.totals.get(name, 0) for report in client.queues())


def _lanes(client: Client) -> int:
    return sum(len(report.lanes) for report in client.queues())


def _held(client: Client) -> int:
    return sum(report.leased for report in client.queues())


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(prog="scripts/bench recovery", description=__doc__)
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--lease", type=float, default=15.0, help="lease length in seconds")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    options = parser.parse_args()
    found = measure(options.lease, options.jobs)
    print(
        json.dumps(found, indent=2) if options.json else "\n".join(f"{name}: {value}" for name, value in found.items())
    )


if __name__ == "__main__":
    main()
