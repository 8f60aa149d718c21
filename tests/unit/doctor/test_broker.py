"""What a server says of itself, judged."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pipemill.doctor.broker import CHECKS, BrokerFacts, Clock, judge_broker
from pipemill.doctor.findings import Finding, Verdict, worst
from pipemill.doctor.rights import ARGUMENTS, Rights, judge_rights, scripts_commands, trials

INFO = {
    "redis_version": "7.2.4",
    "valkey_version": "8.1.3",
    "redis_mode": "standalone",
    "cluster_enabled": "0",
    "role": "master",
    "connected_slaves": "0",
    "maxmemory_policy": "noeviction",
    "maxmemory": "1000000000",
    "used_memory": "1000000",
    "aof_enabled": "1",
    "aof_last_write_status": "ok",
    "rdb_last_bgsave_status": "ok",
    "connected_clients": "10",
    "maxclients": "10000",
}
GOOD = BrokerFacts(
    url="redis://host/0",
    trip=0.0004,
    info=INFO,
    config={"timeout": "0", "appendfsync": "everysec", "maxclients": "10000"},
    clock=Clock(ahead=0.02, within=0.001),
    rights=Rights(producers=(), workers=()),
)


def judged(name: str, info: dict[str, str] | None = None, **changed: Any) -> Finding:
    """One finding about the good server, with some facts changed."""
    facts = replace(GOOD, info={**INFO, **(info or {})}, **changed)
    return next(finding for finding in judge_broker(facts) if name in finding.name.split(", "))


def test_a_server_as_it_should_be_has_no_fault() -> None:
    """Every check is ok, and none has anything to do."""
    findings = judge_broker(GOOD)
    assert {finding.verdict for finding in findings} == {Verdict.OK}
    assert {finding.mend for finding in findings} == {""}
    assert len(findings) == len(CHECKS) + 1


@pytest.mark.parametrize(
    ("name", "info", "verdict"),
    [
        ("version", {"redis_version": "6.2.0"}, Verdict.OK),
        ("version", {"redis_version": "6.0.16"}, Verdict.PROBLEM),
        ("version", {"redis_version": "10.0"}, Verdict.OK),
        ("version", {"redis_version": "unknown"}, Verdict.PROBLEM),
        ("cluster", {"cluster_enabled": "1"}, Verdict.PROBLEM),
        ("cluster", {"redis_mode": "cluster"}, Verdict.PROBLEM),
        ("role", {"role": "slave"}, Verdict.PROBLEM),
        ("eviction", {"maxmemory_policy": "allkeys-lru"}, Verdict.PROBLEM),
        ("eviction", {"maxmemory_policy": "volatile-ttl"}, Verdict.PROBLEM),
        ("memory", {"maxmemory": "0"}, Verdict.WARNING),
        ("memory", {"used_memory": "700000000"}, Verdict.OK),
        ("memory", {"used_memory": "750000000"}, Verdict.WARNING),
        ("memory", {"used_memory": "960000000"}, Verdict.PROBLEM),
        ("append-only", {"aof_enabled": "0"}, Verdict.PROBLEM),
        ("append-only", {"aof_enabled": "0", "connected_slaves": "1"}, Verdict.WARNING),
        ("appendfsync", {"aof_enabled": "0"}, Verdict.SKIPPED),
        ("disk", {"aof_last_write_status": "err"}, Verdict.PROBLEM),
        ("disk", {"rdb_last_bgsave_status": "err"}, Verdict.PROBLEM),
        ("clients", {"connected_clients": "7500"}, Verdict.WARNING),
        ("clients", {"connected_clients": "9900"}, Verdict.PROBLEM),
    ],
)
def test_what_info_tells_is_judged(name: str, info: dict[str, str], verdict: Verdict) -> None:
    """Each field has its bounds, and what isn't right says what to do."""
    finding = judged(name, info)
    assert finding.verdict is verdict
    assert bool(finding.mend) == (verdict in {Verdict.WARNING, Verdict.PROBLEM})


@pytest.mark.parametrize(
    ("name", "config", "verdict"),
    [
        ("timeout", {"timeout": "300"}, Verdict.WARNING),
        ("appendfsync", {"appendfsync": "no"}, Verdict.WARNING),
        ("appendfsync", {"appendfsync": "always"}, Verdict.OK),
        ("appendfsync", {}, Verdict.SKIPPED),
        ("timeout", {}, Verdict.SKIPPED),
    ],
)
def test_what_config_tells_is_judged(name: str, config: dict[str, str], verdict: Verdict) -> None:
    """A setting that the server doesn't tell is skipped, and no fault."""
    assert judged(name, config=config).verdict is verdict


@pytest.mark.parametrize(
    ("ahead", "within", "verdict"),
    [
        (0.9, 0.0, Verdict.OK),
        (-5.0, 0.1, Verdict.WARNING),
        (5.0, 4.5, Verdict.OK),
        (45.0, 0.1, Verdict.PROBLEM),
        (-3600.0, 1.0, Verdict.PROBLEM),
    ],
)
def test_clocks_apart_are_judged_beyond_doubt(ahead: float, within: float, verdict: Verdict) -> None:
    """Half of the round trip is in doubt, and counts for the clocks."""
    finding = judged("clock", clock=Clock(ahead=ahead, within=within))
    assert finding.verdict is verdict
    assert ("behind" in finding.seen) == (ahead < 0)


def test_a_server_that_tells_nothing_is_no_fault() -> None:
    """Where INFO, CONFIG, TIME and MULTI are refused, all is skipped, with the reason."""
    answers, *findings = judge_broker(BrokerFacts(url="redis://host/0"))
    assert answers.verdict is Verdict.OK
    assert {finding.verdict for finding in findings} == {Verdict.SKIPPED}
    refused = [command for command in ("INFO", "CONFIG", "TIME", "MULTI") if f"({command})" in str(findings)]
    assert refused == ["INFO", "CONFIG", "TIME", "MULTI"]


def test_what_is_skipped_for_one_reason_is_one_line() -> None:
    """Where INFO is refused, one finding names all that it would tell."""
    findings = judge_broker(replace(GOOD, info=None))
    (skipped,) = [finding for finding in findings if finding.verdict is Verdict.SKIPPED]
    assert skipped.name == "version, cluster, role, eviction, memory, append-only, disk, clients"


def test_other_servers_fields_do_no_harm() -> None:
    """Numbers that aren't numbers are skipped, not an error."""
    assert judged("memory", {"used_memory": "lots"}).verdict is Verdict.SKIPPED
    assert judged("clients", {"maxclients": "", "connected_clients": "5"}, config={}).verdict is Verdict.OK


@pytest.mark.parametrize(
    ("rights", "verdict"),
    [
        (Rights(producers=(), workers=()), Verdict.OK),
        (Rights(producers=(), workers=("ZADD",)), Verdict.WARNING),
        (Rights(producers=("GET",), workers=("ZADD",)), Verdict.PROBLEM),
    ],
)
def test_rights_are_those_of_a_side(rights: Rights, verdict: Verdict) -> None:
    """A producer's user needs no worker's rights; one that can't even produce is a problem. What lacks is named."""
    found, seen, mend = judge_rights(rights)
    assert found is verdict
    assert all(name in seen for name in (rights.producers or rights.workers))
    assert bool(mend) == (verdict is not Verdict.OK)


@pytest.mark.parametrize("producers", [True, False])
def test_every_command_of_the_scripts_can_be_tried(producers: bool) -> None:  # noqa: FBT001  # a parameter of the test
    """Each command that a script calls has arguments with which it is well-formed, or takes one key."""
    one_key = {"DEL", "EXISTS", "GET", "HGETALL", "HKEYS", "HLEN", "INCR", "LLEN", "LPOP", "PTTL", "RPOP", "SMEMBERS"}
    one_key |= {"STRLEN", "TTL", "UNLINK", "ZCARD"}
    found = scripts_commands(producers=producers)
    assert found
    assert found <= ARGUMENTS.keys() | one_key


def test_keys_of_queues_are_tried() -> None:
    """The user needs our own keys, results, and the lists of each queue."""
    tried = {trial.name: trial.command[-1] for trial in trials(["words"])}
    assert tried["keys pipemill:job:*"].startswith("pipemill:job:")
    assert tried["keys pipemill:*:words"].endswith(":words")
    assert tried["keys celery-task-meta-*"].startswith("celery-task-meta-")
    assert tried["keys words and its lists"].startswith("words")


def test_the_worst_verdict_counts() -> None:
    """A problem outweighs all else, and what is skipped nothing."""
    order = [Verdict.SKIPPED, Verdict.OK, Verdict.WARNING, Verdict.PROBLEM]
    findings = [Finding(area="a", name="b", verdict=verdict, seen="c") for verdict in order]
    assert [worst(findings[: index + 1]) for index in range(4)] == order
    assert worst([]) is Verdict.SKIPPED
