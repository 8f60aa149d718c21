"""Tenants take turns inside a worker, too: in line for being prepared, and in the pool."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipemill.protocol import decode_message, encode_arguments, encode_message
from pipemill.store.base import Leased, QueueInfo
from pipemill.store.memory import MemoryBroker, MemoryJobStore
from pipemill_worker.engine import Lane
from pipemill_worker.engine.line import PART, Line
from pipemill_worker.engine.tenants import Tenants
from pipemill_worker.engine.work import Entry, Work
from pipemill_worker.policy.batching import BatchLimits
from pipemill_worker.policy.curve import Curve, Point
from pipemill_worker.policy.turns import REMEMBERED_SECONDS, TENANTS_KEPT, Turns, heavy_ones, shared_seconds
from pipemill_worker.seams import Item, Prepared
from tests.helpers import until
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


def lane(*, fair: bool = True, limits: BatchLimits = SINGLE, curve: Curve = ()) -> Lane:
    """A lane that runs one item at a time."""
    store = MemoryJobStore(MemoryBroker(), QUEUE, lease_seconds=5.0)
    info = QueueInfo(name=QUEUE, task="w", fair=fair)
    return Lane(info, store, Runner(), limits=limits, prefetch=256, device="cpu", curve=curve)


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
    """Through the whole engine: its job runs long before the flood ends."""
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


def test_a_shared_pass_takes_half_as_long_again_as_one_item() -> None:
    """Or as nobody notices: large models pay with part of their rate, tiny ones with nothing."""
    assert shared_seconds(0.2) == pytest.approx(0.3)
    assert shared_seconds(0.001) == 0.005


def test_heavy_is_who_has_a_quarter_of_what_waits() -> None:
    """Nobody is where many have as much as each other."""
    assert heavy_ones({"flood": 90.0, "light": 10.0}) == {"flood"}
    assert heavy_ones(dict.fromkeys("abc", 10.0)) == {*"abc"}
    assert heavy_ones(dict.fromkeys("abcdef", 10.0)) == set()
    assert heavy_ones({}) == set()


def uneven(mine: Lane, *, light: str = "light") -> None:
    """Let a job come, that of a light tenant unless told otherwise, beside another's flood."""
    mine.add([entry(f"f{n}", "flood") for n in range(64)])
    mine.add([entry("l0", light)])
    for each in mine.pool:
        mine.note_prepared([each], 0.0)


def sizes(mine: Lane) -> list[int]:
    """How many items the next passes hold."""
    return [len(mine.next_batch(lambda _: False)[0]) for _ in range(3)]


MEASURED = [Point(items=n, cost=10 * n, seconds=0.1 + 0.02 * n) for n in (1, 2, 4, 8, 16, 32, 64)]
FULL = BatchLimits(max_items=64, max_cost=640, max_amplification=100.0)


def test_beside_a_light_tenant_passes_are_short() -> None:
    """Its item is in the next one, which the heavy one fills up to half as long again as one item takes."""
    mine = lane(limits=FULL, curve=MEASURED)
    uneven(mine)
    batch, _ = mine.next_batch(lambda _: False)
    assert "l0" in {each.work.job.id for each in batch}
    assert [len(batch), *sizes(mine)] == [4, 4, 4, 4]


def test_passes_are_full_where_nobody_is_light() -> None:
    """One tenant alone, tenants that have as much as each other, and a queue that takes no turns."""
    one = lane(limits=FULL, curve=MEASURED)
    uneven(one, light="flood")
    assert sizes(one)[0] == 64
    unfair = lane(fair=False, limits=FULL, curve=MEASURED)
    uneven(unfair)
    assert sizes(unfair)[0] == 64
    even = lane(limits=FULL, curve=MEASURED)
    even.add([entry(f"{tenant}{n}", tenant) for n in range(16) for tenant in "abcdef"])
    even.add([entry("g0", "g")])
    assert sizes(even)[0] == 64


def test_many_light_tenants_have_a_pass_of_their_own_that_is_full() -> None:
    """They are no flood: their items are computed together, and nothing of the rate is lost."""
    mine = lane(limits=FULL, curve=MEASURED)
    mine.add([entry(f"f{n}", "flood") for n in range(64)])
    mine.next_batch(lambda _: False)
    mine.add([entry(f"f{n}", "flood") for n in range(64, 128)])
    mine.add([entry(f"l{n}", f"light-{n}") for n in range(20)])
    batch, _ = mine.next_batch(lambda _: False)
    assert {each.work.job.id for each in batch} == {f"l{n}" for n in range(20)}


def test_a_light_tenant_is_remembered_for_a_minute_after_its_last_job() -> None:
    """Also one that came before the flood did; passes are full again then."""
    tenants = Tenants(fair=True)
    tenants.line_up([entry("l0", "light")], 0.0)
    pool = [entry(f"f{n}", "flood") for n in range(8)]
    tenants.line_up(pool, 1.0)
    tenants.look([], 1.0)
    assert not tenants.uneven(1.0)
    tenants.look(pool, 2.0)
    assert tenants.uneven(REMEMBERED_SECONDS)
    assert not tenants.uneven(0.1 + REMEMBERED_SECONDS)
    tenants.look(pool, 0.1 + REMEMBERED_SECONDS)
    assert not tenants.uneven(0.1 + REMEMBERED_SECONDS)


def test_a_tenants_only_job_is_taken_though_there_is_no_room() -> None:
    """A worker whose hands are full of a flood has it ready before the pass that runs has ended."""
    rig = Rig()
    mine = rig.lane()
    rig.runner.go.clear()
    with rig.running(mine):
        flood = rig.put(*(f"f{n:03}" for n in range(150)), tenant="flood")
        until(lambda: len(mine.held) == len(flood), "the flood is in hand")
        first = rig.put("first", tenant="light")
        until(lambda: any(each.work.tenant == "light" for each in mine.pool), "the light tenant's first job is ready")
        rig.runner.go.set()
        until(lambda: mine.shared, "it was seen")
        rig.runner.go.clear()
        rig.put(*(f"g{n:03}" for n in range(600)), tenant="flood")
        until(lambda: mine.room() < max(mine.window() // 4, 1), "there is no room for which it would be taken")
        (second,) = rig.put("second", tenant="light")
        until(lambda: second in {each.job.id for each in mine.held.values()}, "the job is in hand")
        rig.runner.go.set()
        assert rig.answers([*first, second]) == ["FIRST", "SECOND"]


def test_without_light_tenants_nobody_is_taken_without_room() -> None:
    """A worker alone with a flood leaves to others what it has no room for."""
    rig = Rig()
    mine = rig.lane()
    rig.runner.go.clear()
    with rig.running(mine):
        rig.put(*(f"f{n:03}" for n in range(600)), tenant="flood")
        until(lambda: mine.room() == 0, "there is no room")
        assert not mine.listens
        assert len(mine.held) == mine.prefetch
        rig.runner.go.set()


def test_turns_of_few_are_remembered() -> None:
    """One job each of more tenants than can be counted takes no more memory than that of some."""
    turns = Turns()
    for number in range(3 * TENANTS_KEPT):
        turns.give(f"t{number}", 10.0)
    assert len(turns._had) <= TENANTS_KEPT
    assert not turns.waits("t0")
    assert turns.waits(f"t{3 * TENANTS_KEPT - 1}")


@pytest.mark.parametrize(("prefetch", "left"), [(4, 4), (8, 8), (64, 60)])
def test_few_places_are_not_kept_for_light_tenants(prefetch: int, left: int) -> None:
    """A worker that holds a handful of jobs needs all of them to keep its device busy."""
    store = MemoryJobStore(MemoryBroker(), QUEUE, lease_seconds=5.0)
    mine = Lane(QueueInfo(name=QUEUE, task="w"), store, Runner(), limits=FULL, prefetch=prefetch, device="cpu")
    uneven(mine)
    mine.next_batch(lambda _: False)
    assert mine.shared
    assert mine.room() == left
