"""Full load without faults: whether memory, file descriptors and threads stay flat."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import psutil
import redis

from tests.e2e.rig import Process, Serve, importing_tests
from tests.faults.durable import DurableBroker
from tests.faults.material import Known, catalogue
from tests.faults.slope import trend

#: Time between two samples, in seconds.
SAMPLE_SECONDS: Final = 5.0
#: Results are kept for so long, in seconds: what is stored comes to rest well before the second half begins.
KEPT_SECONDS: Final = 20
MEBIBYTE: Final = 2.0**20


@dataclass(slots=True)
class Samples:
    """By figure, what was measured: seconds since the start, and the value."""

    figures: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def add(self, moment: float, values: Mapping[str, float]) -> None:
        """Keep what was measured at one moment."""
        for name, value in values.items():
            self.figures.setdefault(name, []).append((moment, value))

    def table(self) -> dict[str, dict[str, float | None]]:
        """Each figure's second half: mean, bounds, and slope per hour."""
        return {name: _row(samples) for name, samples in self.figures.items()}


def _row(samples: Sequence[tuple[float, float]]) -> dict[str, float | None]:
    found = trend(samples)
    row = {
        "mean": found.mean,
        "least": found.least,
        "most": found.most,
        "per_hour": found.per_hour,
        "percent_per_hour": found.percent_per_hour,
    }
    return {name: round(value, 2) if math.isfinite(value) else None for name, value in row.items()}


def measure(roles: Mapping[str, int], server: Any) -> dict[str, float]:
    """Memory in MiB, open file descriptors and threads of each process, and what Redis says that it uses."""
    values = {"redis used MiB": server.info("memory")["used_memory"] / MEBIBYTE}
    for role, pid in roles.items():
        process = psutil.Process(pid)
        with process.oneshot():
            values[f"{role} MiB"] = process.memory_info().rss / MEBIBYTE
            values[f"{role} descriptors"] = process.num_fds()
            values[f"{role} threads"] = process.num_threads()
    return values


def run(serve: Serve, broker: DurableBroker, queues: Sequence[str], known: Known, minutes: float) -> dict[str, Any]:
    """Load one worker as far as it goes, for so many minutes; what was measured, and what was answered.

    Raises
    ------
    AssertionError
        When the worker or the producer ends before it was told to.

    """
    serve.broker = broker.url
    text = catalogue(queues, cache=serve.folder / "measured", lease_seconds=15, kept_seconds=KEPT_SECONDS)
    worker = serve(serve.catalogue(text))
    path = serve.folder / "known.json"
    path.write_text(json.dumps({queue: known.get(queue, []) for queue in queues}), encoding="utf-8")
    producer = serve.run(sys.executable, "-m", "tests.faults.load", broker.url, str(path), PYTHONPATH=importing_tests())
    samples = _sample({"worker": worker.pid, "producer": producer.pid, "redis": broker.pid}, broker, minutes, producer)
    code = producer.stop()
    ended = worker.stop()
    counted = json.loads(producer.output().splitlines()[-1])
    return {
        "well": code == ended == 0 and not any(counted["wrong"].values()),
        "minutes": minutes,
        "exits": {"producer": code, "worker": ended},
        **counted,
        "figures": samples.table(),
    }


def _sample(roles: Mapping[str, int], broker: DurableBroker, minutes: float, producer: Process) -> Samples:
    samples = Samples()
    started = time.monotonic()
    with redis.Redis.from_url(broker.url) as server:
        while (passed := time.monotonic() - started) < minutes * 60:
            samples.add(passed, measure(roles, server))
            if producer.ended:
                raise AssertionError(f"the producer ended early:\n{producer.output()[-2000:]}")
            time.sleep(SAMPLE_SECONDS)
    return samples
