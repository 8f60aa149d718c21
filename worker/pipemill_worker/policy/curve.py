"""What a forward pass costs on this machine: the measured curve, the batch size worth taking, what a pass will take."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import mul
from statistics import fmean
from typing import Final, NamedTuple

#: Share of the best rate that the chosen batch must reach: what is left lies in the noise of measuring, and a smaller
#: batch answers sooner.
NEAR_BEST: Final = 0.97
#: The same share of the rate of a pass without end, where a line tells it: 24 times what the fixed time would compute.
NEAR_LIMIT: Final = 0.96
#: How much a larger batch must gain over items one by one before any batch is made at all.
LEAST_GAIN: Final = 1.03
#: Fewest passes that tell whether a line goes through them.
LEAST_FIT: Final = 4
#: How far the line may be off the measured rates, as a share of them, in the root mean square: as far as noise put
#: passes of MiniLM (Zen 3, a shared machine); a device that computes eight items as soon as one is 0.18 off.
FIT_TOLERANCE: Final = 0.13
#: Weight of the last pass in how much slower or faster than measured passes are now.
SCALE_WEIGHT: Final = 0.2
#: Bounds of that factor: an odd pass (a page fault, a neighbour on the core) must not be believed.
SCALES: Final = (0.1, 10.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A forward pass that was measured."""

    #: Items in it.
    items: int
    #: What they cost together, padding included; tokens for text.
    cost: int
    #: How long it took, in seconds.
    seconds: float

    @property
    def rate(self) -> float:
        """Cost a second."""
        return self.cost / self.seconds


#: Passes of growing cost.
Curve = Sequence[Point]


def knee(curve: Curve) -> Point:
    """The smallest pass that is as fast as any, to within what measuring can tell; one item if nothing gains on it.

    As fast as any that was measured, or where a line goes through all, as a pass without end.

    Raises
    ------
    ValueError
        When nothing was measured.

    """
    if not curve:
        raise ValueError("nothing was measured")
    line, first = _line(curve), curve[0]
    rates = _confirmed(curve) if line is None else line.rates(curve)
    if first.items == 1 and max(rates) < first.rate * LEAST_GAIN:
        return first
    enough = max(rates) * NEAR_BEST if line is None else line.limit * NEAR_LIMIT
    return next((point for point, rate in zip(curve, rates, strict=True) if rate >= enough), curve[-1])


def levels_off(curve: Curve) -> bool:
    """Whether a line goes through all, and says that no larger pass is faster, to within what measuring can tell."""
    line = _line(curve)
    return line is not None and line.rates(curve)[-1] >= line.limit * NEAR_BEST


class _Line(NamedTuple):
    """What a pass takes, in seconds: a fixed time and one per cost."""

    fixed: float
    slope: float

    @property
    def limit(self) -> float:
        """The rate of a pass without end, in cost a second."""
        return 1 / self.slope

    def rates(self, curve: Curve) -> list[float]:
        """Cost a second of passes of these costs."""
        return [point.cost / (self.fixed + self.slope * point.cost) for point in curve]


def _line(curve: Curve) -> _Line | None:
    """The line through all passes, which tells rates more steadily than each was measured; ``None`` if there is none.

    It is the one with the least squares of relative errors.
    """
    if len(curve) < LEAST_FIT or curve[0].cost == curve[-1].cost:
        return None
    weights = [point.seconds**-2 for point in curve]
    costs, seconds = [point.cost for point in curve], [point.seconds for point in curve]
    cost, second = (sum(map(mul, weights, each)) / sum(weights) for each in (costs, seconds))
    spread = sum(weight * (own - cost) ** 2 for weight, own in zip(weights, costs, strict=True))
    slope = (
        sum(weight * (own - cost) * took for weight, own, took in zip(weights, costs, seconds, strict=True)) / spread
    )
    fixed = second - slope * cost
    if slope <= 0 or fixed < 0:
        return None
    line = _Line(fixed, slope)
    error = fmean((rate / point.rate - 1) ** 2 for rate, point in zip(line.rates(curve), curve, strict=True)) ** 0.5
    return line if error <= FIT_TOLERANCE else None


def _confirmed(curve: Curve) -> list[float]:
    """Each pass's rate, but no more than that of its better neighbour: one lucky run is no knee.

    The last one needs no neighbour if the one before it gained, too: the curve still rises.
    """
    rates = [point.rate for point in curve]
    beside = [
        max(rates[max(index - 1, 0) : index] + rates[index + 1 : index + 2], default=0) for index in range(len(rates))
    ]
    if rates[-2:-1] >= rates[-3:-2]:
        beside[-1] = rates[-1]
    return [min(own, near) for own, near in zip(rates, beside, strict=True)]


def seconds_at(curve: Curve, cost: float) -> float:
    """How long a pass of this cost takes: between two measured ones in proportion, beyond them at their last slope."""
    if len(curve) == 1:
        return curve[0].seconds * max(cost / curve[0].cost, 1.0)
    if cost <= curve[0].cost:
        return curve[0].seconds
    low, slope = _stretch(curve, lambda point: cost <= point.cost)
    return low.seconds + slope * (cost - low.cost)


def cost_within(curve: Curve, seconds: float) -> float:
    """The cost of the largest pass that takes no longer: the inverse of ``seconds_at``, and infinity if any does."""
    if len(curve) == 1:
        return curve[0].cost * max(seconds / curve[0].seconds, 1.0)
    if seconds <= curve[0].seconds:
        return curve[0].cost
    low, slope = _stretch(curve, lambda point: seconds <= point.seconds)
    return low.cost + (seconds - low.seconds) / slope if slope else math.inf


def _stretch(curve: Curve, reaches: Callable[[Point], bool]) -> tuple[Point, float]:
    """The lower of the two passes between which something lies, the last two if beyond; and seconds per cost there."""
    low, high = next((pair for pair in pairwise(curve) if reaches(pair[1])), (curve[-2], curve[-1]))
    return low, max(high.seconds - low.seconds, 0.0) / max(high.cost - low.cost, 1)


class CostModel:
    """Predicts forward passes from the measured curve and from how passes went since."""

    def __init__(self, curve: Curve = ()) -> None:
        self.curve = tuple(curve)
        self._scale = 1.0

    def seconds(self, cost: float) -> float:
        """How long a pass of this cost will take; 0 as long as nothing is known."""
        return seconds_at(self.curve, cost) * self._scale if self.curve else 0.0

    def cost_within(self, seconds: float) -> float:
        """The cost of the largest pass that will take no longer; infinity as long as nothing is known."""
        return cost_within(self.curve, seconds / self._scale) if self.curve else math.inf

    def observe(self, items: int, cost: int, seconds: float) -> None:
        """Learn from a pass that ran. Without a curve, the first pass is one."""
        if not self.curve:
            self.curve = (Point(items=items, cost=cost, seconds=seconds),)
            return
        low, high = SCALES
        now = min(max(seconds / max(seconds_at(self.curve, cost), 1e-9), low), high)
        self._scale += SCALE_WEIGHT * (now - self._scale)
