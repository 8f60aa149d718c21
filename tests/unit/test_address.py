"""A broker's address: its URL taken apart, its password found, and shown nowhere."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest

from pipemill.address import Address, address_of, redact
from pipemill.catalogue import find_mistakes
from pipemill.errors import ConfigurationError
from pipemill.store.connection import connect, connect_async
from pipemill.store.queues import RedisQueueStore

SECRET = "hunter2"  # noqa: S105  # no secret, the word that must not show

#: URL; what is left of it; user; password.
URLS = [
    ("redis://localhost:6379/0", "redis://localhost:6379/0", "", None),
    ("redis://:%68unter2@h:6379/1", "redis://h:6379/1", "", SECRET),
    ("rediss://me:hunter2@h:6380", "rediss://h:6380", "me", SECRET),
    ("redis://me:hunter2@h/0?max_connections=5", "redis://h/0?max_connections=5", "me", SECRET),
    ("redis://h/0?username=me&password=hunter2&db=1", "redis://h/0?db=1", "me", SECRET),
    ("unix:///run/redis.sock?db=1", "unix:///run/redis.sock?db=1", "", None),
    ("unix://me:hunter2@/run/redis.sock", "unix:///run/redis.sock", "me", SECRET),
    ("redis://:hunter2@[::1]:6379/0", "redis://[::1]:6379/0", "", SECRET),
]

#: URL, and what is said of it.
WRONG = [
    ("redis://h/0?ssl_ca_certs=ca.pem", "options of TLS"),
    ("rediss://h/0?ssl_cert_reqs=none", "always checked"),
    ("rediss://h/0?ssl_password=hunter2", "isn't taken"),
    ("rediss://h/0?ssl_check_hostname=no", "neither true nor false"),
    ("rediss://h/0?ssl_keyfile=key.pem", "without its certificate"),
    ("redis://me:hunter2@h/0?password_file=x", "give one of them"),
    ("redis://:hunter2@[h", "can't be read"),
]


@pytest.mark.parametrize(("url", "bare", "user", "password"), URLS)
def test_a_url_is_taken_apart(url: str, bare: str, user: str, password: str | None) -> None:
    """What a connection is opened with has neither user nor password; both are given apart."""
    address = address_of(url, {})
    assert (address.url, address.user, address.password) == (bare, user, password)
    assert address.credentials() == ((user, password) if user else (password,) if password else None)
    assert address_of(address) is address


@pytest.mark.parametrize("url", [url for url, *_ in URLS])
def test_nothing_that_holds_an_address_shows_the_password(url: str) -> None:
    """Neither its text and representation, nor those of clients, pools and stores."""
    address = address_of(url, {})
    store = RedisQueueStore(url)
    held: list[Any] = [address, store, store.url, vars(store), connect(url), connect(url).connection_pool]
    held += [connect_async(url), connect_async(url).connection_pool, connect(url).connection_pool.connection_kwargs]
    for each in held:
        assert SECRET not in f"{each}{each!r}"


@pytest.mark.parametrize(("url", "problem"), WRONG)
def test_a_wrong_url_is_told_without_its_password(url: str, problem: str) -> None:
    """What can't be right is refused with what to do, by clients and, where it can tell, by the catalogue's check."""
    with pytest.raises(ConfigurationError, match=problem) as caught:
        connect(url)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(("url", "problem"), WRONG)
def test_a_wrong_url_in_a_catalogue_is_a_mistake(tmp_path: Path, url: str, problem: str) -> None:
    """`pipemill check` tells it with a mend."""
    file = tmp_path / "pipemill.yaml"
    file.write_text(f"broker: '{url}'\nqueues: {{q: {{task: echo}}}}\n", "utf-8")
    (mistake,) = find_mistakes(file, environ={})
    assert mistake.path == "broker"
    assert problem in str(mistake)
    assert SECRET not in repr(mistake)


def test_tls_is_checked_unless_told_otherwise() -> None:
    """A TLS connection asks for a certificate of a known CA and for the host's name; only that can be left out."""
    assert address_of("redis://h", {}).tls == {}
    assert address_of("rediss://h", {}).tls == {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
    given = address_of("rediss://h/0?ssl_check_hostname=False&ssl_ca_certs=%2Fetc%2Fca.pem", {})
    assert given.tls == {"ssl_cert_reqs": "required", "ssl_check_hostname": False, "ssl_ca_certs": "/etc/ca.pem"}
    assert given.url == "rediss://h/0"


def test_a_file_of_tls_that_is_not_there_is_told() -> None:
    """A missing file is no broker that is away."""
    with pytest.raises(ConfigurationError, match=r"ssl_ca_certs of the broker's URL is '/nowhere/ca\.pem'"):
        connect("rediss://h/0?ssl_ca_certs=/nowhere/ca.pem")


def test_a_password_comes_from_the_environment_for_a_url_that_names_a_user_and_none(tmp_path: Path) -> None:
    """From a variable or from the file it names; a URL with a password of its own, or without a user, is left alone."""
    file = tmp_path / "password"
    file.write_text("from file\n", "utf-8")
    variable, named = {"PIPEMILL_BROKER_PASSWORD": "given"}, {"PIPEMILL_BROKER_PASSWORD_FILE": str(file)}
    assert address_of("redis://me@h", variable).credentials() == ("me", "given")
    assert address_of("redis://me@h", named).credentials() == ("me", "from file")
    assert address_of("redis://me:hunter2@h", variable).credentials() == ("me", SECRET)
    assert address_of("redis://h", variable).credentials() is None
    assert address_of("redis://me@h", {}).credentials() == ("me", "")
    assert "given" not in repr(address_of("redis://me@h", variable))
    with pytest.raises(ConfigurationError, match="unset one of them"):
        address_of("redis://me@h", variable | named)


def test_a_password_file_is_read_again_each_time(tmp_path: Path) -> None:
    """A password can be changed under running processes."""
    file = tmp_path / "password"
    file.write_text("old\n", "utf-8")
    address = address_of(f"redis://me@h/0?password_file={file}", {"PIPEMILL_BROKER_PASSWORD": "not this"})
    assert address.credentials() == ("me", "old")
    file.write_text("new", "utf-8")
    assert address.credentials() == ("me", "new")


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff\xfe"])
def test_an_unusable_password_file_is_told_at_once(tmp_path: Path, content: bytes | None) -> None:
    """A file that is absent, empty or no text is named when a client is opened."""
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError, match="password file"):
        connect(f"redis://h/0?password_file={file}")


@pytest.mark.parametrize(
    ("url", "database"),
    [("redis://h", 0), ("redis://h/3", 3), ("redis://h/3?db=4", 4), ("unix:///run/r.sock?db=2", 2), ("unix:///9", 0)],
)
def test_the_database_is_told(url: str, database: int) -> None:
    """It is part of the names of Celery's channels."""
    assert address_of(url, {}).database == database


def test_an_address_is_a_value() -> None:
    """Equal URLs make equal addresses; what is shown is the redacted URL."""
    one, other = address_of("rediss://me:hunter2@h", {}), address_of("rediss://me:hunter2@h", {})
    assert one == other
    assert hash(one) == hash(other)
    assert str(one) == one.shown == redact("rediss://me:hunter2@h") == "rediss://me:***@h"
    assert isinstance(one, Address)
