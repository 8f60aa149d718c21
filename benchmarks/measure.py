"""Measuring: processes of our own, their CPU time, medians."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

#: How long anything may take before the benchmark gives up, in seconds.
PATIENCE_SECONDS = 300.0


def wait_for(condition: Callable[[], bool], what: str, patience: float = PATIENCE_SECONDS) -> None:
    """Poll until it is true; give up after ``patience`` seconds."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.005)


@contextmanager
def process(command: Sequence[str], **environment: str) -> Iterator[psutil.Process]:
    """A process of ours, stopped by SIGTERM at the end."""
    with tempfile.TemporaryFile() as log:
        child = subprocess.Popen(  # noqa: S603  # our own commands
            [sys.executable, "-m", *command], env={**os.environ, **environment}, stdout=log, stderr=log
        )
        try:
            yield psutil.Process(child.pid)
        finally:
            child.send_signal(signal.SIGCONT)
            child.terminate()
            child.wait(60)


def cpu_seconds(child: psutil.Process) -> float:
    """CPU time of a process so far, user and system."""
    times = child.cpu_times()
    return float(times.user + times.system)


@dataclass(frozen=True)
class Spread:
    """Repeated measurements of one thing."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.values)

    def __str__(self) -> str:
        """Median, and the smallest and largest in brackets."""
        return f"{self.median:.3g} [{min(self.values):.3g}–{max(self.values):.3g}]"
