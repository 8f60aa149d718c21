"""The broker's URL: what is one, and that its password shows nowhere."""

from __future__ import annotations

import copy
import pickle
import traceback
from pathlib import Path

import pytest

from pipemill.catalogue import BrokerUrl, Catalogue, find_mistakes, load_catalogue, resolve_broker
from pipemill.errors import CatalogueError, ConfigurationError

SECRET = "hunter2"  # noqa: S105 - no secret, the word that must not show

#: URL as given, and as shown.
URLS = [
    ("redis://localhost:6379/0", "redis://localhost:6379/0"),
    ("redis://localhost", "redis://localhost"),
    ("redis://:hunter2@h:6379/0", "redis://:***@h:6379/0"),
    ("rediss://user:hunter2@h:6380", "rediss://user:***@h:6380"),
    ("redis://hunter2@h", "redis://***@h"),
    ("redis://:p%2Fhunter2@h", "redis://:***@h"),
    ("unix:///run/redis.sock?db=1", "unix:///run/redis.sock?db=1"),
    ("unix://user:hunter2@/run/redis.sock", "unix://user:***@/run/redis.sock"),
    ("redis://h/0?password=hunter2&db=1", "redis://h/0?password=***&db=1"),
    ("redis://[::1]:6379/0", "redis://[::1]:6379/0"),
]

#: What is no broker, each with a password in it; and what is said of it.
WRONG = [
    ("http://:hunter2@h", "not a redis://, rediss:// or unix:// URL"),
    ("sentinel://:hunter2@h", "not a redis://, rediss:// or unix:// URL"),
    (":hunter2@h", "not a redis://, rediss:// or unix:// URL"),
    ("redis://:hunter2@", "no host in the URL"),
    ("redis://:hunter2@h:port", "the host or the port can't be read"),
    ("redis://:hunter2@h:70000", "the host or the port can't be read"),
    ("redis://:hunter2/x@h", "the host or the port can't be read"),
    ("redis://:hunter2@[h", "the host or the port can't be read"),
    ("redis://:hunter2@h/jobs", "the part after the host is not the number of a database"),
    ("redis://:hunter2 @h", "a space or an unprintable character in the URL"),
    ("redis://:x@h/0#hunter2", "a # in the URL"),
    ("unix://:hunter2@", "a unix:// URL without the socket's path"),
]


def write(folder: Path, broker: str) -> Path:
    """Write a catalogue with this broker."""
    file = folder / "pipemill.yaml"
    file.write_text(f"broker: '{broker}'\nqueues: {{q: {{task: echo}}}}\n", encoding="utf-8")
    return file


@pytest.mark.parametrize(("url", "shown"), URLS)
def test_url_is_kept_and_its_password_hidden(url: str, shown: str) -> None:
    """A URL is revealed on request only; its text, representation and format show no password."""
    broker = BrokerUrl(url)
    assert broker.reveal() == url
    assert str(broker) == f"{broker}" == shown
    assert SECRET not in repr(broker)


@pytest.mark.parametrize("url", [url for url, _ in URLS])
def test_catalogue_never_shows_the_password(tmp_path: Path, url: str) -> None:
    """No text, dump or JSON of a catalogue holds its broker's password, while the broker itself still does."""
    catalogue = load_catalogue(write(tmp_path, url), environ={})
    texts = [str(catalogue), repr(catalogue), str(catalogue.model_dump()["broker"]), catalogue.model_dump_json()]
    assert all(SECRET not in text for text in texts)
    assert catalogue.broker.reveal() == url


@pytest.mark.parametrize(("url", "problem"), WRONG)
def test_wrong_url_is_told_without_its_password(tmp_path: Path, url: str, problem: str) -> None:
    """A wrong URL is a mistake with a mend, in the file and in the environment; nothing shows its password."""
    file = write(tmp_path, url)
    found = find_mistakes(file, environ={"PIPEMILL_BROKER": url}, overrides={"broker": url})
    assert [each.path for each in found] == ["broker", "--broker", "PIPEMILL_BROKER"]
    assert {each.problem for each in found} == {problem}
    assert all(each.mend and SECRET not in repr(each) for each in found)


@pytest.mark.parametrize(("url", "problem"), WRONG)
def test_errors_hold_no_password(tmp_path: Path, url: str, problem: str) -> None:
    """Neither an error's text nor its traceback's shows the password, whichever way the URL came."""
    file = write(tmp_path, url)
    with pytest.raises(CatalogueError, match="broker: ") as loading:
        load_catalogue(file, environ={})
    with pytest.raises(ConfigurationError, match=r"^PIPEMILL_BROKER: ") as from_environ:
        resolve_broker(environ={"PIPEMILL_BROKER": url})
    with pytest.raises(ConfigurationError, match=r"^broker: ") as explicit:
        resolve_broker(url, environ={})
    with pytest.raises(ConfigurationError, match="broker: ") as from_file:
        resolve_broker(catalogue_path=file, environ={})
    for caught in (loading, from_environ, explicit, from_file):
        assert problem in str(caught.value)
        assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("url", ["redis://:hunter2@h", "redis://user:hunter2@h/0"])
def test_password_in_a_wrong_place_is_hidden(tmp_path: Path, url: str) -> None:
    """A URL that stands where something else belongs is shown without its password."""
    file = tmp_path / "pipemill.yaml"
    file.write_text(f"brokr: '{url}'\nworker: '{url}'\nqueues: {{q: {{task: '{url}', model: '{url}'}}}}\n")
    found = find_mistakes(file, environ={"PIPEMILL_DEVICE": url, "PIPEMILL_LEASE_SECONDS": url})
    assert len(found) == 6
    assert all(SECRET not in repr(each) for each in found)


def test_url_is_a_value() -> None:
    """Equal URLs are equal, hash alike, and survive copying and pickling (a worker may spawn processes)."""
    broker = BrokerUrl("redis://:hunter2@h")
    assert broker == BrokerUrl("redis://:hunter2@h") != BrokerUrl("redis://h")
    assert broker != "redis://:hunter2@h"
    assert {broker, copy.deepcopy(broker), pickle.loads(pickle.dumps(broker))} == {broker}  # noqa: S301 - our own bytes
    assert Catalogue.model_fields["broker"].default == BrokerUrl("redis://localhost:6379/0")
