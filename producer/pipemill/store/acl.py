"""What each user of the broker needs, as rules of Redis' access control lists (Redis 7.0 or newer, or Valkey). Pure.

The one place that says it: `pipemill acl` writes what it says. Scripts derive keys themselves, and the server checks
each command in a script as if the user had sent it, so the rules name what scripts do too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from pipemill.protocol import names
from pipemill.store.wire import UPLOAD_PREFIX

#: The key that scripts delete first, so that their first write takes no memory.
_NONE: Final = f"{names.PREFIX}none"
#: Where enqueue.lua keeps how full the server is.
_MEMORY: Final = f"{names.PREFIX}memory"
#: What a list of a priority step has behind its queue's name: kombu's two control characters, and the step. They are
#: written as what they are not, a printable character, since files of rules can't hold them.
_STEPS: Final = f"[^!-~][^!-~][{''.join(map(str, names.PRIORITY_STEPS[1:]))}]"
#: Commands without a key that every client sends, or that scripts do.
_ALL: Final = "ping select time"
_SCRIPTS: Final = "eval evalsha"


class Role(StrEnum):
    """What a user is for."""

    #: Submits jobs, looks up results, cancels.
    PRODUCER = "producer"
    #: Takes jobs and stores results; Celery's remote control, from both ends.
    WORKER = "worker"
    #: Sees how queues stand, and nothing that was sent or answered; changes nothing.
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """Commands, and where they may be used: any of these commands on any of these keys and channels."""

    #: Names of commands, in a row.
    commands: str
    #: Patterns of keys: to read and write, to read only, to write only.
    both: Sequence[str] = ()
    read: Sequence[str] = ()
    write: Sequence[str] = ()
    channels: Sequence[str] = ()

    def tokens(self) -> list[str]:
        """Write it as the server reads it."""
        return [
            *(f"+{command}" for command in self.commands.split()),
            *(f"~{pattern}" for pattern in self.both),
            *(f"%R~{pattern}" for pattern in self.read),
            *(f"%W~{pattern}" for pattern in self.write),
            *(f"&{pattern}" for pattern in self.channels),
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Keys:
    """The patterns of keys and channels of some queues."""

    queues: Sequence[str]
    result: str = names.result_key("*")
    record: str = names.record_key("*")
    payload: str = names.payload_key("*")
    blob: str = names.blob_key("*")
    stream: str = names.stream_key("*")
    upload: str = f"{UPLOAD_PREFIX}*"
    history: str = f"{names.PREFIX}history:*"
    dead: Sequence[str] = (f"{names.PREFIX}dead-payload:*", f"{names.PREFIX}dead-history:*")
    #: Celery's own lists and those of tenants; whose turn it is; how much waits.
    lists: Sequence[str] = field(init=False)
    rings: Sequence[str] = field(init=False)
    sums: Sequence[str] = field(init=False)

    def __post_init__(self) -> None:
        plain = [pattern for queue in self.queues for pattern in (queue, f"{queue}{_STEPS}")]
        object.__setattr__(self, "lists", [*plain, *self.of("tenant:?", ":*")])
        object.__setattr__(self, "rings", self.of("ring:?"))
        object.__setattr__(self, "sums", [*self.of("waiting"), *self.of("bytes")])

    def of(self, kind: str, rest: str = "") -> list[str]:
        """The keys of a kind, one for each queue: ``pipemill:<kind>:<queue><rest>``."""
        return [f"{names.PREFIX}{kind}:{queue}{rest}" for queue in self.queues]


def rules(  # noqa: PLR0913  # each is a choice of its own
    role: Role,
    queues: Sequence[str],
    *,
    database: int = 0,
    cancels: bool = True,
    celery: bool = False,
    letters: bool = False,
) -> list[str]:
    """Write the rules of a user, to be given to ``ACL SETUSER`` behind its name; they begin with taking all away.

    A producer that doesn't ``cancel`` can't write results. With ``celery``, a producer may be a plain Celery client;
    with ``letters`` it may read, replay and drop dead letters, and so write records and payloads, and delete results.
    """
    keys = _Keys(queues=queues)
    if role is Role.WORKER:
        base, more = _worker(keys, database), []
    elif role is Role.OPERATOR:
        base, more = Grant(commands=f"{_ALL} info"), _standing(keys)
    else:
        base, more = _producer(keys, cancels=cancels, celery=celery, letters=letters)
    selectors = [f"({' '.join(grant.tokens())})" for grant in more]
    return ["on", "resetkeys", "resetchannels", "clearselectors", "-@all", *base.tokens(), *selectors]


def _standing(keys: _Keys) -> list[Grant]:
    """How queues stand: numbers, and what queues and lanes say of themselves."""
    return [
        Grant(
            commands="hget hgetall hexists",
            read=[names.QUEUES_KEY, *keys.of("counters"), *keys.of("lanes"), *keys.sums],
        ),
        Grant(commands="llen", read=keys.lists),
        Grant(commands="zcard", read=[*keys.of("delayed"), *keys.of("dead-times")]),
        Grant(commands="zrange", read=[names.LEASES_KEY]),
        Grant(commands="hlen", read=[names.lease_key(f"{queue}|*") for queue in keys.queues]),
    ]


def _producer(keys: _Keys, *, cancels: bool, celery: bool, letters: bool) -> tuple[Grant, list[Grant]]:
    once = [names.once_key(queue, "*") for queue in keys.queues]
    base = Grant(commands=f"{_ALL} subscribe unsubscribe", channels=[keys.result])
    grants = [
        *_standing(keys),
        # enqueue.lua: the keys that it is given; then what it does.
        Grant(commands=_SCRIPTS, both=[names.QUEUES_KEY, *keys.of("counters"), *keys.of("delayed"), *keys.lists]),
        Grant(commands="lpush", write=keys.lists),
        Grant(commands="lindex", read=keys.lists),
        Grant(commands="exists", read=[*keys.lists, *keys.rings]),
        Grant(commands="zadd zcard zscore", both=keys.rings),
        Grant(commands="hincrby", both=[*keys.of("counters"), *keys.sums]),
        Grant(commands="hget hmget hset hdel del", both=keys.sums),
        Grant(commands="get set", both=[_MEMORY]),
        Grant(commands="info"),
        Grant(commands="hsetnx", both=[names.QUEUES_KEY]),
        Grant(commands="get mget exists getrange", read=[keys.result, keys.record, *once]),
        Grant(commands="set", write=[keys.record, keys.upload, *once]),
        Grant(commands="exists rename expire", both=[keys.upload, keys.payload]),
        Grant(commands="del", write=[keys.upload]),
        Grant(commands="get strlen", read=[keys.blob]),
        Grant(commands="xread", read=[keys.stream]),
    ]
    if cancels:
        grants += _cancelling(keys)
    if celery:
        grants += _celery_client(keys)
    if letters:
        grants += _undertaking(keys)
    return base, grants


def _undertaking(keys: _Keys) -> list[Grant]:
    """What letters.lua, replay.lua and drop.lua do; a replay forgets the job's failure."""
    kept = [*keys.of("dead-letters"), *keys.of("dead-times")]
    given = [names.QUEUES_KEY, *keys.of("counters"), *keys.of("delayed"), *kept, *keys.of("dead"), *keys.lists]
    moved = [*keys.dead, keys.payload, keys.history]
    return [
        Grant(commands=_SCRIPTS, both=given),
        Grant(commands="zadd zrem zscore zrevrangebyscore expire hget hset hdel hincrby", both=kept),
        Grant(commands="lrange ltrim", both=keys.of("dead")),
        Grant(commands="get exists lrange rename unlink expire rpush ltrim", both=moved),
        Grant(commands="getrange", read=[keys.result]),
        Grant(commands="del", write=[keys.result, _NONE]),
    ]


def _cancelling(keys: _Keys) -> list[Grant]:
    """What cancel.lua does: it writes the result, so whoever cancels can write any."""
    return [
        Grant(commands=_SCRIPTS, both=[keys.result, keys.record]),
        Grant(commands="del", write=[keys.record, _NONE]),
        Grant(commands="set", write=[keys.result]),
        Grant(commands="publish", channels=[keys.result, *keys.of("cancelled")]),
        Grant(commands="zadd zremrangebyscore expire", both=keys.of("cancelled")),
    ]


def _celery_client(keys: _Keys) -> list[Grant]:
    """What ``send_task`` and ``AsyncResult`` need beside: kombu asks where an exchange's messages go."""
    bindings = [f"_kombu.binding*.{queue}" for queue in keys.queues]
    return [
        Grant(commands="multi exec", read=()),
        Grant(commands="sadd smembers", both=bindings),
    ]


def _worker(keys: _Keys, database: int) -> Grant:
    """One grant: a worker that may do all this to a queue's keys gains nothing by doing it in another way."""
    # By name: a wildcard would also match what other queues have for a tenant, or a key, that is called like ours.
    of_queues = [pattern for kind in _KINDS for pattern in keys.of(kind)]
    of_owners = [pattern for kind in ("lease", "inbox", "document") for pattern in keys.of(kind, "|*")]
    shared = [names.QUEUES_KEY, names.LEASES_KEY, names.SEQUENCE_KEY, _NONE]
    of_jobs = [keys.record, keys.payload, keys.blob, keys.result, keys.history, keys.stream, *keys.dead]
    of_celery = ["celery-taskset-meta-*", "_kombu.binding*", "unacked", "unacked_index", "unacked_mutex"]
    control = ["*.celery.pidbox*", "celeryev.*"]
    topics = [f"/{database}.{topic}" for topic in ("celery.pidbox", "celeryev", "celeryev/*", "celeryev/worker.*")]
    return Grant(
        commands=" ".join((_ALL, _SCRIPTS, *_WORKER_COMMANDS)),
        both=[*keys.lists, *keys.rings, *keys.sums, *of_queues, *of_owners, *shared, *of_jobs, *of_celery, *control],
        channels=[keys.result, *keys.of("cancelled"), *topics],
    )


#: What a queue has beside its lists, its rings and its sums.
_KINDS: Final = ("counters", "delayed", "lanes", "cancelled", "passed", "dead", "dead-times", "dead-letters")
#: By kind of key: strings and any, hashes, lists, sorted sets, sets, streams, channels, and what has no key.
_WORKER_COMMANDS: Final = (
    "get set setex mget getrange incr incrby strlen exists expire pexpire rename del unlink",
    "hget hmget hset hsetnx hdel hgetall hkeys hlen hexists hincrby",
    "lindex llen lrange lrem ltrim lpush rpush rpop blmove brpop",
    "zadd zcard zcount zrange zrangebyscore zrevrangebyscore zrem zremrangebyscore zscore",
    "sadd sismember smembers srem",
    "xadd",
    "publish subscribe unsubscribe psubscribe punsubscribe",
    "multi exec watch unwatch discard script|load script|exists",
)
