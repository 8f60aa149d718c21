"""Timing forward passes of growing size, on a device whose time a test makes up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from pipemill_worker.pipelines import calibration
from pipemill_worker.pipelines.calibration import calibrate, sizes
from pipemill_worker.pipelines.rules import Sharing
from pipemill_worker.policy.calibration import Bounds
from pipemill_worker.seams import Item, Prepared

BOUNDS = Bounds(max_items=32, max_cost=10_000)
JOBS: list[tuple[Any, dict[str, Any]]] = [(cost, {}) for cost in (20, 5, 60, 10, 35, 15)]

#: Seconds of a pass, from the costs of its items and whether they are packed.
Device = Callable[[Sequence[int], bool], float]


class Runner:
    """Takes jobs that are the cost of their one item; its clock shows what the device took."""

    def __init__(self, device: Device, sharing: Sharing = Sharing.PADDED, memory: int = 1_000) -> None:
        self.sharing = sharing
        self.seconds = 0.0
        self.ran: list[int] = []
        self._device = device
        self._memory = memory

    def clock(self) -> float:
        return self.seconds

    @property
    def layout(self) -> Runner:
        return self

    @contextmanager
    def padding(self) -> Iterator[None]:
        before, self.sharing = self.sharing, Sharing.PADDED
        yield
        self.sharing = before

    def share_less(self) -> None:
        """Never asked here."""

    def prepare_checked(self, inputs: Any, parameters: dict[str, Any]) -> Prepared:
        return Prepared([Item(parameters.get("group", "all"), inputs, None)])

    def forward(self, items: Sequence[Item]) -> Sequence[Any]:
        if len(items) > self._memory:
            raise MemoryError
        self.ran.append(len(items))
        self.seconds += self._device([item.cost for item in items], self.sharing is Sharing.PACKED)
        return items

    def finish(self, prepared: Prepared, outputs: Sequence[Any]) -> Any:
        return prepared, outputs

    def is_device_lost(self, error: BaseException) -> bool:
        return isinstance(error, SystemError)

    def is_out_of_memory(self, error: BaseException) -> bool:
        return isinstance(error, MemoryError)


def padded(costs: Sequence[int]) -> int:
    """Cost with padding."""
    return len(costs) * max(costs)


def saturating(costs: Sequence[int], _: bool) -> float:  # noqa: FBT001  # the device's form
    """A pass costs a second up to 100 units, and from there in proportion."""
    return max(1.0, padded(costs) / 100)


def test_sizes_double() -> None:
    """From one item up to the most, which is among them."""
    assert list(sizes(20)) == [1, 2, 4, 8, 16, 20]
    assert list(sizes(1)) == [1]


def test_the_batch_that_fills_the_device_is_found() -> None:
    """Items of 20 units fill a device of 100 with 5; of the sizes tried, 8 is the first as fast as any."""
    found = calibrate(runner := Runner(saturating), JOBS, BOUNDS, runner.clock)
    assert found is not None
    assert (found.sharing, found.best.items, found.ceiling) == ("padded", 8, None)
    assert {point.cost // point.items for point in found.curve} == {20}


def test_one_item_at_a_time_is_found_where_it_is_best() -> None:
    """A device that is slower the more it gets is given one."""
    found = calibrate(runner := Runner(lambda costs, _: padded(costs) ** 1.2), JOBS, BOUNDS, runner.clock)
    assert found is not None
    assert found.best.items == 1
    assert max(runner.ran) < BOUNDS.max_items


def test_packing_is_kept_where_mixed_lengths_gain_by_it() -> None:
    """A device that is as fast with rows end to end as with rows of equal length serves the mix sooner packed."""
    device: Device = lambda costs, packed: 1.0 + (sum(costs) if packed else padded(costs)) / 50  # noqa: E731  # short
    found = calibrate(runner := Runner(device, Sharing.PACKED), JOBS, BOUNDS, runner.clock)
    assert found is not None
    assert found.sharing == "packed"
    assert set(found.curves) == {"packed", "padded"}
    assert runner.sharing is Sharing.PACKED


def test_padding_is_taken_where_packing_costs_more_than_it_saves() -> None:
    """A small model whose rows each cost a call of their own is served sooner with padding."""
    device: Device = lambda costs, packed: 0.1 + (len(costs) if packed else padded(costs) / 500)  # noqa: E731  # short
    found = calibrate(runner := Runner(device, Sharing.PACKED), JOBS, BOUNDS, runner.clock)
    assert found is not None
    assert found.sharing == "padded"


def test_memory_that_runs_out_is_a_ceiling() -> None:
    """Sizes beyond the device's memory aren't tried again, and the last that fitted is remembered."""
    found = calibrate(runner := Runner(lambda *_: 1.0, memory=6), JOBS, BOUNDS, runner.clock)
    assert found is not None
    assert (found.ceiling, found.curve[-1].items) == (4, 4)


def test_a_lost_device_is_no_measurement() -> None:
    """Other errors end the worker's start, as they would end it later."""

    def fail(costs: Sequence[int], _: bool) -> float:  # noqa: FBT001  # the device's form
        if len(costs) > 2:
            raise SystemError
        return 1.0

    with pytest.raises(SystemError):
        calibrate(runner := Runner(fail), JOBS, BOUNDS, runner.clock)


def test_bounds_of_the_catalogue_are_kept() -> None:
    """Nothing larger is tried than a batch may be."""
    found = calibrate(runner := Runner(lambda *_: 1.0), JOBS, Bounds(max_items=5, max_cost=70), runner.clock)
    assert found is not None
    assert [point.items for point in found.curve] == [1, 2]
    assert max(runner.ran) == 2


def test_time_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the time for a curve is over, what was measured by then counts."""
    monkeypatch.setattr(calibration, "CURVE_SECONDS", 0.0)
    found = calibrate(runner := Runner(saturating), JOBS, BOUNDS, runner.clock)
    assert found is not None
    assert [point.items for point in found.curve] == [1]


def test_jobs_that_share_nothing_show_nothing() -> None:
    """Where each item runs alone there is nothing to choose."""
    assert calibrate(Runner(saturating), [(20, {"group": None})] * 3, BOUNDS) is None
