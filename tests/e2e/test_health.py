"""A worker says how it is while it starts, serves, misses its broker, hangs, and ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path

import pytest

from pipemill import Client
from pipemill.embedded import EmbeddedBroker
from pipemill.health import Health, ask_health, files_of, read_health
from tests.e2e.rig import ROOT, Process, Serve
from tests.helpers import until

ECHO = "worker: {lease_seconds: 2}\nqueues: {echo: {task: echo, device: cpu}}"
#: What Python runs first in a process: loading waits until a file is there.
SLOW_LOAD = """
import os, time
from pipemill_worker.pipelines import factory
from pipemill_worker.pipelines.echo import EchoRunner

class Slow(EchoRunner):
    def __init__(self, *args, **options):
        while not os.path.exists(os.environ["LOAD"]):
            time.sleep(0.01)
        super().__init__(*args, **options)

factory.EchoRunner = Slow
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where a worker's health lies."""
    return tmp_path / "health" / "health.json"


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def free_pair() -> int:
    """The first of two neighbouring ports on which nobody listens."""
    while True:
        first = free_port()
        with socket.socket() as probe, suppress(OSError, OverflowError):
            probe.bind(("127.0.0.1", first + 1))
            return first


def become(worker: Process, look: Callable[[], Health], *, live: bool, ready: bool, word: str = "") -> Health:
    """Wait until a worker is so, for a reason that starts with this word."""

    def so() -> Health | None:
        found = look()
        fits = (found.live, found.ready) == (live, ready) and word in "".join(found.reasons)
        return found if fits else None

    found: Health = worker.until(so, f"live {live}, ready {ready} {word}, not {look()}")
    return found


def status(port: int, path: str) -> int:
    """The status that a worker's port answers with."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def probe(file: Path, *options: str) -> int:
    """The exit code of `pipemill health`, run as an orchestrator runs it."""
    command = [sys.executable, "-m", "pipemill", "health", "--file", str(file), *options]
    return subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode


def test_a_worker_from_its_start_to_its_end(serve: Serve, file: Path) -> None:
    """Live and not ready while it loads, both when it serves, gone when it has ended; the port says the same."""
    (serve.folder / "sitecustomize.py").write_text(SLOW_LOAD, "utf-8")
    port, go = free_port(), serve.folder / "go"
    environment = {
        "PIPEMILL_HEALTH_FILE": str(file),
        "PIPEMILL_HEALTH_PORT": str(port),
        "LOAD": str(go),
        "PYTHONPATH": f"{serve.folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
    }
    worker = serve.start(ECHO, **environment)
    become(worker, lambda: read_health(file), live=True, ready=False, word="starting:")
    assert (status(port, "/livez"), status(port, "/readyz"), status(port, "/")) == (200, 503, 404)
    assert (probe(file), probe(file, "--ready")) == (0, 9)
    go.write_text("", "utf-8")
    become(worker, lambda: read_health(file), live=True, ready=True)
    become(worker, lambda: ask_health(f"http://127.0.0.1:{port}"), live=True, ready=True)
    assert (status(port, "/livez"), status(port, "/readyz")) == (200, 200)
    assert probe(file, "--ready") == 0
    document = json.loads(file.read_text("utf-8"))
    assert document["pid"] == worker.pid
    assert worker.stop() == 0
    assert not file.exists()
    assert probe(file) == 9


def test_a_broker_that_goes_and_comes_back(serve: Serve, file: Path, tmp_path: Path) -> None:
    """Without its broker a worker is live and not ready, and it is ready again without a restart."""
    port = free_port()
    with EmbeddedBroker(port=port, folder=tmp_path / "valkey") as broker:
        serve.broker = broker.url
        worker = serve.start(ECHO, PIPEMILL_HEALTH_FILE=str(file))
        become(worker, lambda: read_health(file), live=True, ready=True)
    become(worker, lambda: read_health(file), live=True, ready=False, word="broker:")
    with EmbeddedBroker(port=port, folder=tmp_path / "valkey"):
        become(worker, lambda: read_health(file), live=True, ready=True)
        assert worker.stop() == 0


def test_a_worker_that_hangs_as_a_whole_is_found(serve: Serve, file: Path) -> None:
    """A frozen process writes nothing, and what it wrote last grows old."""
    worker = serve.start(ECHO, PIPEMILL_HEALTH_FILE=str(file))
    become(worker, lambda: read_health(file), live=True, ready=True)
    worker.freeze()
    until(lambda: not read_health(file, max_age=3).live, "the file grows old")
    assert probe(file, "--max-age", "3") == 9
    worker.thaw()
    become(worker, lambda: read_health(file, max_age=3), live=True, ready=True)


def test_a_drain_is_live_and_not_ready(serve: Serve, client: Client, file: Path) -> None:
    """While what runs is finished, a worker takes no more, and a restart would be wrong."""
    catalogue = serve.catalogue("worker: {drain_seconds: 3600}\nqueues: {echo: {task: echo}}")
    command = (sys.executable, str(ROOT / "tests/e2e/sabotaged.py"), "worker", "--catalogue", str(catalogue))
    worker = serve.run(*command, SABOTAGE="hang", PYTHONPATH=pythonpath(), PIPEMILL_HEALTH_FILE=str(file))
    become(worker, lambda: read_health(file), live=True, ready=True)
    client.submit("echo", "poison")
    worker.until(lambda: any(report.leased for report in client.queues()), "the job is held")
    worker.send(signal.SIGTERM)
    become(worker, lambda: read_health(file), live=True, ready=False, word="draining:")


def pythonpath() -> str:
    """Where these tests and the sources that they test are found."""
    return os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])


def test_a_lost_device_ends_the_worker_and_its_file(serve: Serve, client: Client, file: Path) -> None:
    """It isn't live from then on, ends with 70, and leaves nothing that says it were well."""
    catalogue = serve.catalogue(ECHO)
    command = (sys.executable, str(ROOT / "tests/e2e/sabotaged.py"), "worker", "--catalogue", str(catalogue))
    worker = serve.run(*command, SABOTAGE="lose", PYTHONPATH=pythonpath(), PIPEMILL_HEALTH_FILE=str(file))
    become(worker, lambda: read_health(file), live=True, ready=True)
    client.submit("echo", "poison")
    assert worker.wait() == 70
    assert not file.exists()


def test_a_pass_that_does_not_come_back_is_not_live(serve: Serve, client: Client, file: Path) -> None:
    """A worker that gives a pass up ends with 70, and what it leaves behind says that it doesn't live."""
    catalogue = serve.catalogue("worker: {stuck_seconds: 1, drain_seconds: 2}\nqueues: {echo: {task: echo}}")
    command = (sys.executable, str(ROOT / "tests/e2e/sabotaged.py"), "worker", "--catalogue", str(catalogue))
    worker = serve.run(*command, SABOTAGE="hang", PYTHONPATH=pythonpath(), PIPEMILL_HEALTH_FILE=str(file))
    become(worker, lambda: read_health(file), live=True, ready=True)
    client.submit("echo", "poison")
    assert worker.wait() == 70
    assert not read_health(file).live


def test_a_port_that_is_taken_ends_the_worker(serve: Serve) -> None:
    """Exit code 4, and what to do, from both commands: two workers of one machine need two ports."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        worker = serve.start(ECHO, PIPEMILL_HEALTH_PORT=port)
        assert worker.wait() == 4
        assert "worker.health_port" in worker.output()
        assert "choose a port" in worker.output()
        assert "Traceback" not in worker.output()


def test_several_processes_tell_each_for_itself(serve: Serve, file: Path) -> None:
    """Each has its file and its port, one probe reads all; a killed one is out of it until it serves again."""
    first = free_pair()
    environment = {"PIPEMILL_HEALTH_FILE": str(file), "PIPEMILL_HEALTH_PORT": str(first)}
    fleet = serve.start(ECHO, "--processes", "2", **environment)

    def both() -> list[int]:
        try:
            found = [json.loads(each.read_text("utf-8")) for each in files_of(file)]
        except FileNotFoundError:  # It was removed since it was found: its process is gone.
            return []
        return [each["pid"] for each in found] if [each["ready"] for each in found] == [True, True] else []

    pids = fleet.until(both, "both processes serve")
    assert [each.name for each in files_of(file)] == ["health-1.json", "health-2.json"]
    assert [status(first + number, "/readyz") for number in (0, 1)] == [200, 200]
    assert probe(file, "--ready") == 0
    os.kill(pids[0], signal.SIGKILL)
    fleet.until(lambda: pids[0] not in both() and both(), "the killed process serves again")
    assert fleet.stop() == 0
    assert files_of(file) == []
