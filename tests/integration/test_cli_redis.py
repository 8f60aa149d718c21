"""The command line in processes of its own, over a real server."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import redis

from pipemill.client import Client
from pipemill.errors import InvalidInput
from pipemill.protocol import Outcome, decode_message, encode_failure, encode_success
from pipemill.store.base import Completion, Leased, QueueInfo
from pipemill.store.jobs import RedisJobStore
from tests.helpers import PATIENCE_SECONDS, until

QUEUE = "sentiment"
#: Nothing listens on this port: it is reserved, and no free port is ever so low.
NOBODY = "redis://127.0.0.1:1/0"

Command = list[str]


@pytest.fixture
def environment(broker_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What the processes get: the broker, and an empty working directory."""
    monkeypatch.chdir(tmp_path)
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PIPEMILL_")}
    return {**ours, "PIPEMILL_BROKER": broker_url}


def command(*arguments: str | Path) -> Command:
    """Build the command line of a process."""
    return [sys.executable, "-m", "pipemill", *map(str, arguments)]


def call(environment: dict[str, str], *arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end, which must be this one."""
    done = subprocess.run(
        command(*arguments), capture_output=True, text=True, env=environment, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == code, done.stderr
    return done


@contextmanager
def answering(url: str, function: Callable[[Any], Any]) -> Iterator[list[Any]]:
    """Answer the queue's jobs in a thread, one by one; gives the inputs started so far."""
    store = RedisJobStore(url, QUEUE)
    store.announce(QueueInfo(name=QUEUE, task="text-classification", max_depth=1000))
    stop, started, cancelled = threading.Event(), [], set()

    def run() -> None:
        while not stop.is_set():
            store.wait(0.05)
            taken = store.take(1)
            cancelled.update(taken.cancelled)
            for leased in taken.jobs:
                store.complete([end(leased)])
        store.close()

    def end(leased: Leased) -> Completion:
        job = decode_message(leased.raw, QUEUE)
        if job.id in cancelled:
            return Completion(field=leased.field, job_id=job.id, outcome=Outcome.CANCELLED)
        started.append(job.inputs)
        try:
            document, outcome = encode_success(job.id, function(job.inputs)), Outcome.SUCCEEDED
        except InvalidInput as error:
            document, outcome = encode_failure(job.id, error), Outcome.FAILED
        return Completion(field=leased.field, job_id=job.id, outcome=outcome, document=document)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield started
    finally:
        stop.set()
        thread.join()


def judge(text: str) -> list[dict[str, Any]]:
    """Answer as a pipeline might; refuse "bad"."""
    if text == "bad":
        raise InvalidInput("not this one")
    return [{"label": "POSITIVE", "score": 0.875}]


def announce(url: str) -> None:
    """Make the queue known, with nobody to answer it."""
    RedisJobStore(url, QUEUE).announce(QueueInfo(name=QUEUE, task="text-classification"))


def test_a_job_from_submit_to_result(environment: dict[str, str], broker_url: str) -> None:
    """Each command does its part for one job, in a process of its own."""
    announce(broker_url)
    job_id = call(environment, "submit", QUEUE, "Fine.", "-p", "top_k=1").stdout.strip()
    assert json.loads(call(environment, "status", job_id, "--json").stdout)["status"] == "queued"
    (report,) = json.loads(call(environment, "queues", "--json").stdout)
    assert (report["queue"], report["waiting"], report["totals"]) == (QUEUE, 1, {"enqueued": 1})
    with answering(broker_url, judge):
        assert json.loads(call(environment, "result", job_id, "--json").stdout)["result"] == judge("Fine.")
        shown = call(environment, "submit", QUEUE, "Fine.", "--wait").stdout
    assert shown.split() == ["label", "score", "POSITIVE", "0.875"]
    assert "already ended" in call(environment, "cancel", job_id).stdout


def test_exit_codes_of_real_processes(environment: dict[str, str], broker_url: str, tmp_path: Path) -> None:
    """What goes wrong ends the process with its documented code, and one line without a traceback."""
    announce(broker_url)
    (tmp_path / "wrong.yaml").write_text("queues: 1\n")
    waiting = call(environment, "submit", QUEUE, "a").stdout.strip()
    wrong = {
        2: [["nonsense"], ["submit", QUEUE], ["submit", QUEUE, "a", "--countdown", "-1"]],
        4: [["check", "wrong.yaml"], ["queues", "--broker", "http://x"]],
        5: [["queues", "--broker", NOBODY]],
        6: [["submit", "nobody", "a"]],
        7: [["result", waiting, "--timeout", "0"]],
        8: [["result", "nobody"], ["status", "nobody"], ["cancel", "nobody"]],
    }
    for code, calls in wrong.items():
        for arguments in calls:
            done = call(environment, *arguments, code=code)
            assert "Traceback" not in done.stderr
    with answering(broker_url, judge):
        call(environment, "submit", QUEUE, "bad", "--wait", code=3)


def test_inputs_too_large_are_refused(environment: dict[str, str], broker_url: str) -> None:
    """Inputs over the queue's limit end with 6, and nothing is stored."""
    announce(broker_url)
    done = subprocess.run(
        command("submit", QUEUE, "-", "--json"),
        input=b"x" * 2_000_000,
        capture_output=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 6
    assert json.loads(done.stderr)["error"]["type"] == "PayloadTooLarge"
    with Client(broker_url) as client:
        assert sum(client.queues()[0].waiting.values()) == 0


def test_the_option_goes_before_the_environment(environment: dict[str, str], broker_url: str) -> None:
    """--broker beats PIPEMILL_BROKER, which beats the catalogue."""
    Path("pipemill.yaml").write_text(f"broker: {NOBODY}\nqueues:\n  echo:\n    task: echo\n")
    call(environment, "queues")
    call({**environment, "PIPEMILL_BROKER": NOBODY}, "queues", "--broker", broker_url)
    call({**environment, "PIPEMILL_BROKER": NOBODY}, "queues", code=5)
    call({name: value for name, value in environment.items() if name != "PIPEMILL_BROKER"}, "queues", code=5)


@pytest.mark.parametrize("how", ["option", "variable", "directory"])
def test_queues_of_the_catalogue_need_no_worker(environment: dict[str, str], how: str) -> None:
    """A queue that the catalogue names takes jobs before any worker ever ran, however the catalogue is found."""
    name = "pipemill.yaml" if how == "directory" else "other.yaml"
    Path(name).write_text("queues:\n  echo:\n    task: echo\n")
    options = ["--catalogue", name] if how == "option" else []
    call(environment | ({"PIPEMILL_CATALOGUE": name} if how == "variable" else {}), "submit", "echo", "a", *options)
    (report,) = json.loads(call(environment, "queues", "--json").stdout)
    assert (report["queue"], report["waiting"]) == ("echo", 1)


def test_watch_ends_well(environment: dict[str, str], broker_url: str) -> None:
    """Ctrl-C is the normal end of --watch."""
    announce(broker_url)
    watch = command("queues", "--watch", "--json", "--interval", "0.1")
    with subprocess.Popen(watch, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        looks = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.send_signal(signal.SIGINT)
        assert process.wait() == 0
    assert [each["queue"] for look in looks for each in look] == [QUEUE] * 3


def lines_of(path: Path) -> list[bytes]:
    """The complete lines of a file that may not be there yet."""
    return (
        [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")] if path.exists() else []
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -9)])
def test_map_goes_on_after_an_interruption(
    environment: dict[str, str], broker_url: str, tmp_path: Path, number: int, code: int
) -> None:
    """A run that was stopped or killed leaves an output that the same command completes, each input once, in order."""
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    texts = [f"text {n}" for n in range(500)]
    source.write_text("".join(f"{json.dumps(text)}\n" for text in texts))
    arguments = ("map", QUEUE, source, target, "--window", "50")
    go_on = threading.Event()

    def hold_at_200(text: str) -> str:
        if text == "text 200":
            go_on.wait(PATIENCE_SECONDS)
        return text.upper()

    with answering(broker_url, hold_at_200) as started:
        with subprocess.Popen(command(*arguments), env=environment, stderr=subprocess.DEVNULL) as process:
            until(lambda: len(lines_of(target)) == 200, "200 answers are written")
            process.send_signal(number)
            assert process.wait() == code
        go_on.set()
        with target.open("ab") as file:
            file.write(b'{"index": 200, "resu')
        call(environment, *arguments)
    written = [json.loads(line) for line in lines_of(target)]
    assert written == [{"index": n, "result": text.upper()} for n, text in enumerate(texts)]
    twice = len(started) - len(texts)
    assert twice <= (1 if number != signal.SIGKILL else 50)


def test_map_shows_its_progress_on_a_terminal(environment: dict[str, str], broker_url: str, tmp_path: Path) -> None:
    """A terminal sees a bar with the number of lines and of failures; stdout stays clean."""
    source, target = tmp_path / "in.txt", tmp_path / "out.jsonl"
    source.write_text("a\nbad\nb\n")
    ours, theirs = pty.openpty()
    with answering(broker_url, judge):
        arguments = command("map", QUEUE, source, target, "--text")
        process = subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, stderr=theirs)
        os.close(theirs)
        seen = read_terminal(ours)
        assert process.communicate()[0] == b""
    assert process.returncode == 3
    assert f"{QUEUE}, 1 failed" in seen
    assert "3/3" in seen
    assert "3 done, 1 failed" in seen


def read_terminal(terminal: int) -> str:
    """What was written to a terminal until its other end was closed."""
    seen = b""
    with os.fdopen(terminal, "rb", buffering=0) as file, suppress(OSError):  # the end of a terminal is an error
        while part := file.read(4096):
            seen += part
    return seen.decode()


def test_map_outlives_a_full_queue(environment: dict[str, str], broker_url: str, tmp_path: Path) -> None:
    """A window larger than the queue may hold waits for room; nothing is lost."""
    source, target = tmp_path / "in.txt", tmp_path / "out.jsonl"
    source.write_text("".join(f"{n}\n" for n in range(300)))
    with answering(broker_url, lambda text: text):
        info = QueueInfo(name=QUEUE, task="text-classification", max_depth=10)
        RedisJobStore(broker_url, QUEUE).announce(info)
        done = call(environment, "map", QUEUE, source, target, "--text", "--json")
    assert json.loads(done.stderr) == {"lines": 300, "failed": 0, "resumed_at": 0}
    assert [json.loads(line)["result"] for line in lines_of(target)] == [str(n) for n in range(300)]


@contextmanager
def embedded(
    environment: dict[str, str], *options: str | Path
) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """Run the broker command until it is ready; gives the process and what it printed."""
    with subprocess.Popen(
        command("broker", "--json", "--port", "0", *options), env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


def is_alive(pid: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_broker_leaves_nothing_behind(environment: dict[str, str], tmp_path: Path, number: int) -> None:
    """Told to stop, it ends with 0, and neither its server nor a file stays."""
    with embedded({**environment, "TMPDIR": str(tmp_path)}) as (process, ready):
        with redis.Redis.from_url(ready["url"]) as client:
            assert client.set("a", "b")
        process.send_signal(number)
        assert process.wait() == 0
    assert not is_alive(ready["pid"])
    assert list(tmp_path.iterdir()) == []


def test_the_broker_keeps_a_folder(environment: dict[str, str], tmp_path: Path) -> None:
    """With a folder, what it holds is there after a restart."""
    for expected in (None, b"b"):
        with embedded(environment, "--folder", tmp_path / "kept") as (process, ready):
            with redis.Redis.from_url(ready["url"]) as client:
                assert client.get("a") == expected
                client.set("a", "b")
            process.send_signal(signal.SIGTERM)
            assert process.wait() == 0


def test_the_broker_notices_the_end_of_its_server(environment: dict[str, str]) -> None:
    """When the server is killed, the command ends as well, and says so."""
    with embedded(environment) as (process, ready):
        os.kill(ready["pid"], signal.SIGKILL)
        assert process.wait() == 5


def test_a_port_in_use_is_told(environment: dict[str, str], broker_url: str) -> None:
    """A second broker on the same port ends with 5."""
    port = broker_url.rpartition(":")[2].partition("/")[0]
    assert "port" in call(environment, "broker", "--port", port, code=5).stderr
