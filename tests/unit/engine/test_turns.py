"""Tenants take turns inside a worker, too: in line for being prepared, and in the pool."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pipemill.protocol import decode_message, encode_arguments, encode_message
from pipemill.store.base import Leased, QueueInfo
from pipemill.store.memory import MemoryBroker, MemoryJobStore
from pipemill_worker.engine import Lane
from pipemill_worker.engine.line import PART, Line
from pipemill_worker.engine.work import Entry, Work
from pipemill_worker.policy.batching import BatchLimits
from pipemill_worker.policy.turns import Turns
from pipemill_worker.seams import Item, Prepared
from tests.unit.engine.rig import QUEUE, Rig, Runner

SINGLE = BatchLimits(max_items=1, max_cost=1_000, max_amplification=100.0)


def work(name: str, tenant: str = "", step: int = 0) -> Work:
    """A job in hand."""
    raw = encode_message(name, QUEUE, encode_arguments(name, {}), tenant=tenant)
    return Work(Leased(field=f"{name}|{step}", raw=raw, deliveries=0), decode_message(raw, QUEUE))


def entry(name: str, tenant: str = "", *, cost: int = 10, step: int = 0) -> Entry:
    """A job of one prepared item."""
    (made,) = work(name, tenant, step).set_prepared(Prepared([Item("all", cost, name)]))
    return made


def lane(*, fair: bool = True) -> Lane:
    """A lane that runs one item at a time."""
    store = MemoryJobStore(MemoryBroker(), QUEUE, lease_seconds=5.0)
    return Lane(QueueInfo(name=QUEUE, task="w", fair=fair), store, Runner(), limits=SINGLE, prefetch=256, device="cpu")


def order(mine: Lane) -> list[str]:
    """The jobs of the pool in the order in which they run."""
    ran = []
    while mine.pool:
        batch, _ = mine.next_batch(lambda _: False)
        ran += [each.work.job.id for each in batch]
    return ran


def test_a_job_that_comes_behind_a_full_pool_is_among_the_next() -> None:
    """What another tenant had ready before doesn't stand before it; the others keep their order."""
    mine = lane()
    mine.add([entry(f"f{n}", "flood") for n in range(20)])
    mine.next_batch(lambda _: False)
    mine.add([entry("l0", "light")])
    ran = order(mine)
    assert ran[0] == "l0"
    assert [name for name in ran if name != "l0"] == [f"f{n}" for n in range(1, 20)]


def test_urgent_items_run_before_turns() -> None:
    """Turns are taken among items of one urgency."""
    mine = lane()
    mine.add([entry("late", "light", step=9), entry("f0", "flood"), entry("f1", "flood")])
    assert order(mine) == ["f0", "f1", "late"]


def test_a_queue_that_is_not_fair_runs_in_the_order_of_arrival() -> None:
    """There a tenant is only a name."""
    mine = lane(fair=False)
    mine.add([entry(f"f{n}", "flood") for n in range(5)])
    mine.add([entry("l0", "light")])
    assert order(mine)[-1] == "l0"


@given(st.lists(st.tuples(st.sampled_from(["", "acme", "bolt"]), st.integers(1, 500)), max_size=60))
def test_every_item_runs_once_and_each_tenants_in_order(items: list[tuple[str, int]]) -> None:
    """Turns only change who is next among tenants."""
    mine = lane()
    mine.add([entry(f"{tenant}-{n}", tenant, cost=cost) for n, (tenant, cost) in enumerate(items)])
    ran = order(mine)
    for tenant in ("", "acme", "bolt"):
        its = [f"{name}-{n}" for n, (name, _) in enumerate(items) if name == tenant]
        assert [name for name in ran if name.rpartition("-")[0] == tenant] == its


@given(st.integers(1, 400), st.integers(1, 400))
def test_two_that_never_stop_get_the_same(one: int, other: int) -> None:
    """Counted in cost, to within an item of each."""
    turns, had = Turns(), Counter[str]()
    costs = {"one": one, "other": other}
    waiting = {tenant: turns.give(tenant, cost) for tenant, cost in costs.items()}
    for _ in range(200):
        tenant = min(waiting, key=waiting.__getitem__)
        turns.note_taken(waiting[tenant])
        had[tenant] += costs[tenant]
        waiting[tenant] = turns.give(tenant, costs[tenant])
        assert abs(had["one"] - had["other"]) <= one + other


def test_a_job_in_line_waits_for_no_other_tenants_jobs_but_a_few() -> None:
    """Parts are small, and those of who came last don't stand behind all others."""
    line = Line()
    line.put([work(f"f{n}", "flood") for n in range(100)], threads=2)
    first = line.get()
    line.put([work("l0", "light")], threads=2)
    line.close()
    parts = [[each.job.id for each in part] for part in iter(line.get, None)]
    assert first is not None
    assert len(first) <= PART
    assert parts[0] == ["l0"]
    assert [name for part in parts[1:] for name in part] == [f"f{n}" for n in range(len(first), 100)]
    assert line.empty()


def test_a_worker_serves_a_light_tenant_beside_a_flood() -> None:
    """Through the whole engine: its job runs long before the flood ends, and shares its batches."""
    rig = Rig()
    rig.runner.go.clear()
    with rig.running():
        flood = rig.put(*(f"f{n:03}" for n in range(600)), tenant="flood")
        light = rig.put("light", tenant="light")
        rig.runner.go.set()
        assert rig.answers(light) == ["LIGHT"]
        assert rig.answers(flood) == [f"F{n:03}" for n in range(600)]
    at = next(number for number, batch in enumerate(rig.runner.batches) if "light" in batch)
    assert at <= 6
    assert len(rig.runner.batches[at]) > 1
