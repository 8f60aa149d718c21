"""A real worker behind TLS, users with least privilege, passwords in files, and signatures."""

from __future__ import annotations

import secrets
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import quote

import orjson
import pytest
import redis

from pipemill import Client, JobStatus, SignatureRefused
from pipemill.protocol import encode_arguments, encode_message, names
from pipemill.store.acl import Role
from tests.certificates import Authority, need, tls_server
from tests.e2e.rig import ROOT, Process, Serve, freeze_at_work, operator, report_on
from tests.helpers import until
from tests.users import PASSWORD, denied, url_as, users

ECHO = "worker: {lease_seconds: 2}\nqueues: {echo: {task: echo, batch: {max_items: 1}, prefetch: 8}}"
#: What the demo does, and the queues of its catalogue.
DEMO = ROOT / "config/demo.yaml"
DEMO_QUEUES = ("sentiment", "generator")
CELERY = ("celery", "-A", "pipemill_worker.app")


@pytest.fixture
def secured(tmp_path: Path, broker_url: str) -> Iterator[Serve]:
    """Starts workers that sign in as the worker's user."""
    serving = Serve(tmp_path, url_as(broker_url, Role.WORKER))
    yield serving
    serving.end()


def test_the_demo_runs_with_least_privilege(secured: Serve, broker_url: str) -> None:
    """What the demo sends is answered, and the broker has refused nothing to either side."""
    with users(broker_url, *DEMO_QUEUES) as admin:
        secured(DEMO)
        with Client(url_as(broker_url, Role.PRODUCER)) as client:
            assert client.run("sentiment", "A warm, funny film.", timeout=60)[0]["label"] == "POSITIVE"
            assert len(list(client.map("sentiment", [f"Line {n}." for n in range(200)], timeout=60))) == 200
            assert client.run("generator", "The film is", timeout=60)[0]["generated_text"].startswith("The film is")
            jobs = client.submit_many("sentiment", ["Good.", "Bad."], countdown=0.2)
            assert [result.status for result in client.results(jobs, timeout=60)] == [JobStatus.SUCCEEDED] * 2
            parked = client.submit("sentiment", "Later.", countdown=3600)
            assert parked.cancel() is True
            assert {report.info.name for report in client.queues()} == set(DEMO_QUEUES)
        assert denied(admin) == set()


def test_workers_take_over_with_least_privilege(secured: Serve, broker_url: str) -> None:
    """After kill -9 another worker reaps and ends the jobs; large inputs and answers pass; nothing is refused."""
    with users(broker_url, "echo") as admin:
        worker = secured(ECHO)
        with Client(url_as(broker_url, Role.PRODUCER)) as client:
            texts = [f"text {n}" for n in range(2_000)]
            jobs = freeze_at_work(worker, client, "echo", lambda: client.submit_many("echo", texts))
            worker.kill()
            secured(ECHO)
            assert [result.get() for result in client.results(jobs, timeout=120)] == texts
            assert client.run("echo", "x" * 200_000, timeout=60) == "x" * 200_000
        assert denied(admin) == set()


def test_remote_control_with_least_privilege(secured: Serve, broker_url: str) -> None:
    """Inspect, revoke, pause, shut down: by the worker's user, with nothing refused; and Celery's event monitor."""
    with users(broker_url, "echo") as admin, operator(secured.broker) as app:
        worker = secured(ECHO)
        inspect = app.control.inspect(timeout=1, limit=1)
        assert until(inspect.ping, "the worker answers")
        for asking in (inspect.stats, inspect.active, inspect.reserved, inspect.active_queues, inspect.conf):
            assert until(asking, "the worker answers")
        with Client(url_as(broker_url, Role.PRODUCER)) as client:
            parked = client.submit("echo", "text", countdown=2)
            app.control.revoke(parked.id)
            assert until(lambda: client.status(parked.id) is JobStatus.CANCELLED, "the revoked job ends")
        assert app.control.cancel_consumer("echo", reply=True, timeout=10, limit=1)
        app.control.shutdown()
        assert worker.wait() == 0
        assert denied(admin) == set()


#: Times that a slow machine's worker is asked.
_ATTEMPTS: Final = 8


def asked(serve: Serve, *command: str, **environment: str) -> str:
    """What a command prints that ends well; one that no worker answered in time asks again."""
    for _ in range(_ATTEMPTS):
        process = serve.run(*command, **environment)
        if process.wait() == 0 or "No nodes replied" not in process.output():
            break
    assert process.wait() == 0, process.output()
    return process.output()


def in_file(serve: Serve, password: str) -> Path:
    """Write the password's file."""
    file = serve.folder / "password"
    file.write_text(f"{password}\n", "utf-8")
    return file


def test_no_output_of_a_worker_shows_its_password(tmp_path: Path, broker_url: str) -> None:
    """Neither its log at the most talkative level, nor what Celery tells of its settings, nor processes' arguments."""
    url = broker_url.replace("://", "://worker@")
    serving = Serve(tmp_path, url)
    try:
        with users(broker_url, "echo"):
            catalogue = serving.catalogue(ECHO)
            variables = {"PIPEMILL_BROKER_PASSWORD_FILE": str(in_file(serving, PASSWORD))}
            worker = serving.start(catalogue, "--loglevel", "DEBUG", **variables)
            worker.until(lambda: "ready." in worker.output(), "the worker is ready")
            variables["PIPEMILL_CATALOGUE"] = str(catalogue)
            told = [
                asked(serving, *CELERY, "inspect", "--timeout", "2", what, **variables)
                for what in ("conf", "report", "stats")
            ]
            told += [asked(serving, *CELERY, "report", **variables), asked(serving, "pipemill", "queues", **variables)]
            assert all("echo" in each for each in (told[0], told[4]))
            told += [Path(f"/proc/{pid}/cmdline").read_text() for pid in worker.family()]
            assert worker.stop() == 0
            for shown in (*told, worker.output()):
                assert PASSWORD not in shown
                assert quote(PASSWORD, safe="") not in shown
    finally:
        serving.end()


def test_a_password_in_the_url_is_not_shown_either(secured: Serve, broker_url: str) -> None:
    """Wherever it came from, Celery's settings never hold it."""
    with users(broker_url, "echo"):
        worker = secured.start(ECHO, "--loglevel", "DEBUG")
        worker.until(lambda: "ready." in worker.output(), "the worker is ready")
        with operator(secured.broker) as app:
            conf = until(app.control.inspect(timeout=1, limit=1).conf, "the worker answers")
        assert worker.stop() == 0
        for shown in (worker.output(), str(conf)):
            assert PASSWORD not in shown
            assert quote(PASSWORD, safe="") not in shown


def test_a_password_is_changed_under_a_running_worker(tmp_path: Path, broker_url: str) -> None:
    """New connections, Celery's too, sign in with what the file says by then; no job is lost over it."""
    serving = Serve(tmp_path, broker_url)
    try:
        with users(broker_url, "echo") as admin, Client(broker_url) as client:
            file = in_file(serving, PASSWORD)
            url = broker_url.replace("://", "://worker@")
            worker = serving(ECHO, PIPEMILL_BROKER=f"{url}?password_file={file}")
            assert client.run("echo", "before", timeout=60) == "before"
            changed = secrets.token_urlsafe(16)
            admin.execute_command("ACL", "SETUSER", Role.WORKER, f"<{PASSWORD}", f">{changed}")
            in_file(serving, changed)
            admin.execute_command("CLIENT", "KILL", "USER", Role.WORKER)
            assert client.run("echo", "after", timeout=60) == "after"
            with operator(broker_url) as app:
                assert until(app.control.inspect(timeout=1, limit=1).ping, "the worker answers")
            assert worker.stop() == 0
    finally:
        serving.end()


def test_a_wrong_password_ends_nothing_in_silence(tmp_path: Path, broker_url: str) -> None:
    """A worker that isn't let in says so, and what to see to; a missing file ends it with 4 before it loads a model."""
    serving = Serve(tmp_path, broker_url.replace("://", "://worker:wrong@"))
    try:
        with users(broker_url, "echo"):
            worker = serving.start(ECHO)
            worker.until(lambda: "invalid username-password pair" in worker.output(), "the worker says what is wrong")
            assert "wrong@" not in worker.output()
            absent = serving.start(ECHO, PIPEMILL_BROKER=f"{broker_url}?password_file=/nowhere/password")
            assert absent.wait() == 4
            assert "the broker's password file '/nowhere/password' can't be read" in absent.output()
            assert "Traceback" not in absent.output()
    finally:
        serving.end()


def test_a_worker_speaks_tls(tmp_path: Path) -> None:
    """With a CA and a client certificate in its broker's URL: jobs are answered, Celery's remote control works."""
    need("redis-server", "openssl")
    authority = Authority(tmp_path / "ca")
    certificate, key = authority.sign("client")
    with tls_server(authority, tmp_path, asks_clients=True) as port:
        files = f"ssl_ca_certs={authority.ca}&ssl_certfile={certificate}&ssl_keyfile={key}"
        serving = Serve(tmp_path, f"rediss://localhost:{port}/0?{files}")
        try:
            catalogue = serving.catalogue(ECHO)
            worker = serving(catalogue)
            with Client(serving.broker) as client:
                assert client.run("echo", "x" * 100_000, timeout=60) == "x" * 100_000
            told = asked(serving, *CELERY, "inspect", "--timeout", "2", "ping", PIPEMILL_CATALOGUE=str(catalogue))
            assert "pong" in told
            assert worker.stop() == 0
        finally:
            serving.end()


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A file with a signing key."""
    file = tmp_path / "keys"
    file.write_text(f"acme-1 {secrets.token_urlsafe(32)}\n", "utf-8")
    return file


@pytest.fixture
def signed(serve: Serve, keys: Path) -> Process:
    """A worker that takes signed jobs only."""
    return serve(f"signing: {{keys_file: {keys}}}\n{ECHO}")


@pytest.mark.usefixtures("signed")
def test_signed_jobs_are_answered_and_others_refused(serve: Serve, keys: Path, broker: redis.Redis) -> None:
    """Jobs of clients with the key are answered, whatever their size; without it, or changed underway, they fail."""
    with Client(serve.broker, signing_keys=keys) as client, Client(serve.broker) as stranger:
        jobs = client.submit_many("echo", ["one", "x" * 100_000])
        refused = stranger.submit("echo", "unsigned")
        assert [result.get() for result in client.results(jobs, timeout=60)] == ["one", "x" * 100_000]
        assert list(client.map("echo", ["two", "three"], timeout=60)) == ["two", "three"]
        with pytest.raises(SignatureRefused, match="takes signed jobs only"):
            refused.result(timeout=60)
        parked = client.submit("echo", "mine", countdown=3600)
        until(lambda: broker.zcard(names.delayed_key("echo")), "the job is parked")
        forged = orjson.loads(broker.zrange(names.delayed_key("echo"), 0, -1)[0].partition(b"|")[2])
        assert parked.cancel()
        forged["headers"] |= {"id": "forged", "eta": None}
        broker.lpush("echo", orjson.dumps(forged))
        until(lambda: broker.exists(names.result_key("forged")), "the forged job ends")
        with pytest.raises(SignatureRefused, match="isn't what was signed"):
            client.job("forged").result(timeout=0)
        until(
            lambda: [each["refused_signatures"] for each in report_on(client, "echo").lanes.values()] == [2], "counted"
        )


@pytest.mark.usefixtures("signed")
def test_keys_are_changed_under_running_workers(serve: Serve, keys: Path) -> None:
    """A new key is known as soon as the workers' file has it, and an old one no longer once it is taken out."""
    old = keys.read_text("utf-8")
    theirs = keys.with_name("theirs")
    theirs.write_text(f"acme-2 {secrets.token_urlsafe(32)}", "utf-8")
    with Client(serve.broker, signing_keys=theirs) as client:
        with pytest.raises(SignatureRefused, match="knows the key 'acme-2'"):
            client.run("echo", "too soon", timeout=60)
        keys.write_text(old + theirs.read_text("utf-8"), "utf-8")
        assert client.run("echo", "now", timeout=60) == "now"
        keys.write_text(old, "utf-8")
        with pytest.raises(SignatureRefused, match="knows the key 'acme-2'"):
            client.run("echo", "no more", timeout=60)


@pytest.mark.usefixtures("signed")
def test_a_plain_celery_client_can_sign(serve: Serve, keys: Path) -> None:
    """By the recipe; what follows its job in a chain is signed by the worker, with the same key."""
    told = serve.folder / "told.json"
    script = str(Path(__file__).with_name("signing_client.py"))
    process = serve.run(sys.executable, script, str(told), KEYS=str(keys), BROKER=serve.broker)
    assert process.wait() == 0, process.output()
    assert orjson.loads(told.read_bytes()) == {"one": "one", "chain": "chained"}


def test_a_worker_without_keys_does_not_take_what_has_to_be_signed(serve: Serve) -> None:
    """It ends with 4 and says where keys come from."""
    worker = serve.start(f"signing: {{}}\n{ECHO}")
    assert worker.wait() == 4
    assert "set signing.keys_file in the catalogue" in worker.output()


def test_a_follow_up_that_the_broker_refuses_fails_its_job_alone(secured: Serve, broker_url: str) -> None:
    """A link to a queue that isn't the worker's, or to what is no queue at all, doesn't hold up its neighbours."""
    with users(broker_url, "echo"), redis.Redis.from_url(broker_url) as anybody:
        worker = secured(ECHO)
        with Client(broker_url) as client:
            for number, queue in enumerate(("theirs", names.QUEUES_KEY, "a-hash")):
                anybody.hset("a-hash", "field", "value")
                linked = orjson.loads(encode_message(f"linked {number}", "echo", encode_arguments("text", {})))
                link = {"task": names.TASK_NAME, "args": [], "kwargs": {}, "options": {"queue": queue}}
                body = [["text"], {}, {"callbacks": [link], "errbacks": None, "chain": None, "chord": None}]
                linked["body"], linked["properties"]["body_encoding"] = orjson.dumps(body).decode(), None
                anybody.lpush("echo", orjson.dumps(linked))
                ended = partial(anybody.exists, names.result_key(f"linked {number}"))
                until(ended, "the job ends")
                assert client.status(f"linked {number}") is JobStatus.FAILED
            assert client.run("echo", "neighbour", timeout=60) == "neighbour"
        assert worker.stop(signal.SIGTERM) == 0
