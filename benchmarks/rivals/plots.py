"""The figures as pictures."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

from benchmarks.rivals.figures import GOODPUT_BAR, Figures
from benchmarks.rivals.load import DEADLINE_SECONDS
from benchmarks.rivals.sides import OURS, SIDES

#: Okabe and Ito's colours, which the colour-blind can tell apart; ours is the strongest.
COLOURS = ("#D55E00", "#999999", "#56B4E9", "#009E73", "#0072B2", "#CC79A7", "#E69F00")
MARKERS = "oXsD^vP"
STYLES = {side.name: (colour, marker) for side, colour, marker in zip(SIDES, COLOURS, MARKERS, strict=True)}
#: Colour of what isn't compared, and of whoever isn't ours in bars.
GREY = "#9AA3AB"
SETTINGS: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid.axis": "y",
    "figure.dpi": 150,
    "font.size": 9,
    "legend.frameon": False,
    "savefig.bbox": "tight",
}


def draw(figures: Figures, folder: Path) -> None:
    """Write all pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    mpl.use("Agg")
    with mpl.rc_context(SETTINGS):
        for name, picture in PICTURES.items():
            figure = picture(figures)
            figure.savefig(folder / f"{name}.png", metadata={"Software": None})
            plt.close(figure)


def _throughput(figures: Figures) -> Any:
    names = sorted(figures.bulk, key=lambda name: statistics.median(figures.bulk[name]))
    middles = [statistics.median(figures.bulk[name]) for name in names]
    spread = [
        [middle - min(figures.bulk[name]) for name, middle in zip(names, middles, strict=True)],
        [max(figures.bulk[name]) - middle for name, middle in zip(names, middles, strict=True)],
    ]
    figure, axes = _bars(names, middles, [f"{middle:.0f}" for middle in middles], spread)
    axes.set_xlabel(f"texts per second, one core ({figures.texts} texts at once; median, least to most)")
    return figure


def _padding(figures: Figures) -> Any:
    names = sorted(figures.waste, key=lambda name: -figures.waste[name])
    values = [figures.waste[name] * 100 for name in names]
    figure, axes = _bars(names, values, [f"{value:.0f} %" for value in values], None)
    axes.set_xlabel("padding, % of the tokens computed")
    return figure


def _bars(names: Sequence[str], values: Sequence[float], labels: Sequence[str], spread: Any) -> tuple[Any, Any]:
    """Horizontal bars, ours in colour."""
    figure, axes = plt.subplots(figsize=(6.5, 0.36 * len(names) + 0.9))
    colours = [COLOURS[0] if name == OURS else GREY for name in names]
    axes.barh(names, values, color=colours, xerr=spread, error_kw={"lw": 1, "capsize": 2})
    edges = [value + (spread[1][number] if spread else 0) for number, value in enumerate(values)]
    most = max([*edges, 1e-9])
    for number, label in enumerate(labels):
        axes.text(edges[number] + most * 0.012, number, label, va="center")
    axes.set_xlim(0, most * 1.1)
    axes.tick_params(axis="y", length=0)
    return figure, axes


def _latency(figures: Figures) -> Any:
    figure, (middle, high) = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    for axes, key, title in ((middle, "p50_ms", "median"), (high, "p95_ms", "95th percentile")):
        for name, loops in figures.opened.items():
            points = [(float(share), found[key]) for share, found in loops.items() if found[key] is not None]
            _line(axes, name, points)
        axes.axhline(DEADLINE_SECONDS * 1e3, color="black", lw=0.8, ls=":")
        axes.set(
            title=title, yscale="log", xlabel="requests arriving, × the side's own capacity", xticks=_shares(figures)
        )
        _plain_ticks(axes.yaxis)
    middle.set_ylabel("latency of what was answered, ms")
    middle.text(0.02, DEADLINE_SECONDS * 1e3 * 0.93, "deadline", va="top", transform=middle.get_yaxis_transform())
    figure.legend(*middle.get_legend_handles_labels(), loc="outside right center")
    return figure


def _overload(figures: Figures) -> Any:
    figure, axes = plt.subplots(figsize=(6.5, 3.4), layout="constrained")
    shares = _shares(figures)
    for name, loops in figures.opened.items():
        _line(axes, name, [(float(share), found["goodput"]) for share, found in loops.items()])
    most = max([*shares, 1.0])
    axes.plot([0, 1, most], [0, 1, 1], color="black", lw=0.8, ls=":", label="all that is possible")
    axes.plot([1, most], [GOODPUT_BAR] * 2, color="black", lw=0.6, alpha=0.4, label=f"bar, {GOODPUT_BAR:g}")
    axes.set(xlabel="requests arriving, × the side's own capacity", xlim=(0, None), ylim=(0, None), xticks=shares)
    axes.set_ylabel(f"answered within {DEADLINE_SECONDS:g} s, × capacity")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center")
    return figure


def _shares(figures: Figures) -> list[float]:
    """The loads of the open loop."""
    return sorted({float(share) for loops in figures.opened.values() for share in loops})


def _line(axes: Any, name: str, points: Sequence[tuple[float, float | None]]) -> None:
    colour, marker = STYLES[name]
    ours = name == OURS
    style = {"lw": 2.4 if ours else 1.2, "zorder": 3 if ours else 2, "markersize": 5}
    axes.plot(*zip(*points, strict=True), color=colour, marker=marker, label=name, **style)


def _plain_ticks(axis: Any) -> None:
    """1,000 instead of 10³."""
    axis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axis.set_minor_formatter(mpl.ticker.NullFormatter())


PICTURES = {
    "rivals-throughput": _throughput,
    "rivals-latency": _latency,
    "rivals-padding": _padding,
    "rivals-overload": _overload,
}
