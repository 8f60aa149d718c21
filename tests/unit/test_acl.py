"""The rules of users, as they are written. What they allow is seen on real servers (tests/integration/test_acl.py)."""

from __future__ import annotations

import pytest

from pipemill.protocol import names
from pipemill.store.acl import Grant, Role, rules


@pytest.mark.parametrize("role", Role)
def test_rules_take_all_away_first(role: Role) -> None:
    """Rules that are written again leave nothing of those before; no rule gives all commands, keys or channels."""
    found = rules(role, ["a", "b"])
    assert found[:5] == ["on", "resetkeys", "resetchannels", "clearselectors", "-@all"]
    given = " ".join(found).split()
    assert not {"~*", "&*", "+@all", "allkeys", "allcommands", "allchannels", "nopass"} & set(given)
    assert not [token for token in given if token.startswith("+@")]


@pytest.mark.parametrize("role", Role)
def test_rules_fit_into_a_line(role: Role) -> None:
    """They are printable ASCII, as files of rules and terminals need them."""
    text = " ".join(rules(role, ["a"], celery=True))
    assert text.isascii()
    assert text.isprintable()


def test_each_queue_is_named() -> None:
    """A user's rules name the lists of its queues, and of no others."""
    for role in Role:
        text = " ".join(rules(role, ["a", "b"]))
        assert all(f"~{queue} " in text for queue in "ab")
        assert names.counters_key("c") not in text


def test_a_producer_that_does_not_cancel_only_reads_results() -> None:
    """Cancelling writes results, so it is one thing with it."""
    result = names.result_key("*")
    assert f"%W~{result}" in " ".join(rules(Role.PRODUCER, ["a"]))
    without = [
        token for token in " ".join(rules(Role.PRODUCER, ["a"], cancels=False)).split() if token.endswith(result)
    ]
    assert set(without) == {f"%R~{result}", f"&{result}"}


def test_the_database_is_part_of_celerys_channels() -> None:
    """Channels of kombu have in their names the number of the database."""
    assert "&/7.celery.pidbox" in rules(Role.WORKER, ["a"], database=7)


def test_a_grant_is_written_as_the_server_reads_it() -> None:
    """Commands, keys to read and write, to read, to write, channels."""
    grant = Grant(commands="get set", both=["x"], read=["y"], write=["z"], channels=["c"])
    assert grant.tokens() == ["+get", "+set", "~x", "%R~y", "%W~z", "&c"]
