"""Forward passes of growing size, timed on this very machine before the first job comes.

From them the lane takes how much a batch may hold, whether to lay rows end to end or to pad them, and what a pass will
take. They run the real stages on the jobs of the self-check, repeated as often as a size needs.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from typing import Final, Protocol, TypeAlias

from pipemill_worker.pipelines.rules import Sharing
from pipemill_worker.pipelines.warming import Canary, Checked
from pipemill_worker.policy.batching import BatchLimits, compose, padded_cost
from pipemill_worker.policy.calibration import Bounds, Calibration
from pipemill_worker.policy.curve import Curve, Point, knee, levels_off
from pipemill_worker.seams import Item

log = logging.getLogger("pipemill.worker")

#: Tells seconds.
Clock: TypeAlias = Callable[[], float]

#: Most time for one curve, in seconds; a size that was begun is finished, and each is run twice at least.
CURVE_SECONDS: Final = 6.0
#: Rounds over all sizes, the same number for each. Of each, the quickest run counts: what else the machine does can
#: only slow a pass down. With passes slowed by a tenth on average, what is chosen is within 4 % of the best 19 times in
#: 20, by simulation.
ROUNDS: Final = 6
#: Larger sizes aren't tried after this many in a row whose rate is below this share of the best.
GIVE_UP_AFTER: Final = 3
GIVE_UP: Final = 0.8
#: Turns of each way to serve the mix.
MIX_ROUNDS: Final = 2
#: Items of the mix that decides between packing and padding: about what a lane has in hand.
MIX_ITEMS: Final = 64


class Calibrated(Checked, Protocol):
    """What of a runner a calibration uses."""

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether a smaller batch could succeed."""
        ...


@dataclass(frozen=True, slots=True)
class _Bench:
    """A runner under measurement."""

    runner: Calibrated
    bounds: Bounds
    #: Tells seconds.
    clock: Clock

    @property
    def packed(self) -> bool:
        return self.runner.sharing is Sharing.PACKED

    def timed(self, batch: Sequence[Item]) -> float:
        """One pass, in seconds."""
        started = self.clock()
        self.runner.forward(batch)
        return self.clock() - started

    def serve(self, items: Sequence[Item], curve: Curve) -> float:
        """How long items of mixed lengths take in the batches that a lane would make of them, in seconds."""
        bounds = self.bounds
        limits = BatchLimits(
            max_items=bounds.max_items,
            max_cost=min(knee(curve).cost, bounds.max_cost),
            max_amplification=bounds.max_amplification,
            packed=self.packed,
        )
        left, seconds = [_Waiting(item) for item in items], 0.0
        while left:
            chosen = set(compose(left, limits))
            seconds += self.timed([left[index].item for index in sorted(chosen)])
            left = [waiting for index, waiting in enumerate(left) if index not in chosen]
        return seconds


def calibrate(
    runner: Calibrated, jobs: Sequence[Canary], bounds: Bounds, clock: Clock = time.perf_counter
) -> Calibration | None:
    """Measure passes of growing size; ``None`` if these jobs show nothing that could share one.

    ``clock`` tells seconds: where one thread computes, its own CPU time is the steadier measure.
    """
    items = _alike(runner, jobs)
    if not items:
        return None
    bench = _Bench(runner, bounds, clock)
    like = [sorted(items, key=lambda item: item.cost)[len(items) // 2]]
    way = runner.sharing
    curve, ceiling = _curve(bench, items if way is Sharing.PACKED else like)
    if way is not Sharing.PACKED:
        return Calibration(sharing=way.value, curves={way.value: curve}, ceiling=ceiling)
    with runner.layout.padding():
        padded, padded_ceiling = _curve(bench, like)
    if _padding_pays(bench, list(islice(cycle(items), MIX_ITEMS)), curve, padded):
        way, ceiling = Sharing.PADDED, padded_ceiling
    curves: dict[str, Curve] = {Sharing.PACKED.value: curve, Sharing.PADDED.value: padded}
    return Calibration(sharing=way.value, curves=curves, ceiling=ceiling)


def _padding_pays(bench: _Bench, mix: Sequence[Item], packed: Curve, padded: Curve) -> bool:
    """Whether the mix is served sooner with padding, both ways taking turns."""
    ends_to_end, filled_up = [], []
    for _ in range(MIX_ROUNDS):
        ends_to_end.append(bench.serve(mix, packed))
        with bench.runner.layout.padding():
            filled_up.append(bench.serve(mix, padded))
    return min(filled_up) < min(ends_to_end)


class _Waiting:
    """An item as composing sees it."""

    urgency: Final = 0

    def __init__(self, item: Item) -> None:
        self.item = item
        self.group = item.group
        self.cost = item.cost


def _alike(runner: Calibrated, jobs: Sequence[Canary]) -> list[Item]:
    """The most items that may share a pass."""
    groups: dict[Hashable, list[Item]] = defaultdict(list)
    for inputs, parameters in jobs:
        for item in runner.prepare_checked(inputs, dict(parameters)).items:
            if item.group is not None:
                groups[item.group].append(item)
    return max(groups.values(), key=len, default=[])


def _curve(bench: _Bench, items: Sequence[Item]) -> tuple[list[Point], int | None]:
    """The points of one way to share, and the most items that fitted if memory ran out."""
    points: list[Point] = []
    end = time.perf_counter() + CURVE_SECONDS
    for size in sizes(bench.bounds.max_items):
        batch = list(islice(cycle(items), size))
        cost = padded_cost([item.cost for item in batch], packed=bench.packed)
        if points and (cost > bench.bounds.max_cost or time.perf_counter() > end or _has_seen_enough(points)):
            break
        try:
            seconds = bench.timed(batch)
        except Exception as error:
            if not points or not bench.runner.is_out_of_memory(error):
                raise
            text = "a batch of %d items doesn't fit into memory: at most %d from now on"
            log.warning(text, size, points[-1].items, extra={"event": "ceiling_lowered"})
            return points, points[-1].items
        points.append(Point(items=size, cost=cost, seconds=seconds))
    for turn in range(ROUNDS - 1):
        if turn and time.perf_counter() + sum(point.seconds for point in points) > end:
            break
        for index, point in enumerate(points):
            seconds = bench.timed(list(islice(cycle(items), point.items)))
            points[index] = replace(point, seconds=min(point.seconds, seconds))
    return points, None


def sizes(most: int) -> Iterator[int]:
    """1, 2, 4, 8, …, up to ``most``, which is among them."""
    size = 1
    while size < most:
        yield size
        size *= 2
    yield most


def _has_seen_enough(points: Sequence[Point]) -> bool:
    """Whether a larger size would gain no more, or rates have long been falling."""
    best = max(point.rate for point in points)
    last = points[-GIVE_UP_AFTER:]
    return levels_off(points) or (len(points) > len(last) and all(point.rate < best * GIVE_UP for point in last))
