"""Which commands and keys the broker's user needs, and whether it has them.

Each is tried in a transaction that is then discarded: the server checks a command's rights when it is put into the
transaction, and runs none of them. Which commands the scripts use is read from the scripts. A user whose rights differ
from key to key can't be judged so; such a user has no right to transactions, if it is a producer's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from pipemill.doctor.findings import Verdict
from pipemill.protocol import names
from pipemill.store.connection import script

#: The key on which commands are tried: the one that scripts delete and nobody writes, so that any worker's user has it.
TRIED_KEY: Final = f"{names.PREFIX}none"
#: A job's id in keys and channels that are tried.
_NOBODY: Final = "doctor"
#: The scripts that producers run; workers run all others too.
_PRODUCERS_SCRIPTS: Final = frozenset({"enqueue", "cancel"})
#: What each side says to the server beside its scripts.
_BOTH: Final = (
    *("EVAL", "EVALSHA", "GET", "HGET", "HGETALL", "HLEN", "HSETNX", "LLEN", "MGET", "PING", "SET", "STRLEN"),
    *("ZCARD", "ZRANGE"),
)
_PRODUCERS: Final = ("SUBSCRIBE", "UNSUBSCRIBE")
_WORKERS: Final = ("BLMOVE", "HDEL", "HKEYS", "HSET", "PUBLISH", "TIME", "UNLINK", "ZRANGEBYSCORE")

_K: Final = TRIED_KEY
#: Arguments with which a command is well-formed; all others take one key.
ARGUMENTS: Final[Mapping[str, tuple[str, ...]]] = {
    "BLMOVE": (_K, _K, "RIGHT", "LEFT", "0.01"),
    "EVAL": ("return 1", "1", _K),
    "EVALSHA": ("0" * 40, "1", _K),
    "EXPIRE": (_K, "1"),
    "GETRANGE": (_K, "0", "0"),
    "HDEL": (_K, "a"),
    "HEXISTS": (_K, "a"),
    "HGET": (_K, "a"),
    "HINCRBY": (_K, "a", "1"),
    "HINCRBYFLOAT": (_K, "a", "1"),
    "HMGET": (_K, "a"),
    "HSET": (_K, "a", "b"),
    "HSETNX": (_K, "a", "b"),
    "INCRBY": (_K, "1"),
    "INCRBYFLOAT": (_K, "1"),
    "LINDEX": (_K, "0"),
    "LMOVE": (_K, _K, "RIGHT", "LEFT"),
    "LPUSH": (_K, "a"),
    "LRANGE": (_K, "0", "0"),
    "LREM": (_K, "0", "a"),
    "LSET": (_K, "0", "a"),
    "LTRIM": (_K, "0", "0"),
    "PEXPIRE": (_K, "1"),
    "PING": (),
    "PUBLISH": (names.result_key(_NOBODY), "a"),
    "RENAME": (_K, _K),
    "RPOPLPUSH": (_K, _K),
    "RPUSH": (_K, "a"),
    "SADD": (_K, "a"),
    "SET": (_K, "a"),
    "SISMEMBER": (_K, "a"),
    "SREM": (_K, "a"),
    "SUBSCRIBE": (names.result_key(_NOBODY),),
    "TIME": (),
    "UNSUBSCRIBE": (names.result_key(_NOBODY),),
    "XADD": (_K, "*", "a", "b"),
    "ZADD": (_K, "1", "a"),
    "ZCOUNT": (_K, "0", "1"),
    "ZINCRBY": (_K, "1", "a"),
    "ZRANGE": (_K, "0", "0"),
    "ZRANGEBYSCORE": (_K, "0", "1"),
    "ZREM": (_K, "a"),
    "ZREMRANGEBYRANK": (_K, "0", "0"),
    "ZREMRANGEBYSCORE": (_K, "0", "1"),
    "ZREVRANGE": (_K, "0", "0"),
    "ZREVRANGEBYSCORE": (_K, "1", "0"),
    "ZSCORE": (_K, "a"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A command to try, and what its refusal means."""

    #: What is told of it: a command's name, or keys.
    name: str
    command: tuple[str, ...]
    #: Whether producers need it; workers need all.
    producers: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """What was refused: the names of trials."""

    #: Of what both need.
    producers: tuple[str, ...]
    #: Of what only workers need.
    workers: tuple[str, ...]


def trials(queues: Iterable[str] = ()) -> list[Trial]:
    """All that is to be tried, for queues of these names."""
    mine = {*_BOTH, *_PRODUCERS, *scripts_commands(producers=True)}
    theirs = {*_WORKERS, *scripts_commands(producers=False)} - mine
    commands = [
        Trial(name=name, command=(name, *ARGUMENTS.get(name, (_K,))), producers=name in mine)
        for name in sorted(mine | theirs)
    ]
    keys = {names.record_key("*"): names.record_key(_NOBODY), names.result_key("*"): names.result_key(_NOBODY)}
    for queue in queues:
        keys[f"{queue} and its lists"] = names.list_keys(queue)[-1]
        keys[f"{names.PREFIX}*:{queue}"] = names.counters_key(queue)
    return [
        *commands,
        *(
            Trial(name=f"keys {told}", command=("EVAL", "return 1", "1", key), producers=True)
            for told, key in keys.items()
        ),
    ]


def scripts_commands(*, producers: bool) -> set[str]:
    """The commands that the scripts of one side call."""
    found: set[str] = set()
    for file in files("pipemill.store").joinpath("scripts").iterdir():
        name, _, kind = file.name.partition(".")
        if kind == "lua" and (name in _PRODUCERS_SCRIPTS) == producers:
            source = script(name).source.decode()  # with what it shares with others
            found |= set(re.findall(r"redis\.call\(\s*['\"](\w+)", source))  # what is tried by pcall isn't needed
    return found


def judge_rights(rights: Rights) -> tuple[Verdict, str, str]:
    """Verdict, what was seen, and the mend."""
    if not rights.producers and not rights.workers:
        return Verdict.OK, "this user may do all that producers and workers do", ""
    mend = "give the user its rules (pipemill acl writes them), or connect as another"
    if rights.producers:
        return (
            Verdict.PROBLEM,
            f"this user may not use {_listed(rights.producers)}, which producers and workers need",
            mend,
        )
    seen = f"this user may do what producers do; workers need also {_listed(rights.workers)}"
    return Verdict.WARNING, seen, f"if workers connect as this user, {mend}"


def _listed(refused: Iterable[str]) -> str:
    return ", ".join(refused)
