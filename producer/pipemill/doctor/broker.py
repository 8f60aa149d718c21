"""The broker's settings and its state, judged: pure. One function for each thing that can be wrong."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from pipemill.doctor.findings import Finding, Verdict, counted
from pipemill.doctor.rights import Rights, judge_rights

#: The oldest Redis that has all that the scripts use.
OLDEST: Final = (6, 2)
#: Shares of the memory that may be used, and of the connections: above the first it is time to act, above the second
#: refusals are near.
HIGH_SHARE: Final = 0.75
FULL_SHARE: Final = 0.95
#: How far apart clocks may be, in seconds, before deadlines are told wrong by what people notice; and before lanes are
#: taken for silent (after 60 s, when both ends are off by half).
SKEW_SECONDS: Final = 1.0
WIDE_SKEW_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """The broker's clock beside ours."""

    #: How far it is ahead, in seconds; negative if it is behind.
    ahead: float
    #: How wrong that may be, in seconds: half of the round trip.
    within: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerFacts:
    """What a server says of itself. What it doesn't let us ask is None."""

    #: Its URL, without the password.
    url: str
    #: A round trip, in seconds.
    trip: float = 0.0
    #: The fields of INFO.
    info: Mapping[str, str] | None = None
    #: Settings by CONFIG; those that it refused are left out.
    config: Mapping[str, str] = field(default_factory=dict)
    clock: Clock | None = None
    rights: Rights | None = None


def judge_broker(facts: BrokerFacts) -> list[Finding]:
    """Every finding about a server that answers."""
    answers = _found("answers", Verdict.OK, f"{facts.url} answers in {facts.trip * 1e3:.1f} ms")
    return [answers, *_together(check(facts) for check in CHECKS)]


def _together(findings: Iterable[Finding]) -> list[Finding]:
    """Say in one line what couldn't be looked at for the same reason."""
    kept: dict[str, Finding] = {}
    for finding in findings:
        key = finding.seen if finding.verdict is Verdict.SKIPPED else finding.name
        same = kept.get(key)
        kept[key] = finding if same is None else replace(same, name=f"{same.name}, {finding.name}")
    return list(kept.values())


def _found(name: str, verdict: Verdict, seen: str, mend: str = "") -> Finding:
    return Finding(area="broker", name=name, verdict=verdict, seen=seen, mend=mend)


def _untold(name: str, command: str) -> Finding:
    mend = "name a user that may (--broker), or look at the provider's console"
    return _found(name, Verdict.SKIPPED, f"the server doesn't let this user see it ({command})", mend)


def _number(facts: BrokerFacts, name: str) -> int | None:
    """A number that INFO or CONFIG tells."""
    text = (facts.info or {}).get(name) or facts.config.get(name) or ""
    return int(text) if re.fullmatch(r"[0-9]{1,20}", text) else None


def check_version(facts: BrokerFacts) -> Finding:
    """Whether the scripts run on it."""
    info = facts.info or {}
    told = info.get("redis_version")
    if told is None:
        return _untold("version", "INFO")
    other = info.get("valkey_version")
    name = f"Valkey {other}" if other else f"Redis {told}"
    numbers = tuple(map(int, re.findall(r"[0-9]{1,6}", told)[:2]))
    if numbers >= OLDEST:
        return _found("version", Verdict.OK, name)
    return _found("version", Verdict.PROBLEM, f"{name} is too old", "run Redis 6.2 or newer, or Valkey")


def check_cluster(facts: BrokerFacts) -> Finding:
    """Whether all keys are in one server."""
    info = facts.info or {}
    if "cluster_enabled" not in info and "redis_mode" not in info:
        return _untold("cluster", "INFO")
    if info.get("cluster_enabled") != "1" and info.get("redis_mode") != "cluster":
        return _found("cluster", Verdict.OK, "one server holds all keys")
    mend = "use a server that isn't part of a cluster (cluster-enabled no); replicas and failover are fine"
    return _found("cluster", Verdict.PROBLEM, "it is part of a cluster, and scripts touch several keys", mend)


def check_role(facts: BrokerFacts) -> Finding:
    """Whether it takes writes."""
    role = (facts.info or {}).get("role")
    if role is None:
        return _untold("role", "INFO")
    if role == "master":
        return _found(
            "role",
            Verdict.OK,
            f"it takes writes, and has {counted(_number(facts, 'connected_slaves') or 0, 'replica')}",
        )
    mend = "name the address of the primary, which a managed service gives beside that of the replicas"
    return _found("role", Verdict.PROBLEM, "it is a replica, and takes no jobs", mend)


def check_eviction(facts: BrokerFacts) -> Finding:
    """Whether it keeps what it accepted when memory is short."""
    policy = (facts.info or {}).get("maxmemory_policy") or facts.config.get("maxmemory-policy")
    if policy is None:
        return _untold("eviction", "INFO")
    if policy == "noeviction":
        return _found("eviction", Verdict.OK, "maxmemory-policy noeviction")
    seen = f"maxmemory-policy {policy}: short of memory, it drops jobs or results that it has accepted"
    return _found("eviction", Verdict.PROBLEM, seen, "set maxmemory-policy noeviction")


def check_memory(facts: BrokerFacts) -> Finding:
    """Whether its memory is bounded, and how near the bound is."""
    used, most = _number(facts, "used_memory"), _number(facts, "maxmemory")
    if used is None or most is None:
        return _untold("memory", "INFO")
    if most == 0:
        mend = (
            "set maxmemory to about half of what the machine or container has: it refuses jobs then, and isn't killed"
        )
        return _found("memory", Verdict.WARNING, f"{_bytes(used)} used, and no bound (maxmemory 0)", mend)
    share, seen = used / most, f"{_bytes(used)} of {_bytes(most)} used"
    mend = "raise maxmemory, or shorten result_ttl_seconds, or send large media elsewhere (blobs.location)"
    if share >= FULL_SHARE:
        return _found("memory", Verdict.PROBLEM, f"{seen}: new jobs are refused soon, or are already", mend)
    return _found("memory", *((Verdict.WARNING, seen, mend) if share >= HIGH_SHARE else (Verdict.OK, seen)))


def _bytes(count: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:  # noqa: PLR2004  # the step from a unit to the next
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def check_append_only(facts: BrokerFacts) -> Finding:
    """Whether accepted jobs outlive a restart."""
    enabled = (facts.info or {}).get("aof_enabled")
    if enabled is None:
        return _untold("append-only", "INFO")
    if enabled == "1":
        return _found("append-only", Verdict.OK, "appendonly yes")
    replicas = _number(facts, "connected_slaves") or 0
    if replicas:
        seen = f"appendonly no, {counted(replicas, 'replica')}: a failover loses the last moments, and more"
        return _found("append-only", Verdict.WARNING, seen, "set appendonly yes, unless the service forbids it")
    seen = "appendonly no: a restart loses accepted jobs and results"
    return _found("append-only", Verdict.PROBLEM, seen, "set appendonly yes (CONFIG SET, and in the server's file)")


def check_sync(facts: BrokerFacts) -> Finding:
    """How much a power failure takes."""
    enabled, how = (facts.info or {}).get("aof_enabled"), facts.config.get("appendfsync")
    if enabled == "0":
        return _found("appendfsync", Verdict.SKIPPED, "there is no append-only file to write to the disk")
    if how is None:
        return _untold("appendfsync", "CONFIG")
    if how == "no":
        seen = "appendfsync no: a power failure loses what the system hasn't written yet, half a minute perhaps"
        return _found("appendfsync", Verdict.WARNING, seen, "set appendfsync everysec (or always)")
    lost = "a power failure loses a second at most" if how == "everysec" else "a power failure loses nothing"
    return _found("appendfsync", Verdict.OK, f"appendfsync {how}: {lost}")


def check_writes(facts: BrokerFacts) -> Finding:
    """Whether its disk takes what it writes."""
    info = facts.info or {}
    told = {name: info[name] for name in ("aof_last_write_status", "rdb_last_bgsave_status") if name in info}
    if not told:
        return _untold("disk", "INFO")
    failed = [name for name, status in told.items() if status != "ok"]
    if not failed:
        return _found("disk", Verdict.OK, "its last writes to the disk went well")
    mend = "make room on the server's disk, or mend its permissions; its log says which"
    return _found(
        "disk", Verdict.PROBLEM, f"a write to the disk failed ({', '.join(failed)}); writes are refused", mend
    )


def check_timeout(facts: BrokerFacts) -> Finding:
    """Whether idle connections stay open."""
    timeout = facts.config.get("timeout")
    if timeout is None:
        return _untold("timeout", "CONFIG")
    if timeout == "0":
        return _found("timeout", Verdict.OK, "timeout 0: idle connections stay open")
    seen = f"timeout {timeout}: connections idle for {timeout} s are cut, those that wait for results among them"
    return _found("timeout", Verdict.WARNING, seen, "set timeout 0; dead clients are found by tcp-keepalive")


def check_clients(facts: BrokerFacts) -> Finding:
    """Whether more clients can connect."""
    now, most = _number(facts, "connected_clients"), _number(facts, "maxclients")
    if now is None:
        return _untold("clients", "INFO")
    if not most:
        return _found("clients", Verdict.OK, counted(now, "connection"))
    seen, mend = f"{now} of {most} connections", "raise maxclients, or close clients that are no longer used"
    if now >= FULL_SHARE * most:
        return _found("clients", Verdict.PROBLEM, f"{seen}: further ones are refused soon", mend)
    return _found("clients", *((Verdict.WARNING, seen, mend) if now >= HIGH_SHARE * most else (Verdict.OK, seen)))


def check_clock(facts: BrokerFacts) -> Finding:
    """Whether this host and the broker agree on the time."""
    clock = facts.clock
    if clock is None:
        return _untold("clock", "TIME")
    off = abs(clock.ahead)
    where = "ahead of" if clock.ahead > 0 else "behind"
    seen = f"the broker's clock is {off:.3f} s {where} this host's, give or take {clock.within:.3f} s"
    mend = "let both hosts follow a time server (chrony, systemd-timesyncd)"
    if off - clock.within > WIDE_SKEW_SECONDS:
        seen += ": deadlines are wrong, and lanes look silent"
        return _found("clock", Verdict.PROBLEM, seen, mend)
    if off - clock.within > SKEW_SECONDS:
        return _found("clock", Verdict.WARNING, f"{seen}: expires and countdown are off by as much", mend)
    return _found("clock", Verdict.OK, seen)


def check_rights(facts: BrokerFacts) -> Finding:
    """Whether this user may do what is needed."""
    if facts.rights is None:
        seen = "this user may use no transactions (MULTI), in which rights are tried without using them"
        return _found(
            "rights",
            Verdict.SKIPPED,
            seen,
            "pipemill acl writes the rules that a user needs; a producer's has no transactions",
        )
    return _found("rights", *judge_rights(facts.rights))


CHECKS: Final[tuple[Callable[[BrokerFacts], Finding], ...]] = (
    check_version,
    check_cluster,
    check_role,
    check_eviction,
    check_memory,
    check_append_only,
    check_sync,
    check_writes,
    check_timeout,
    check_clients,
    check_clock,
    check_rights,
)
