"""The figures as tables: on the terminal, and in docs/rivals.md between two markers."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from benchmarks.measure import Spread
from benchmarks.rivals.figures import DIRECT, Figures, bars, ratio
from benchmarks.rivals.plots import draw
from benchmarks.rivals.sides import OURS, ROOT

PAGE = ROOT / "docs/rivals.md"
IMAGES = ROOT / "docs/images"
#: What is between them is written by the command.
BEGIN, END = "<!-- begin: scripts/bench rivals --write -->", "<!-- end -->"
NONE = "–"


@dataclass(frozen=True)
class Sheet:
    """One table."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def sheets(figures: Figures) -> list[Sheet]:
    """The tables that have rows."""
    return [sheet for sheet in _sheets(figures) if sheet.rows]


def _sheets(figures: Figures) -> Iterator[Sheet]:
    yield _overview(figures)
    yield _loops(figures)
    yield Sheet(
        "Settings tried, all texts at once",
        ("side", "setting", "texts/s"),
        [(name, shown, f"{rate:.1f}") for name, tried in figures.sweep.items() for shown, rate in tried.items()],
    )
    yield Sheet(
        "Bars",
        ("what", "value", "bar", ""),
        [(bar.what, f"{bar.value:.3g}", bar.bar, "holds" if bar.holds else "missed") for bar in bars(figures)],
    )


def _overview(figures: Figures) -> Sheet:
    columns = ("side", "setting", "texts/s", f"{OURS} ÷ it", "one client, ms", "added, ms", "padding", "wrong answers")
    names = sorted(figures.bulk, key=lambda name: -statistics.median(figures.bulk[name]))
    return Sheet(
        f"{figures.texts} texts at once, and one client at a time; median [least–most]",
        columns,
        [
            (
                f"{name} {figures.versions.get(name, '')}".strip(),
                figures.settings.get(name, NONE),
                str(Spread(tuple(figures.bulk[name]))),
                NONE if name == OURS else f"{ratio(figures, name):.2f}",
                _spread(figures.idle_ms.get(name)),
                NONE if name == DIRECT else _spread(figures.added_ms.get(name)),
                f"{figures.waste[name]:.0%}" if name in figures.waste else NONE,
                str(figures.wrong.get(name, NONE)),
            )
            for name in names
        ],
    )


def _loops(figures: Figures) -> Sheet:
    clients = list(dict.fromkeys(number for loops in figures.closed.values() for number in loops))
    loads = list(dict.fromkeys(share for loops in figures.opened.values() for share in loops))
    columns = [f"{number} clients" for number in clients] + [f"{share} × capacity" for share in loads]
    rows = []
    for name in figures.settings:
        closed, opened = figures.closed.get(name, {}), figures.opened.get(name, {})
        cells = [
            f"{_ms(closed[number])} ({closed[number]['rate']:.3g}/s)" if number in closed else NONE
            for number in clients
        ]
        cells += [
            f"{_ms(opened[share])} ({opened[share]['goodput']:.2f})" if share in opened else NONE for share in loads
        ]
        rows.append((name, *cells))
    return Sheet(
        "Latency of answers, p50 · p95 in ms (closed loop: texts/s; open loop: goodput as a share of capacity)",
        ("side", *columns),
        rows,
    )


def _ms(found: dict[str, float] | dict[str, float | None]) -> str:
    return " · ".join(NONE if each is None else f"{each:.0f}" for each in (found["p50_ms"], found["p95_ms"]))


def _spread(values: Sequence[float] | None) -> str:
    return str(Spread(tuple(values))) if values else NONE


def show(figures: Figures, console: Console) -> None:
    """Print everything on the terminal."""
    for sheet in sheets(figures):
        table = Table(*map(escape, sheet.columns), title=Text(sheet.title), title_justify="left")
        for row in sheet.rows:
            table.add_row(*map(escape, row))
        console.print(table)
    for name, why in figures.unavailable.items():
        console.print(f"not measured: {name}: {why}", style="red", markup=False)


def markdown(figures: Figures) -> str:
    """Everything as Markdown, pictures included."""
    lines = ["", "Measured on: " + "; ".join(f"{name} {each}" for name, each in figures.machine.items()) + ".", ""]
    for name, title in TITLES.items():
        lines += [f"![{title}](images/{name}.png)", ""]
    for sheet in sheets(figures):
        lines += [f"**{sheet.title}**", "", _row(sheet.columns), _row("---" for _ in sheet.columns)]
        lines += [*map(_row, sheet.rows), ""]
    lines += [f"Not measured: {name}: {why}" for name, why in figures.unavailable.items()]
    return "\n".join(lines)


def _row(cells: Sequence[str] | Iterator[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def replaced(page: str, text: str) -> str:
    """The page with another text between its markers.

    Raises
    ------
    ValueError
        When the page lacks them.

    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE.name} needs the lines {BEGIN!r} and {END!r}, in this order")
    return f"{before}{BEGIN}\n{text.strip()}\n{END}{after}"


def write(figures: Figures) -> None:
    """Write the page's tables, and the pictures."""
    draw(figures, IMAGES)
    PAGE.write_text(replaced(PAGE.read_text("utf-8"), markdown(figures)), "utf-8")


#: The pictures, by the name of their file.
TITLES = {
    "rivals-throughput": "Texts per second of each side, all texts at once",
    "rivals-latency": "Latency against load of each side",
    "rivals-padding": "Share of padding in the tokens computed",
    "rivals-overload": "Answers within the deadline against load, as shares of capacity",
}
