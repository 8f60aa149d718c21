"""The doctor over real servers: what it sees, what it may not see, and that it leaves nothing behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from click.testing import CliRunner

from pipemill import Client
from pipemill.cli import main
from pipemill.doctor import Finding, Verdict, examine
from pipemill.doctor.probe import look_at_broker
from pipemill.embedded import EmbeddedBroker
from pipemill.store.base import QueueInfo
from pipemill.store.jobs import RedisJobStore

SETTINGS = {
    "maxmemory-policy": "noeviction",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "timeout": "0",
    "maxmemory": "1000000000",
}
#: What these tests change, as it is by default.
DEFAULTS = {**SETTINGS, "appendonly": "no", "maxmemory": "0"}


@pytest.fixture(params=["valkey_server", "redis_server"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server as it should be, with nothing in it; no catalogue, and no checks of a worker's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PIPEMILL_CATALOGUE", raising=False)
    monkeypatch.setattr("pipemill.doctor.examination.entry_points", lambda **_: [])
    found: str = request.getfixturevalue(request.param)
    with redis.Redis.from_url(found) as admin:
        admin.flushall()
        for name, value in SETTINGS.items():
            admin.config_set(name, value)
        yield found
        for name, value in DEFAULTS.items():
            admin.config_set(name, value)


@pytest.fixture
def admin(url: str) -> Iterator[redis.Redis]:
    """Who may do everything on it."""
    with redis.Redis.from_url(url) as client:
        yield client


def verdicts(url: str, catalogue: Path | None = None) -> dict[str, Finding]:
    """The broker's findings by name."""
    findings = [finding for finding in examine(url, catalogue) if finding.area == "broker"]
    return {name: finding for finding in findings for name in finding.name.split(", ")}


@contextmanager
def user(admin: redis.Redis, url: str, *rules: str) -> Iterator[str]:
    """The URL of a user with these rights only."""
    admin.execute_command("ACL", "SETUSER", "limited", "reset", "on", ">word", *rules)
    try:
        yield url.replace("redis://", "redis://limited:word@")
    finally:
        admin.execute_command("ACL", "DELUSER", "limited")


def test_a_server_as_it_should_be(url: str, admin: redis.Redis) -> None:
    """All is ok on a real server, and the doctor leaves no key behind."""
    findings = verdicts(url)
    assert {name: finding.verdict for name, finding in findings.items() if finding.verdict is not Verdict.OK} == {}
    assert len(findings) == 13
    assert admin.dbsize() == 0


@pytest.mark.parametrize(
    ("setting", "name", "verdict"),
    [
        (("maxmemory-policy", "allkeys-lru"), "eviction", Verdict.PROBLEM),
        (("appendonly", "no"), "append-only", Verdict.PROBLEM),
        (("appendfsync", "no"), "appendfsync", Verdict.WARNING),
        (("timeout", "600"), "timeout", Verdict.WARNING),
        (("maxmemory", "0"), "memory", Verdict.WARNING),
    ],
)
def test_each_setting_that_is_wrong_is_told(
    url: str, admin: redis.Redis, setting: tuple[str, str], name: str, verdict: Verdict
) -> None:
    """It is the only finding that isn't ok, but for what depends on it; it names the setting and the mend."""
    admin.config_set(*setting)
    findings = verdicts(url)
    assert findings[name].verdict is verdict
    assert findings[name].mend
    wrong = {each for each, finding in findings.items() if finding.verdict in {Verdict.WARNING, Verdict.PROBLEM}}
    assert wrong == {name}


def test_a_replica_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever names a replica hears that it takes no jobs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pipemill.doctor.examination.entry_points", lambda **_: [])
    with EmbeddedBroker() as primary, EmbeddedBroker() as replica, redis.Redis.from_url(replica.url) as admin:
        host, port = primary.url.removeprefix("redis://").removesuffix("/0").split(":")
        admin.replicaof(host, port)
        assert verdicts(replica.url)["role"].verdict is Verdict.PROBLEM


def test_what_a_server_does_not_tell_is_skipped(url: str, admin: redis.Redis) -> None:
    """Where CONFIG and INFO are forbidden, as services do, that is said, and is no fault."""
    with user(admin, url, "~*", "&*", "+@all", "-config", "-info") as limited:
        findings = verdicts(limited)
    skipped = {name for name, finding in findings.items() if finding.verdict is Verdict.SKIPPED}
    assert {"version", "eviction", "timeout", "memory"} <= skipped
    assert {finding.verdict for finding in findings.values()} == {Verdict.OK, Verdict.SKIPPED}
    assert findings["rights"].verdict is Verdict.OK


def test_a_command_that_is_forbidden_is_named(url: str, admin: redis.Redis) -> None:
    """What only workers need is a warning, what producers need a problem; nothing of it was run."""
    with user(admin, url, "~*", "&*", "+@all", "-hkeys", "-blmove") as limited:
        finding = verdicts(limited)["rights"]
    assert finding.verdict is Verdict.WARNING
    assert finding.seen.endswith("workers need also BLMOVE, HKEYS")
    with user(admin, url, "~*", "&*", "+@all", "-lpush", "-hget") as limited:
        finding = verdicts(limited)["rights"]
    assert finding.verdict is Verdict.PROBLEM
    assert {"HGET", "LPUSH"} <= set(finding.seen.replace(",", "").split())
    assert admin.dbsize() == 0


def test_keys_that_are_forbidden_are_named(url: str, admin: redis.Redis, tmp_path: Path) -> None:
    """A user that may not touch results, or a queue's lists, hears which keys it lacks."""
    catalogue = tmp_path / "my.yaml"
    catalogue.write_text("queues: {words: {task: echo}, other: {task: echo}}", "utf-8")
    with user(admin, url, "~pipemill:[njq]*", "~*words*", "&*", "+@all") as limited:
        finding = verdicts(limited, catalogue)["rights"]
    assert finding.verdict is Verdict.PROBLEM
    lacking = ["keys celery-task-meta-*", "keys other and its lists", "keys pipemill:*:other"]
    assert all(keys in finding.seen for keys in lacking)
    assert "words" not in finding.seen


def test_a_workers_narrow_user_has_what_it_needs(url: str, admin: redis.Redis, tmp_path: Path) -> None:
    """A user that has only the keys of its queue, and no administrator's command, is enough for a worker."""
    catalogue = tmp_path / "my.yaml"
    catalogue.write_text("queues: {words: {task: echo}}", "utf-8")
    keys = ["words*", "pipemill:*:words", "pipemill:*:words|*", "celery-task-meta-*", "pipemill:job:*", "pipemill:none"]
    kinds = ("read", "write", "string", "hash", "list", "sortedset", "pubsub", "scripting", "transaction")
    rules = [*(f"~{key}" for key in keys), "&celery-task-meta-*", *(f"+@{kind}" for kind in kinds), "+ping", "+time"]
    with user(admin, url, *rules, "-@dangerous") as limited:
        findings = verdicts(limited, catalogue)
    assert findings["rights"].verdict is Verdict.OK, findings["rights"].seen
    assert findings["clock"].verdict is Verdict.OK
    assert findings["eviction"].verdict is Verdict.SKIPPED


def test_channels_that_are_forbidden_are_named(url: str, admin: redis.Redis) -> None:
    """Results are published: whoever may not hear them is told."""
    with user(admin, url, "~*", "resetchannels", "+@all") as limited:
        finding = verdicts(limited)["rights"]
    assert finding.verdict is Verdict.PROBLEM
    assert "SUBSCRIBE" in finding.seen


def test_rights_cannot_be_told_without_transactions(url: str, admin: redis.Redis) -> None:
    """A user that may not use MULTI isn't judged by it."""
    with user(admin, url, "~*", "&*", "+@all", "-multi") as limited:
        assert verdicts(limited)["rights"].verdict is Verdict.SKIPPED


def test_a_wrong_password_is_a_problem_without_it(url: str) -> None:
    """What the server refuses is told, and the password isn't."""
    findings = examine(url.replace("redis://", "redis://nobody:secret@"))
    assert findings[-1].verdict is Verdict.PROBLEM
    assert "secret" not in str(findings)


def test_the_servers_clock_is_ours(url: str) -> None:
    """On one machine the clocks are one: what is measured is within what is in doubt, and a little more."""
    clock = look_at_broker(url, ()).clock
    assert clock is not None
    assert abs(clock.ahead) <= clock.within + 0.5


def test_queues_without_lanes_are_told(url: str, tmp_path: Path) -> None:
    """Jobs that nobody takes are a problem; a lane that reports ends it."""
    catalogue = tmp_path / "my.yaml"
    catalogue.write_text("queues: {words: {task: echo}}", "utf-8")

    def words() -> Finding:
        return next(finding for finding in examine(url, catalogue) if finding.area == "queues")

    assert words().verdict is Verdict.WARNING
    with Client(url, catalogue=catalogue) as client:
        client.submit("words", "hello")
        assert words().verdict is Verdict.PROBLEM
        store = RedisJobStore(url, "words")
        store.report({"paused": False})
        assert words().verdict is Verdict.OK
        store.announce(QueueInfo(name="words", task="fill-mask"))
        assert "fill-mask" in words().seen
        store.close()


def test_the_command_over_a_real_server(url: str, admin: redis.Redis) -> None:
    """0 while nothing is a problem, 9 once there is one; JSON says the same."""

    def call(*arguments: str) -> Any:
        return CliRunner().invoke(main, ["doctor", "--broker", url, *arguments])

    assert call().exit_code == 0, call().stdout
    admin.config_set("maxmemory-policy", "allkeys-lru")
    done = call("--json")
    assert done.exit_code == 9
    wrong = [check for check in json.loads(done.stdout)["checks"] if check["verdict"] == "problem"]
    assert [(check["name"], check["mend"]) for check in wrong] == [("eviction", "set maxmemory-policy noeviction")]
