"""The port at which a worker says how it is, over real sockets."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from pipemill.cli import main
from pipemill.errors import ConfigurationError
from pipemill.health import Health, ask_health, numbered, read_health, write_health
from pipemill_worker.health import HealthServer, Reporter, server
from tests.helpers import until

WELL = Health(live=True, ready=True)
LOADING = Health(live=True, ready=False, reasons=("starting: models",))
BROKEN = Health(live=False, ready=False, reasons=("device: gone",))


class Worker:
    """A process that is as a test says."""

    def __init__(self) -> None:
        self.health = WELL
        self.looks = 0

    def look(self) -> Health:
        self.looks += 1
        return self.health


@pytest.fixture
def worker() -> Worker:
    """A process that is well."""
    return Worker()


@pytest.fixture
def port(worker: Worker) -> Iterator[int]:
    """The port of its server."""
    serving = HealthServer(worker.look, "127.0.0.1", 0)
    serving.start()
    yield serving.port
    serving.close()
    assert not serving._thread.is_alive()


def get(port: int, path: str, method: str = "GET") -> tuple[int, bytes]:
    """Ask; status and body."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path)
    response = connection.getresponse()
    found = response.status, response.read()
    connection.close()
    return found


def raw(port: int, request: bytes) -> bytes:
    """Send bytes, and read until the end."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(4_096), b""))


@pytest.mark.parametrize(
    ("health", "live", "ready"), [(WELL, 200, 200), (LOADING, 200, 503), (BROKEN, 503, 503)], ids=str
)
def test_each_path_answers_for_its_own(port: int, worker: Worker, health: Health, live: int, ready: int) -> None:
    """/livez and /readyz have the status that they ask for, and the whole health as JSON."""
    worker.health = health
    for path, status in (("/livez", live), ("/readyz", ready), ("/readyz?verbose", ready)):
        found, body = get(port, path)
        assert found == status
        assert json.loads(body) == health.to_json()


def test_a_head_request_has_the_status_alone(port: int) -> None:
    """Who asks for no body gets none."""
    assert get(port, "/livez", "HEAD") == (200, b"")


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET / HTTP/1.1", 404),
        (b"GET /livez/../etc/passwd HTTP/1.1", 404),
        (b"POST /livez HTTP/1.1", 405),
        (b"DELETE /readyz HTTP/1.0", 405),
        (b"GET /livez", 400),
        (b"\x16\x03\x01\x02\x00", 400),
        (b"GET /livez HTTP/2", 400),
        (b"GET /livez HTTP/1.1\r\nX: " + b"x" * 20_000, 431),
    ],
)
def test_anything_else_is_refused(port: int, worker: Worker, request_line: bytes, status: int) -> None:
    """Other paths, methods and protocols, and heads without end, are refused without a look at the worker."""
    assert raw(port, request_line + b"\r\n\r\n").split(b"\r\n")[0].startswith(b"HTTP/1.1 %d " % status)
    assert worker.looks == 0


def test_slow_clients_hold_up_nobody(port: int) -> None:
    """While clients send nothing, others are answered."""
    with socket.create_connection(("127.0.0.1", port)) as idle, socket.create_connection(("127.0.0.1", port)) as slow:
        slow.sendall(b"GET /livez HTTP/1.1\r\n")
        assert get(port, "/livez")[0] == 200
        assert idle.fileno() >= 0


def test_slow_clients_are_cut_off(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection ends after its time in all, however busily its client goes on sending."""
    monkeypatch.setattr(server, "CONNECTION_SECONDS", 0.2)
    serving = HealthServer(worker.look, "127.0.0.1", 0)
    serving.start()
    with socket.create_connection(("127.0.0.1", serving.port), timeout=0.01) as slow:

        def cut() -> bool:
            try:
                slow.sendall(b"X: y\r\n")
                return slow.recv(1) == b""
            except TimeoutError:
                return False
            except ConnectionError:
                return True

        until(cut, "the slow client is cut off")
    assert get(serving.port, "/livez")[0] == 200
    serving.close()


def test_too_many_clients_are_dropped(port: int) -> None:
    """Connections beyond the bound are closed at once, and the port answers again when others leave."""
    held = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(server.MOST_CONNECTIONS)]

    def dropped() -> bool:
        try:
            return raw(port, b"GET /livez HTTP/1.1\r\n\r\n") == b""
        except ConnectionError:
            return True

    until(dropped, "a client too many is dropped")
    for each in held:
        each.close()

    def answered() -> bool:
        try:
            return get(port, "/livez")[0] == 200
        except (ConnectionError, OSError):
            return False

    until(answered, "the port answers again")


def test_the_command_asks_the_port(port: int, worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """--url and the worker's own variable name the port; a proxy of the environment isn't asked."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    worker.health = LOADING
    url = f"http://127.0.0.1:{port}"
    assert ask_health(url) == LOADING
    assert CliRunner().invoke(main, ["health", "--url", url, "--ready"]).exit_code == 9
    monkeypatch.delenv("PIPEMILL_HEALTH_FILE", raising=False)
    monkeypatch.setenv("PIPEMILL_HEALTH_PORT", str(port))
    assert CliRunner().invoke(main, ["health"]).exit_code == 0


def test_a_port_without_a_worker_is_not_live() -> None:
    """Nobody answers: that is told, not raised."""
    found = ask_health("http://127.0.0.1:1")
    assert not found.live
    assert found.reasons[0].startswith("port: no answer")


def test_another_server_at_the_port_is_not_live() -> None:
    """What answers in another way than a worker isn't one."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(4_096)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

        thread = threading.Thread(target=serve)
        thread.start()
        assert not ask_health(f"http://127.0.0.1:{listening.getsockname()[1]}").live
        thread.join()


def settings(**given: Any) -> Any:
    """Health settings of a catalogue."""
    return SimpleNamespace(**{"health_file": None, "health_port": None, "health_host": "127.0.0.1", **given})


@pytest.fixture
def report(worker: Worker) -> Iterator[Callable[..., Reporter]]:
    """Starts a reporter on the worker, and closes it."""
    started: list[Reporter] = []

    def start(**given: Any) -> Reporter:
        started.append(Reporter(worker.look, settings(**given)))
        started[-1].start()
        return started[-1]

    yield start
    for each in started:
        each.close()


def test_the_file_follows_the_worker(tmp_path: Path, worker: Worker, report: Callable[..., Reporter]) -> None:
    """It is there from the start, in a folder that is made, follows what changes, and is gone at the end."""
    file = tmp_path / "new" / "health.json"
    reporter = report(health_file=str(file))
    assert read_health(file) == WELL
    worker.health = BROKEN
    until(lambda: read_health(file) == BROKEN, "the file says what changed")
    reporter.close()
    assert list(file.parent.iterdir()) == []


def test_what_others_left_behind_does_not_count(tmp_path: Path, report: Callable[..., Reporter]) -> None:
    """A worker that starts removes the files of an earlier one with several processes."""
    file = tmp_path / "health.json"
    write_health(numbered(file, 2), BROKEN)
    report(health_file=str(file))
    assert read_health(file) == WELL


def test_a_look_that_fails_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing can be said for a process that can't look at itself; the log says why, once."""

    def look() -> Health:
        raise KeyError("x")

    reporter = Reporter(look, settings())
    assert [reporter.look().live for _ in range(3)] == [False] * 3
    assert len(caplog.records) == 1
    assert "KeyError" in caplog.text


def test_a_file_that_cannot_be_written_is_a_mistake(tmp_path: Path, worker: Worker) -> None:
    """The worker ends with the setting's name instead of going on unseen."""
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(ConfigurationError, match=r"worker\.health_file: .*can't be written"):
        Reporter(worker.look, settings(health_file=str(tmp_path / "file" / "health.json"))).start()


def test_a_port_that_is_taken_is_a_mistake(port: int, worker: Worker) -> None:
    """The worker ends with the setting's name, and says what to do."""
    with pytest.raises(ConfigurationError, match=r"worker\.health_port: .*choose a port"):
        Reporter(worker.look, settings(health_port=port)).start()


def test_a_disk_that_is_full_is_told_once(
    tmp_path: Path, worker: Worker, report: Callable[..., Reporter], caplog: pytest.LogCaptureFixture
) -> None:
    """A write that fails later is logged, and tried again."""
    folder = tmp_path / "there"
    file = folder / "health.json"
    report(health_file=str(file))
    moved = folder.rename(tmp_path / "away")
    until(lambda: caplog.records, "the failure is logged")
    looks = worker.looks
    until(lambda: worker.looks >= looks + 2, "it goes on trying")
    assert len(caplog.records) == 1
    moved.rename(folder)
    worker.health = LOADING
    until(lambda: read_health(file) == LOADING, "it writes again")
