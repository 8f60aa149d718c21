"""One lane by itself: what it composes, how much it holds, when it waits, what it counts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytest

from pipemill.protocol import Outcome, decode_message, encode_arguments, encode_message
from pipemill.store.base import Leased, QueueInfo
from pipemill.store.memory import MemoryBroker, MemoryJobStore
from pipemill_worker.engine import EngineSettings, Hooks, Lane, held
from pipemill_worker.engine.completion import Completer
from pipemill_worker.engine.wiring import CLOSED, Gate, Wiring
from pipemill_worker.engine.work import End, Entry, Work
from pipemill_worker.policy.batching import BatchLimits
from pipemill_worker.policy.curve import Point
from pipemill_worker.seams import Item, Prepared
from tests.unit.engine.rig import QUEUE, Runner

LIMITS = BatchLimits(max_items=8, max_cost=1_000, max_amplification=100.0)
#: A pass takes a second, whatever it holds.
FLAT = (Point(items=1, cost=1, seconds=1.0), Point(items=100, cost=10_000, seconds=1.0))
#: A pass takes a second for each unit of cost.
STEEP = (Point(items=1, cost=1, seconds=1.0), Point(items=100, cost=10_000, seconds=10_000.0))


def lane(limits: BatchLimits = LIMITS, *, prefetch: int = 256, **options: Any) -> Lane:
    """A lane on a broker in memory, with the clock of this machine."""
    store = MemoryJobStore(MemoryBroker(), QUEUE, lease_seconds=5.0)
    return Lane(
        QueueInfo(name=QUEUE, task="words"), store, Runner(), limits=limits, prefetch=prefetch, device="cpu", **options
    )


def entry(name: str, cost: int = 10, *, expires: float | None = None) -> Entry:
    """A job of one prepared item."""
    raw = encode_message(name, QUEUE, encode_arguments(name, {}), expires=expires)
    work = Work(Leased(field=f"{name}|0", raw=raw, deliveries=0), decode_message(raw, QUEUE))
    (made,) = work.set_prepared(Prepared([Item("all", cost, name)]))
    return made


def names(entries: Sequence[Entry]) -> list[str]:
    """Whose items they are."""
    return [each.work.job.id for each in entries]


def nobody(_: str) -> bool:
    """Nothing was revoked."""
    return False


def test_what_cant_be_answered_in_time_gives_way_to_what_can() -> None:
    """Of two that wait, the one whose deadline lies before the pass's end is left for later, and not ended yet."""
    mine = lane(curve=FLAT)
    mine.add([entry("late", expires=mine.now() + 0.5), entry("good", expires=mine.now() + 60), entry("any")])
    batch, ends = mine.next_batch(nobody)
    assert names(batch) == ["good", "any"]
    assert ends == []
    assert names(mine.pool) == ["late"]


def test_what_is_late_runs_where_nothing_else_waits() -> None:
    """A deadline says when a job must have started: with the device free, it starts."""
    mine = lane(curve=FLAT)
    mine.add([entry("late", expires=mine.now() + 0.5)])
    assert names(mine.next_batch(nobody)[0]) == ["late"]


def overloaded() -> Lane:
    """A lane whose passes take a second, and which has just found that some of its jobs would be late."""
    mine = lane(curve=FLAT)
    mine.add([entry("late", expires=mine.now() + 0.5), entry("good", expires=mine.now() + 60)])
    mine.running, _ = mine.next_batch(nobody)
    return mine


def test_under_overload_late_jobs_are_not_even_prepared() -> None:
    """Those that would be late behind the pass that runs are put aside, where they end once they are over."""
    mine = overloaded()
    late, soon = (entry(name, expires=mine.now() + left).work for name, left in (("x", 2.5), ("y", 5.0)))
    assert mine.note_taken([late, soon]) == [soon]
    assert (mine.aside, mine.preparing) == ([late], 1)
    late.job.expires = mine.now() - 1
    _, ends = mine.next_batch(nobody)
    assert [(end.work, end.outcome) for end in ends] == [(late, Outcome.EXPIRED)]
    assert mine.aside == []


def test_what_was_put_aside_is_prepared_once_nothing_else_is_there() -> None:
    """The device is free: they may still start before their deadline."""
    mine = overloaded()
    works = [entry("x", expires=mine.now() + 1).work, entry("y", expires=mine.now() + 60).work]
    mine.note_taken(works)
    mine.take_up()
    assert mine.to_prepare.empty()
    mine.note_prepared([], 0.0)
    mine.take_up()
    assert mine.to_prepare.get() == [works[0]]
    assert (mine.aside, mine.preparing) == ([], 1)


def test_without_overload_nothing_is_put_aside() -> None:
    """However little time a job has, it is prepared: nobody else wants the device."""
    mine = lane(curve=FLAT)
    works = [entry("x", expires=mine.now() + 0.1).work]
    assert mine.note_taken(works) == works


def test_a_lane_holds_jobs_of_so_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """However small their number: where they have enough bytes there is no room, until one is let go or lost."""
    works = [entry(name).work for name in "abc"]
    monkeypatch.setattr(held, "HELD_BYTES", works[0].bytes + works[1].bytes)
    monkeypatch.setattr(held, "HELD_INPUTS", 0)
    mine = lane()
    mine.hold(works[:1])
    assert (mine.room(), mine.held.bytes_left) == (255, works[1].bytes)
    mine.hold(works[1:])
    assert (mine.room(), mine.held.bytes_left) == (0, 0)
    mine.let_go([works[0], works[0]])
    assert mine.room() == 0
    mine.lose([works[1], works[0]])
    assert (mine.room(), mine.held.bytes_left) == (255, works[0].bytes)


def test_late_jobs_leave_room_for_others() -> None:
    """A lane holds more for each that gave way, so that those in time are found behind them, up to its bound."""
    mine = lane(prefetch=4, curve=FLAT)
    entries = [entry("late", expires=mine.now() + 0.5), entry("good", expires=mine.now() + 60)]
    mine.hold([each.work for each in entries])
    mine.add(entries)
    assert mine.room() == 2
    wide = lane(BatchLimits(max_items=1, max_cost=1_000, max_amplification=1.0), adaptive=True, curve=FLAT)
    entries = [entry(name, expires=wide.now() + left) for name, left in (("a", 0.5), ("b", 0.5), ("c", 60.0))]
    wide.hold([each.work for each in entries])
    wide.add(entries)
    before = wide.room()
    wide.next_batch(nobody)
    assert (before, wide.room()) == (0, 1)


def test_what_is_over_ends_wherever_it_stands_in_the_pool() -> None:
    """Expired, cancelled and revoked jobs leave the pool with every batch, though none of them is next."""
    mine = lane(BatchLimits(max_items=1, max_cost=1_000, max_amplification=1.0))
    mine.add([entry("first"), entry("expired", expires=mine.now() - 1)])
    mine.add([entry("cancelled"), entry("revoked"), entry("x")])
    mine.note_cancelled(["cancelled"])
    batch, ends = mine.next_batch(lambda job_id: job_id == "revoked")
    assert names(batch) == ["first"]
    assert {end.work.job.id: end.outcome for end in ends} == {
        "expired": Outcome.EXPIRED,
        "cancelled": Outcome.CANCELLED,
        "revoked": Outcome.CANCELLED,
    }
    assert names(mine.pool) == ["x"]


def test_a_job_that_began_is_not_late() -> None:
    """The last items of a job whose first ones ran are worth finishing."""
    mine = lane(curve=FLAT)
    begun = entry("begun", expires=mine.now() - 1)
    begun.work.started = True
    mine.add([begun, entry("other")])
    batch, ends = mine.next_batch(nobody)
    assert (names(batch), ends) == (["begun", "other"], [])


def test_a_lane_holds_as_much_as_keeps_the_device_busy() -> None:
    """A few batches of the items that come, more of small ones than of large ones; and never over the bound."""
    mine = lane(BatchLimits(max_items=64, max_cost=640, max_amplification=1.0, packed=True), adaptive=True)
    mine.note_taken([entry("a").work])
    mine.note_prepared([entry("a", cost=40)], 0.001)
    assert mine.window() == 40
    mine.gauges.rate = 200.0
    assert mine.window() == 100
    mine.gauges.rate = 10_000.0
    assert mine.window() == 256
    assert lane(prefetch=5).window() == 5


def test_a_free_device_waits_only_where_it_gains() -> None:
    """An item about to be prepared is waited for where two take as long as one, not where they take twice as long."""
    for curve, waits in ((FLAT, True), (STEEP, False)):
        mine = lane(curve=curve, max_wait=0.05)
        mine.note_taken([entry("a").work, entry("b").work])
        mine.note_prepared([entry("a", cost=1)], 0.001)
        mine.add([entry("a", cost=1)])
        assert (mine.wait_seconds() > 0) is waits
        assert mine.wait_seconds() <= 0.05


def test_a_full_batch_waits_for_nothing() -> None:
    """Items enough, or cost enough, run at once; and so does everything in a lane that may not wait."""
    for limits, max_wait in ((BatchLimits(max_items=1, max_cost=99, max_amplification=1.0), 1.0), (LIMITS, 0.0)):
        mine = lane(limits, curve=FLAT, max_wait=max_wait)
        mine.note_taken([entry("a").work, entry("b").work])
        mine.note_prepared([entry("a")], 0.001)
        mine.add([entry("a")])
        assert mine.wait_seconds() == 0.0


def test_a_lane_counts_what_padding_costs() -> None:
    """Padded to the longest, short items cost as much as it; end to end, they cost what they have."""
    batch = [entry("a", cost=10), entry("b", cost=30)]
    for packed, expected in ((False, 60), (True, 40)):
        mine = lane(BatchLimits(max_items=8, max_cost=100, max_amplification=9.0, packed=packed))
        mine.note_forward(batch, 0.5)
        facts = mine.facts()
        assert (facts["cost"], facts["padded_cost"], facts["batch_sizes"]) == (40, expected, {"2": 1})
        assert mine.model.seconds(expected) == pytest.approx(0.5)


def test_a_lowered_ceiling_is_kept_beyond_the_process() -> None:
    """Whoever keeps it is told the number of items."""
    kept: list[int] = []
    mine = lane(keep_ceiling=kept.append)
    mine.lower_ceiling(5)
    mine.lower_ceiling(7)
    assert kept == [5, 5]
    assert mine.limits.max_items == 5


def test_ends_that_piled_up_share_one_call() -> None:
    """While a call was under way, more batches ended: they go together, and the last word is still heard."""
    mine = lane()
    calls: list[int] = []
    complete = mine.store.complete

    def count(completions: Any) -> Any:
        calls.append(len(completions))
        return complete(completions)

    mine.store.complete = count  # type: ignore[method-assign]  # a double
    for name in ("a", "b", "c"):
        each = entry(name)
        each.work.add_output(0, name.upper())
        mine.to_end.put([End(each.work, Outcome.SUCCEEDED)])
    mine.to_end.put(CLOSED)
    Completer(mine, Wiring(settings=EngineSettings(), hooks=Hooks(), gate=Gate([mine]))).run()
    assert calls == [3]


def test_the_time_until_an_answer_is_stored_counts_for_deadlines() -> None:
    """After answers took half a minute to be stored, a job with twenty seconds left is late, and gives way."""
    mine = lane()
    slow = entry("slow")
    slow.work.ran_at = time.monotonic() - 30
    for _ in range(20):
        mine.let_go([slow.work])
    mine.add([entry("late", expires=mine.now() + 20), entry("any")])
    assert names(mine.next_batch(nobody)[0]) == ["any"]
