"""What was measured, and what follows from it; no process, no clock."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from benchmarks.rivals.sides import BAR, OURS, STOCK, STOCK_BAR

#: Not a server: the pipeline called in the load generator's own process.
DIRECT = "direct call"
#: Most milliseconds that the queue may add to a direct call at idle; least goodput at the highest load.
IDLE_BAR_MS, GOODPUT_BAR = 3.0, 0.95


@dataclass(kw_only=True)
class Figures:
    """One run, by side; lists have one number per repeat."""

    machine: dict[str, str] = field(default_factory=dict)
    texts: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    #: Why a side, or one setting of it, could not be measured.
    unavailable: dict[str, str] = field(default_factory=dict)
    #: Texts a second of each setting tried, in the side's own words.
    sweep: dict[str, dict[str, float]] = field(default_factory=dict)
    #: The setting that was chosen, in the side's own words.
    settings: dict[str, str] = field(default_factory=dict)
    #: Texts a second when all come at once.
    bulk: dict[str, list[float]] = field(default_factory=dict)
    #: Median latency of one client, in milliseconds; and what that adds to a direct call of the same text.
    idle_ms: dict[str, list[float]] = field(default_factory=dict)
    added_ms: dict[str, list[float]] = field(default_factory=dict)
    #: Closed loop: by number of clients, each ``rate`` (texts a second), ``p50_ms`` and ``p95_ms``.
    closed: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    #: Open loop: by load as a share of the side's capacity, each ``asked``, ``answered``, ``goodput``, quantiles.
    opened: dict[str, dict[str, dict[str, float | None]]] = field(default_factory=dict)
    #: Share of the tokens of all batches that is padding.
    waste: dict[str, float] = field(default_factory=dict)
    #: Answers whose label isn't the direct call's.
    wrong: dict[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Everything, with the ratios and bars."""
        return {
            **asdict(self),
            "ratios": {name: ratio(self, name) for name in self.bulk},
            "bars": [*map(asdict, bars(self))],
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """Read what an earlier run printed."""
        return cls(**{name: each for name, each in found.items() if name in cls.__dataclass_fields__})

    def capacity(self, name: str) -> float:
        """The most texts a second that a side was seen to answer."""
        rates = [loop["rate"] for loop in self.closed.get(name, {}).values()]
        return max(statistics.median(self.bulk[name]), *rates, 0.0)


@dataclass(frozen=True, kw_only=True)
class Bar:
    """Something that must hold."""

    what: str
    value: float
    #: How it compares in words, such as ``≥ 1.6``.
    bar: str
    holds: bool


def ratio(figures: Figures, name: str) -> float:
    """Our texts a second ÷ its: the median over repeats."""
    pairs = zip(figures.bulk[OURS], figures.bulk[name], strict=False)
    return statistics.median(ours / theirs for ours, theirs in pairs)


def bars(figures: Figures) -> list[Bar]:
    """Everything that must hold, as far as it was measured."""
    return [*_throughput(figures), *_idle(figures), *_overload(figures), *_right(figures)]


def _throughput(figures: Figures) -> Iterator[Bar]:
    for name in figures.bulk:
        if name not in {OURS, DIRECT}:
            least = STOCK_BAR if name == STOCK else BAR
            value = ratio(figures, name)
            yield Bar(what=f"texts/s, {OURS} ÷ {name}", value=value, bar=f"≥ {least:g}", holds=value >= least)


def _idle(figures: Figures) -> Iterator[Bar]:
    added = {name: statistics.median(each) for name, each in figures.added_ms.items() if name != DIRECT}
    if OURS not in added:
        return
    ours = added.pop(OURS)
    yield Bar(what="added at idle, ms", value=ours, bar=f"≤ {IDLE_BAR_MS:g}", holds=ours <= IDLE_BAR_MS)
    if added:
        lowest = min(added, key=added.__getitem__)
        text = f"≤ {added[lowest]:.1f}, the lowest rival's ({lowest})"
        yield Bar(what="added at idle, ms", value=ours, bar=text, holds=ours <= added[lowest])


def _overload(figures: Figures) -> Iterator[Bar]:
    loads = figures.opened.get(OURS, {})
    if loads:
        highest = max(loads, key=float)
        value = loads[highest]["goodput"] or 0.0
        text = f"goodput at {highest} × capacity"
        yield Bar(what=text, value=value, bar=f"≥ {GOODPUT_BAR:g}", holds=value >= GOODPUT_BAR)


def _right(figures: Figures) -> Iterator[Bar]:
    wrong = sum(figures.wrong.values())
    yield Bar(what="answers unlike the direct call's, all sides", value=wrong, bar="= 0", holds=wrong == 0)


def padding_waste(lengths: Sequence[int], size: int) -> float:
    """Share of the tokens that is padding when batches of ``size`` are cut in the order of arrival."""
    batches = [lengths[start : start + size] for start in range(0, len(lengths), size)]
    return 1 - sum(lengths) / sum(len(batch) * max(batch) for batch in batches)


def best(rates: Mapping[tuple[int, float], float], noise: float) -> tuple[int, float]:
    """The fastest setting; an earlier one that is slower by no more than this share is as good."""
    most = max(rates.values())
    return next(setting for setting, rate in rates.items() if rate >= most * (1 - noise))
