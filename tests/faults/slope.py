"""Whether a figure stays flat: a straight line through the second half of what was sampled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

SECONDS_PER_HOUR: Final = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """What became of a figure."""

    #: Mean, smallest and largest in the second half.
    mean: float
    least: float
    most: float
    #: What it gained in an hour, by the straight line; NaN when there are too few samples to say.
    per_hour: float

    @property
    def percent_per_hour(self) -> float:
        """The slope as a part of the mean; NaN when it can't be said."""
        return 100 * self.per_hour / self.mean if self.mean else math.nan


def trend(samples: Sequence[tuple[float, float]]) -> Trend:
    """Fit the second half of samples, (seconds, value) in order: caches fill and pools grow in the first.

    Raises
    ------
    ValueError
        When there are none.

    """
    if not samples:
        raise ValueError("there is no sample to see a trend in: sample for longer")
    middle = (samples[0][0] + samples[-1][0]) / 2
    half = [sample for sample in samples if sample[0] >= middle]
    values = [value for _, value in half]
    return Trend(
        mean=math.fsum(values) / len(values),
        least=min(values),
        most=max(values),
        per_hour=_slope(half) * SECONDS_PER_HOUR,
    )


def _slope(samples: Sequence[tuple[float, float]]) -> float:
    """Least squares: how much the value gains in a second; NaN where time stands still."""
    count = len(samples)
    at = math.fsum(second for second, _ in samples) / count
    mean = math.fsum(value for _, value in samples) / count
    spread = math.fsum((second - at) ** 2 for second, _ in samples)
    if spread == 0:
        return math.nan
    return math.fsum((second - at) * (value - mean) for second, value in samples) / spread
