"""One worker process as its supervisor has it."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipemill.catalogue.overlay import variable_of
from pipemill.health import numbered
from pipemill_worker.fleet import link
from pipemill_worker.fleet.gpus import VISIBLE
from pipemill_worker.fleet.plan import ProcessPlan

log = logging.getLogger("pipemill.supervisor")


@dataclass(frozen=True, kw_only=True)
class Command:
    """What all worker processes are started with."""

    queues: Sequence[str]
    catalogue: str | None
    #: The command's options by the catalogue's names. They travel in the environment: a broker's password isn't shown
    #: to those who list processes.
    options: Mapping[str, Any]
    hostname: str | None
    loglevel: str
    #: How long a worker may take to end when its supervisor is gone, in seconds.
    end_seconds: float
    #: The file and the first of the ports at which workers tell how they are, if the catalogue names them.
    health_file: Path | None = None
    health_port: int | None = None

    def arguments(self, plan: ProcessPlan) -> list[str]:
        """The command line of one process. ``-P``: what lies in the working directory is no library."""
        catalogue = [] if self.catalogue is None else ["--catalogue", self.catalogue]
        options = ["--hostname", node_name(self.hostname, plan.number), "--loglevel", self.loglevel]
        return [sys.executable, "-P", "-m", "pipemill", "worker", *options, *catalogue, "--", *self.queues]

    def environment(self, plan: ProcessPlan) -> dict[str, str]:
        """What one process has in its environment beside its supervisor's."""
        given = {name: value for name, value in self.options.items() if value is not None}
        ours = given | {"processes": 1, "torch_threads": plan.threads}
        if (file := self.health_file_of(plan)) is not None:
            ours["health_file"] = file
        if self.health_port is not None:
            ours["health_port"] = self.health_port + plan.number - 1
        found = {variable_of(name): str(value) for name, value in ours.items()}
        found |= {link.VARIABLE: str(self.end_seconds), link.PROCESSES_VARIABLE: str(plan.processes)}
        # For libraries that compute beside torch.
        found |= {"OMP_NUM_THREADS": str(plan.threads), "MKL_NUM_THREADS": str(plan.threads)}
        if plan.gpus:
            found[VISIBLE] = ",".join(plan.gpus)
        return found

    def health_file_of(self, plan: ProcessPlan) -> Path | None:
        """The file in which one process tells how it is."""
        return None if self.health_file is None else numbered(self.health_file, plan.number)


def node_name(hostname: str | None, number: int) -> str:
    """The Celery node name of one process: ``gpu1@%h`` becomes ``gpu1-2@%h``; without a name it is ``celery-2@%h``."""
    name, _, host = (hostname or "").rpartition("@")  # without an @, Celery takes it for the host
    return f"{name or 'celery'}-{number}@{host or '%h'}"


class Child:
    """A running worker process; what it logs goes where its supervisor's own lines go."""

    def __init__(self, plan: ProcessPlan, command: Command):
        self.plan = plan
        #: Whether it serves.
        self.ready = False
        #: When it was started, on the monotonic clock.
        self.started = time.monotonic()
        self._health_file = command.health_file_of(plan)
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(0)
        # A group of its own: Ctrl-C in a terminal reaches the supervisor alone, which tells its children once.
        with theirs, pinned(plan.cores):
            self._popen = subprocess.Popen(  # noqa: S603  # our own command
                command.arguments(plan),
                env=os.environ | command.environment(plan),
                stdin=theirs.fileno(),
                process_group=0,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    def listen(self) -> bool:
        """Hear whether it serves; whether that is news."""
        try:
            said = self.socket.recv(1)
        except OSError:  # it has said nothing, or is dead
            return False
        news = said == link.READY and not self.ready
        self.ready = self.ready or news
        return news

    def ended(self) -> int | None:
        """Its exit code, negative for a signal; ``None`` while it lives."""
        return self._popen.poll()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal; nothing happens if it is dead."""
        self._popen.send_signal(number)

    def close(self) -> None:
        """Forget it, once it is dead: whoever asks how it is must not be told how it was."""
        self.socket.close()
        if self._health_file is not None:
            with suppress(OSError):  # then it grows stale, which tells the same
                self._health_file.unlink(missing_ok=True)


@contextmanager
def pinned(cores: Sequence[int]) -> Iterator[None]:
    """Run on these cores only; what is started meanwhile inherits that. Nothing changes where the system has no way."""
    if sys.platform != "linux":
        yield
        return
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, cores)
    except OSError as error:
        text = "a process can't be bound to the cores %s (%s); it runs on any"
        log.warning(text, ",".join(map(str, cores)), error, extra={"event": "process_unbound"})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
