"""A server of one side as a tree of processes: started, pinned, stopped while others are measured, and ended."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import psutil

from benchmarks.rivals.servers.settings import Settings
from benchmarks.rivals.sides import OURS, ROOT, Side

#: How long a server may take to end by itself, in seconds.
STOP_SECONDS = 20.0
#: The end of a log that is shown when a server fails, in bytes.
LOG_SHOWN = 600


class Unavailable(RuntimeError):
    """A side can't be measured here; the text says why."""


class Server:
    """One server, from its start to its end."""

    def __init__(self, side: Side, settings: Settings, folder: Path):
        self.side = side
        self.settings = settings
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # closed in stop()
        self._process = subprocess.Popen(  # noqa: S603  # our own commands
            side.command(settings),
            cwd=ROOT,
            env={**os.environ, **settings.environment(), **_quiet(folder)},
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        self.root = psutil.Process(self._process.pid)
        self._seen: dict[int, psutil.Process] = {}

    def check(self) -> None:
        """Complain if it has ended.

        Raises
        ------
        Unavailable
            When it has.

        """
        if self._process.poll() is not None:
            raise Unavailable(f"ended with {self._process.returncode}: {self.log()}")

    def log(self) -> str:
        """Read the end of what it printed."""
        if self._log.closed:
            return ""
        # Not by seeking: the processes write where this file's position is.
        size = os.fstat(self._log.fileno()).st_size
        end = os.pread(self._log.fileno(), LOG_SHOWN, max(size - LOG_SHOWN, 0))
        return " ".join(end.decode(errors="replace").split())

    @contextmanager
    def measured(self, computing: int, others: int) -> Iterator[Self]:
        """Let it run, pinned: who computes to one core, the rest (HTTP, routers, supervisors) to another."""
        self.check()
        self.resume()
        own = self._computing()
        for process in self._tree():
            _pin(process, computing if process.pid in own else others)
        try:
            yield self
        finally:
            self.pause()

    def pause(self) -> None:
        """Stop the clock for all of its processes, so that idle ones cost nothing."""
        for process in self._tree():
            with suppress(psutil.NoSuchProcess):
                process.suspend()

    def resume(self) -> None:
        """Let all of its processes go on."""
        for process in self._tree():
            with suppress(psutil.NoSuchProcess):
                process.resume()

    def end(self) -> None:
        """Ask it to end; `stop` waits for it."""
        self.resume()
        with suppress(psutil.NoSuchProcess):
            self.root.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """End it, and whatever it leaves behind."""
        self.end()
        ended = time.monotonic() + STOP_SECONDS
        while self._process.poll() is None and time.monotonic() < ended:
            self._tree()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(0.05)
        left = self._tree()
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, STOP_SECONDS)
        self._process.wait(STOP_SECONDS)
        self._log.close()

    def _computing(self) -> set[int]:
        """The processes that have loaded the model; of ours and Celery's, the only one."""
        file = Path(self.settings.computing)
        noted = {int(line) for line in file.read_text("utf-8").split()} if file.exists() else set()
        return {self._process.pid} if self.side.name == OURS else noted

    def _tree(self) -> list[psutil.Process]:
        """All of its processes, also those whose parent has ended since they were seen."""
        with suppress(psutil.NoSuchProcess):
            for process in [self.root, *self.root.children(recursive=True)]:
                self._seen[process.pid] = process
        self._seen = {pid: process for pid, process in self._seen.items() if process.is_running()}
        return list(self._seen.values())


def _pin(process: psutil.Process, core: int) -> None:
    """Pin each thread: a process's affinity is that of its first thread, and only new ones inherit it."""
    with suppress(psutil.NoSuchProcess):
        for thread in process.threads():
            with suppress(ProcessLookupError):
                os.sched_setaffinity(thread.id, {core})


def _quiet(folder: Path) -> dict[str, str]:
    """No telemetry, no download; files where they are removed afterwards."""
    return {
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "RAY_TMPDIR": str(folder / "ray"),
        "RAY_USAGE_STATS_ENABLED": "0",
        "BENTOML_HOME": str(folder / "bento"),
        "BENTOML_DO_NOT_TRACK": "True",
    }
