"""acl."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from pipemill.store.acl import Role, rules
from tests.unit.cli.conftest import Run


@pytest.fixture(autouse=True)
def catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A catalogue in the working directory, and no settings in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in ("PIPEMILL_BROKER", "PIPEMILL_CATALOGUE"):
        monkeypatch.delenv(name, raising=False)
    Path("pipemill.yaml").write_text("broker: redis://h/2\nqueues: {b: {task: echo}, a: {task: echo}}", "utf-8")


@pytest.mark.parametrize("role", Role)
def test_rules_are_a_command(run: Run, role: Role) -> None:
    """All queues of the catalogue and its database count, unless they are named."""
    done = run("acl", role.value)
    assert done.exit_code == 0
    assert done.stdout == f"ACL SETUSER pipemill-{role} {' '.join(rules(role, ['a', 'b'], database=2))}\n"
    named = run("acl", role.value, "c", "--user", "me", "--broker", "redis://h", "--acl-file")
    assert named.stdout == f"user me {' '.join(rules(role, ['c']))}\n"


def test_a_password_is_written_as_its_hash(run: Run) -> None:
    """Neither the password nor its file's content is printed."""
    Path("password").write_text("hunter2\n", "utf-8")
    told = json.loads(run("acl", "producer", "a", "--password-file", "password", "--json").stdout)
    assert told["rules"][:3] == ["on", "resetpass", f"#{hashlib.sha256(b'hunter2').hexdigest()}"]
    assert "hunter2" not in str(told)


def test_what_a_producer_needs_is_asked_for(run: Run) -> None:
    """It may be one that can't cancel, or one that is a plain Celery client."""
    plain, careful, celery = (
        run("acl", "producer", "a", *more).stdout for more in ((), ("--no-cancel",), ("--celery",))
    )
    assert len(careful) < len(plain) < len(celery)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("producer", "a*"), "not a queue's name"),
        (("producer", "a", "--user", "two words"), "letters, digits"),
        (("admin", "a"), "'admin' is not one of"),
    ],
)
def test_what_would_be_another_rule_is_refused(run: Run, arguments: tuple[str, ...], said: str) -> None:
    """A name can't bring rules or patterns of its own."""
    done = run("acl", *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in done.stderr
