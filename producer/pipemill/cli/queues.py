"""The command that lists the queues."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from pipemill.cli.common import Invocation, Seconds, broker_options, json_option, pass_invocation
from pipemill.cli.output import console, show_table, table, to_json

if TYPE_CHECKING:
    from pipemill.client import Client
    from pipemill.store.base import QueueReport

#: The shortest time between two looks of ``--watch``, in seconds: each look is a round trip or two for each queue.
SHORTEST_INTERVAL_SECONDS: Final = 0.1
#: Tenants that a row names.
SHOWN_TENANTS: Final = 3
_COUNTS: Final = ("waiting", "parked", "leased", "dead")
_HEAD: Final = ("queue", "task", "model", *_COUNTS, "rate/s", "lanes", "mean batch", "busy", "items", "tenants")


@click.command()
@click.option("--watch", is_flag=True, help="Look again and again, until Ctrl-C.")
@click.option("--interval", type=Seconds(), default=1.0, show_default=True, help="Seconds between two looks.")
@broker_options
@json_option
@pass_invocation
def queues(invocation: Invocation, *, watch: bool, interval: float) -> None:
    """List the queues and how they stand.

    waiting: jobs to be taken; parked: jobs whose time is still to come; leased: jobs that workers hold; dead: dead
    letters; rate/s: jobs ended lately; lanes: workers at it; mean batch: items of a forward pass; items: how they
    share one (packed end to end, padded to a common length, exact shapes only, or solo), and what a self-check forbade;
    tenants: who has most jobs waiting in a list of its own.
    """
    with invocation.connect(invocation) as client:
        if not watch:
            _print(invocation, client.queues())
            return
        try:
            _watch(invocation, client, max(interval, SHORTEST_INTERVAL_SECONDS))
        except KeyboardInterrupt:
            return


def _watch(invocation: Invocation, client: Client, interval: float) -> None:
    if invocation.json or not (screen := console()).is_terminal:
        while True:
            _print(invocation, client.queues())
            time.sleep(interval)
    from rich.live import Live  # noqa: PLC0415  # only a terminal needs it

    with Live(table(*_table(client.queues())), console=screen, auto_refresh=False) as live:
        while True:
            time.sleep(interval)
            live.update(table(*_table(client.queues())), refresh=True)


def _print(invocation: Invocation, reports: Sequence[QueueReport]) -> None:
    if invocation.json:
        click.echo(to_json([facts(report) for report in reports]))
    elif reports:
        show_table(*_table(reports))
    else:
        click.echo("no queues yet: a worker announces its queues when it starts (`pipemill worker`)")


def _table(reports: Sequence[QueueReport]) -> tuple[Sequence[str], list[list[Any]]]:
    """Head and rows; who waits is told where tenants have lists of their own."""
    rows = []
    for each in map(facts, reports):
        numbers = [each[name] for name in _COUNTS]
        lanes = [round(each["rate"], 1), len(each["lanes"]), each["mean_batch"], f"{each['busy']:.0%}", each["items"]]
        waiting = top_tenants(each["waiting_by_tenant"])
        rows.append([each["queue"], each["task"], each["model"], *numbers, *lanes, waiting])
    return (_HEAD, rows) if any(report.tenants for report in reports) else (_HEAD[:-1], [row[:-1] for row in rows])


def facts(report: QueueReport) -> dict[str, Any]:
    """What is told of a queue, by name."""
    return {
        "queue": report.info.name,
        "task": report.info.task,
        "model": report.info.model,
        "max_depth": report.info.max_depth,
        "waiting": sum(report.waiting.values()),
        "waiting_by_priority": {str(step): count for step, count in report.waiting.items()},
        "waiting_by_tenant": dict(sorted(report.tenants.items(), key=lambda each: (-each[1], each[0]))),
        "waiting_bytes": report.waiting_bytes,
        "parked": report.parked,
        "leased": report.leased,
        "dead": report.dead,
        "rate": round(sum(float(lane.get("rate", 0)) for lane in report.lanes.values()), 3),
        "mean_batch": mean_batch(report),
        "busy": max((float(lane.get("busy", 0)) for lane in report.lanes.values()), default=0.0),
        "padding": padding(report),
        "items": how_items_share(report),
        "totals": dict(report.totals),
        "lanes": {owner: dict(lane) for owner, lane in report.lanes.items()},
    }


def top_tenants(waiting: Mapping[str, int]) -> str | None:
    """Name the tenants that most jobs wait for, the first first; None when nobody has a list of its own."""
    shown = [f"{tenant} {count}" for tenant, count in list(waiting.items())[:SHOWN_TENANTS]]
    more = len(waiting) - len(shown)
    return ", ".join([*shown, f"{more} more"] if more else shown) or None


def mean_batch(report: QueueReport) -> float | None:
    """Mean number of items of the lanes' forward passes; None before the first."""
    counts = [item for lane in report.lanes.values() for item in lane.get("batch_sizes", {}).items()]
    batches = sum(count for _, count in counts)
    return round(sum(int(size) * count for size, count in counts) / batches, 2) if batches else None


def padding(report: QueueReport) -> float | None:
    """Share of the lanes' work that was padding; None before the first forward pass."""
    padded = sum(int(lane.get("padded_cost", 0)) for lane in report.lanes.values())
    real = sum(int(lane.get("cost", 0)) for lane in report.lanes.values())
    return round(1 - real / padded, 4) if padded else None


def how_items_share(report: QueueReport) -> str | None:
    """How items share the lanes' forward passes, and what a self-check forbade; None before a lane runs."""
    return ", ".join(sorted({words for lane in report.lanes.values() if (words := _how(lane))})) or None


def _how(lane: Mapping[str, Any]) -> str:
    own = lane.get("sharing") or ""
    check = lane.get("self_check") or {}
    meant, checked = check.get("meant", own), check.get("sharing", own)
    if checked != own:
        return f"{own} (faster here than {checked})"
    return own if meant == own else f"{own} (not {meant}: answers differed)"
