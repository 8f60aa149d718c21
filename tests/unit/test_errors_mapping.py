"""Errors: one tree, drawn as it is, and every error of redis-py has its place in it."""

from __future__ import annotations

import re
from typing import Any

import pytest
import redis.exceptions

from pipemill import errors
from pipemill.store.connection import translate, translated

URL = "redis://user:hunter2@broker.example:6379/0"

UNAVAILABLE, REFUSED = errors.BrokerUnavailable, errors.BrokerRefused
#: Every error of redis-py and what it is to our users; a new one must be given its place here.
EXPECTED: dict[str, type[errors.BrokerError]] = {
    "AskError": REFUSED,
    "AuthenticationError": REFUSED,
    "AuthenticationWrongNumberOfArgsError": REFUSED,
    "AuthorizationError": REFUSED,
    "BusyLoadingError": UNAVAILABLE,
    "ClusterCrossSlotError": REFUSED,
    "ClusterDownError": UNAVAILABLE,
    "ClusterError": REFUSED,
    "ConnectionError": UNAVAILABLE,
    "DataError": REFUSED,
    "ExecAbortError": REFUSED,
    "ExternalAuthProviderError": UNAVAILABLE,
    "InvalidResponse": REFUSED,
    "LockError": REFUSED,
    "LockNotOwnedError": REFUSED,
    "MasterDownError": UNAVAILABLE,
    "MaxConnectionsError": UNAVAILABLE,
    "ModuleError": REFUSED,
    "MovedError": REFUSED,
    "NoPermissionError": REFUSED,
    "NoScriptError": REFUSED,
    "NoSuchFieldsetError": REFUSED,
    "OutOfMemoryError": REFUSED,
    "PubSubError": REFUSED,
    "ReadOnlyError": REFUSED,
    "RedisError": REFUSED,
    "ResponseError": REFUSED,
    "TimeoutError": UNAVAILABLE,
    "TryAgainError": UNAVAILABLE,
    "WatchError": REFUSED,
}
#: Exceptions of redis-py that aren't RedisErrors: only cluster clients and misuse of locks and policies raise them.
NEVER_RAISED = {
    "ChildDeadlockedError",
    "CrossSlotTransactionError",
    "IncorrectPolicyType",
    "InvalidPipelineStack",
    "RedisClusterException",
    "SlotNotCoveredError",
}


def _exceptions() -> dict[str, type[Exception]]:
    """Every public exception class of redis-py, by name."""
    return {
        name: value
        for name, value in vars(redis.exceptions).items()
        if name[0] != "_" and isinstance(value, type) and issubclass(value, Exception)
    }


def test_every_error_of_redis_has_its_place() -> None:
    """A class that a new redis-py brings isn't overlooked, and one that it drops isn't kept."""
    redis_errors = {name for name, cls in _exceptions().items() if issubclass(cls, redis.exceptions.RedisError)}
    assert redis_errors == set(EXPECTED)
    assert _exceptions().keys() - redis_errors == NEVER_RAISED


@pytest.mark.parametrize("name", EXPECTED)
def test_errors_of_redis_become_ours(name: str) -> None:
    """Users catch BrokerUnavailable and BrokerRefused, see the cause, and never the password."""
    cause = _exceptions()[name]("1 other.example:6379")
    with pytest.raises(errors.BrokerError) as caught, translated(URL):
        raise cause
    assert type(caught.value) is EXPECTED[name]
    assert caught.value.__cause__ is cause
    assert "broker.example" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("BUSY Redis is busy running a script", UNAVAILABLE),
        ("ERR unknown command", REFUSED),
        ("WRONGTYPE Operation against a key", REFUSED),
    ],
)
def test_replies_without_a_class_become_ours(reply: str, expected: type[errors.BrokerError]) -> None:
    """A server that a script keeps busy is away, not offended."""
    assert type(translate(redis.exceptions.ResponseError(reply), URL)) is expected


def test_other_errors_pass_untouched() -> None:
    """The boundary translates what is redis-py's and nothing else."""
    with pytest.raises(KeyError), translated(URL):
        raise KeyError("ours")


def _subclasses(cls: type[errors.PipemillError]) -> set[type[errors.PipemillError]]:
    found = set(cls.__subclasses__())
    return found.union(*map(_subclasses, found)) if found else found


def _ours(root: type[errors.PipemillError]) -> set[str]:
    return {cls.__name__ for cls in _subclasses(root) if cls.__module__ == errors.__name__}


def test_every_job_error_crosses_the_wire() -> None:
    """A client raises what the worker meant, whichever error it was."""
    assert set(errors.JOB_ERRORS) == _ours(errors.JobError) - _ours(errors.SubmitError)


def test_the_tree_is_drawn_as_it_is() -> None:
    """The docstring of the errors module lists every class, under its parent."""
    drawn: dict[str, str] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"    ([ │├└─]*)([A-Z]\w+)", line):
            depth = len(found[1]) // 4
            above[depth:] = [found[2]]
            drawn[found[2]] = above[depth - 1] if depth else "Exception"
    classes = {value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)}
    assert drawn == {cls.__name__: cls.__bases__[0].__name__ for cls in classes}


def test_every_error_says_when_it_is_raised() -> None:
    """Each class of the tree has its sentence."""
    classes: list[Any] = [value for value in vars(errors).values() if isinstance(value, type)]
    assert [cls.__name__ for cls in classes if not (cls.__doc__ or "").strip().endswith(".")] == []
