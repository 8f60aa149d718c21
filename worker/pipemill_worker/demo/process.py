"""A worker in a process of its own, started and stopped as a user would."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from pipemill import Client
from pipemill.catalogue import load_catalogue
from pipemill.errors import ModelLoadError

#: How long a worker may take to load its models, in seconds; importing torch on a cold disk takes most of it.
START_SECONDS: Final = 180.0
#: How long it may take to stop, in seconds; longer than its drain.
STOP_SECONDS: Final = 45.0
#: How often it is looked at, in seconds.
POLL_SECONDS: Final = 0.05
#: Lines of its log that are shown when it fails.
LOG_LINES: Final = 20


class WorkerProcess:
    """``pipemill worker``, as long as its ``with`` block."""

    def __init__(self, catalogue: Path, broker: str, queues: Sequence[str] = (), *options: str):
        self._queues = set(queues) or set(load_catalogue(catalogue, environ={}).queues)
        self._command = [sys.executable, "-m", "pipemill", "worker", *queues, "--catalogue", str(catalogue), *options]
        self._environment = {**os.environ, "PIPEMILL_BROKER": broker}
        self._log = tempfile.NamedTemporaryFile(prefix="pipemill-worker-", suffix=".log")  # noqa: SIM115  # closed at exit
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start it."""
        self.process = subprocess.Popen(  # noqa: S603  # our own command
            self._command, env=self._environment, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it, and remove its log."""
        self.stop()
        self._log.close()

    def wait_until_serving(self, client: Client) -> None:
        """Wait until every queue has a lane that reports.

        Raises
        ------
        ModelLoadError
            When the worker ends instead, or takes too long; the text holds the end of its log.

        """
        deadline = time.monotonic() + START_SECONDS
        while not self._queues <= {report.info.name for report in client.queues() if report.lanes}:
            if self.process is None or self.process.poll() is not None or time.monotonic() > deadline:
                text = f"the worker didn't start; the end of its log:\n{self.log_tail()}"
                raise ModelLoadError(text)
            time.sleep(POLL_SECONDS)

    def log_tail(self) -> str:
        """The end of its log."""
        return "\n".join(Path(self._log.name).read_text("utf-8", errors="replace").splitlines()[-LOG_LINES:])

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End it and return its exit code; by force if it takes too long."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()
