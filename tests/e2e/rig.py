"""Commands in processes of their own, and what tests ask of them and of their broker."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeVar
from uuid import uuid4

import kombu.pools
import redis
from celery import Celery

from pipemill import Client
from pipemill.catalogue import load_catalogue
from pipemill.protocol import names
from pipemill.store.base import QueueReport
from tests.helpers import until

T = TypeVar("T")

ROOT: Final = Path(__file__).parents[2]
#: Where the commands of this installation are.
COMMANDS: Final = Path(sys.executable).parent
#: One job a batch and few leased, so that 2,000 jobs last long enough to be interrupted in their middle.
SLOW_ECHO: Final = """
worker: {lease_seconds: 2}
queues:
  echo: {task: echo, batch: {max_items: 1}, prefetch: 8}
"""
#: How long a process may take to end once it was told to, in seconds.
END_SECONDS: Final = 60.0


def importing_tests() -> str:
    """A PYTHONPATH with which a process can import what lies in tests, beside what we can."""
    return os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))


def clean_environment(**more: str) -> dict[str, str]:
    """The environment without settings of ours or the hub's; offline, one thread for each worker."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIPEMILL_", "HF_", "CELERY_"))}
    ours = {"PATH": f"{COMMANDS}{os.pathsep}{kept['PATH']}", "PIPEMILL_TORCH_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return kept | ours | more


class Process:
    """A command in a process of its own; what it prints goes to a file."""

    def __init__(self, command: Sequence[str], folder: Path, environment: Mapping[str, str]):
        self._output = folder / f"{uuid4().hex}.log"
        with self._output.open("wb") as output:
            self._popen = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self._popen.poll() is not None

    def output(self) -> str:
        """What it has printed so far."""
        return self._output.read_text("utf-8", errors="replace")

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._popen.send_signal(number)

    def freeze(self) -> None:
        """Stop it in its tracks, until ``thaw``."""
        self.send(signal.SIGSTOP)
        until(lambda: state_of(self.pid) == "T", "the process stands still")

    def thaw(self) -> None:
        """Let it go on."""
        self.send(signal.SIGCONT)

    def family(self) -> list[int]:
        """All that lives of its session: itself and what it started."""
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        facts = {pid: _facts(pid) for pid in pids}
        return [pid for pid in pids if facts[pid][3:4] == [str(self.pid)] and facts[pid][0] != "Z"]

    def wait(self, seconds: float = END_SECONDS) -> int:
        """Wait for its end; its exit code."""
        try:
            return self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the process didn't end within {seconds:.0f} s:\n{self.output()[-2000:]}") from None

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Tell it to end; its exit code."""
        self.send(how)
        return self.wait()

    def kill(self) -> None:
        """End it and what it started at once, whatever they are at, even frozen."""
        for pid in self.family():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._popen.wait()

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Poll for a condition, and fail at once if the process ends first."""

        def alive_and_true() -> Any:
            if self.ended:
                raise AssertionError(f"the process ended before this came true: {what}\n{self.output()[-2000:]}")
            return condition()

        return until(alive_and_true, what)


def _facts(pid: int) -> list[str]:
    """What the system tells of a process: state, parent, group, session, and more; nothing once it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def state_of(pid: int) -> str:
    """The letter that the system has for what a process does: T for stopped; empty once it is gone."""
    return "".join(_facts(pid)[:1])


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Serve:
    """Starts processes against one broker; they all end with it."""

    def __init__(self, folder: Path, broker: str):
        self.folder = folder
        self.broker = broker
        self._started: list[Process] = []

    def catalogue(self, text: str) -> Path:
        """Write a catalogue."""
        path = self.folder / f"{uuid4().hex}.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    def run(self, *command: str, **environment: str) -> Process:
        """Start a command that finds the broker in its environment, and modules where these tests do."""
        modules = [path for path in (environment.pop("PYTHONPATH", ""), os.environ.get("PYTHONPATH", "")) if path]
        environment["PYTHONPATH"] = os.pathsep.join(modules)
        variables = clean_environment(PIPEMILL_BROKER=self.broker) | environment
        process = Process(command, self.folder, variables)
        self._started.append(process)
        return process

    def start(self, catalogue: str | Path, *arguments: str, **environment: str) -> Process:
        """Start ``pipemill worker`` on a catalogue, given as text or as a file."""
        path = catalogue if isinstance(catalogue, Path) else self.catalogue(catalogue)
        return self.run("pipemill", "worker", *arguments, "--catalogue", str(path), **environment)

    def __call__(self, catalogue: str | Path, *queues: str, **environment: str) -> Process:
        """Start ``pipemill worker`` and wait until each of its queues is served."""
        path = catalogue if isinstance(catalogue, Path) else self.catalogue(catalogue)
        worker = self.start(path, *queues, **environment)
        self.wait_until_serving(worker, *(queues or load_catalogue(path, environ={}).queues))
        return worker

    def wait_until_serving(self, worker: Process, *queues: str) -> None:
        """Wait until a worker reports a lane for each of these queues."""
        with Client(self.broker) as client:
            worker.until(lambda: set(queues) <= set(served_by(client, worker)), f"{', '.join(queues)} served")

    def end(self) -> None:
        """End what still runs."""
        for process in self._started:
            process.kill()


def pid_of(owner: str) -> int:
    """The process id in the name of who holds leases."""
    return int(owner.split(":")[-2])


def served_by(client: Client, worker: Process) -> list[str]:
    """The queues for which this very process reports a lane."""
    return [report.info.name for report in client.queues() if worker.pid in map(pid_of, report.lanes)]


def report_on(client: Client, queue: str) -> QueueReport:
    """How a queue stands."""
    return next(report for report in client.queues() if report.info.name == queue)


def leased_messages(broker: redis.Redis) -> int:
    """How many jobs are in the hands of any worker, dead or alive."""
    hashes = sum(broker.hlen(key) for key in broker.scan_iter(f"{names.PREFIX}lease:*"))
    return hashes + sum(broker.llen(key) for key in broker.scan_iter(f"{names.PREFIX}inbox:*"))


def freeze_at_work(worker: Process, client: Client, queue: str, submit: Callable[[], T]) -> T:
    """Freeze a worker when it has ended some of these jobs, holds others, and has left others; what was submitted.

    It stands still while they are submitted, too: a fast one would have ended most before the last is there.
    """

    def caught() -> bool:
        worker.freeze()
        report = report_on(client, queue)
        if report.leased and report.totals.get("succeeded") and sum(report.waiting.values()):
            return True
        worker.thaw()
        return False

    worker.freeze()
    submitted = submit()
    worker.thaw()
    worker.until(caught, "the worker is in the middle of its jobs")
    return submitted


@contextmanager
def operator(url: str) -> Iterator[Celery]:
    """A Celery application that knows the broker and nothing else; none of its connections outlives the block."""
    with Celery("operator", broker=url, backend=url, set_as_current=False) as app:
        yield app
        app.backend.client.close()
    kombu.pools.reset()


@contextmanager
def published(url: str) -> Iterator[Callable[[], list[str]]]:
    """Listen to the channels of results; the function gives the job ids heard so far, one for each publish."""
    heard: list[str] = []
    with redis.Redis.from_url(url) as client, client.pubsub() as channel:
        channel.psubscribe(f"{names.RESULT_PREFIX}*")

        def listen() -> list[str]:
            while (message := channel.get_message(timeout=0.2)) is not None:
                if message["type"] == "pmessage":
                    heard.append(message["channel"].decode().removeprefix(names.RESULT_PREFIX))
            return heard

        until(lambda: channel.get_message(timeout=0.1), "the subscription stands")
        yield listen
