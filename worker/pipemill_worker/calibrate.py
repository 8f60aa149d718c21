"""``pipemill calibrate``: measure a queue's model on this machine; show the curve as a table, JSON, or a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from pipemill.errors import CatalogueError, ConfigurationError, MissingExtra
from pipemill_worker.celery_host.host import Host
from pipemill_worker.policy.calibration import Calibration
from pipemill_worker.policy.curve import Point


def calibrate_queue(
    queue: str, catalogue: str | None, options: Mapping[str, Any], *, png: Path | None, as_json: bool
) -> None:
    """Measure a queue's model, keep what was found for its workers, and show it.

    Raises
    ------
    CatalogueError
        When the catalogue has mistakes, or lacks the queue.
    ConfigurationError
        When the model can't be loaded, or nothing of it can be measured.

    """
    host = Host(catalogue, options)
    if queue not in (known := host.catalogue.queues):
        raise CatalogueError(f"no such queue in the catalogue: {queue}; it has {', '.join(sorted(known))}")
    calibration = host.calibration(queue)
    if calibration is None:
        raise ConfigurationError(
            f"queue {queue!r}: there is nothing to measure: its jobs share no forward pass, or its model writes token "
            "by token, so that the size of a pass doesn't tell its time"
        )
    if png is not None:
        draw(queue, calibration, png)
    if as_json:
        click.echo(json.dumps(to_document(queue, calibration)))
    else:
        show(queue, calibration, Console())


def show(queue: str, calibration: Calibration, console: Console) -> None:
    """Print the curves; the batch that was chosen is marked."""
    table = Table(title=f"{queue}: forward passes of growing size")
    for head in ("sharing", "items", "cost", "ms", "cost/s", "items/s", ""):
        table.add_column(head, justify="left" if head in {"sharing", ""} else "right")
    for sharing, curve in calibration.curves.items():
        for point in curve:
            chosen = "◀ chosen" if sharing == calibration.sharing and point is calibration.best else ""
            table.add_row(sharing, *_figures(point), chosen)
        table.add_section()
    console.print(table)
    if calibration.best.items == 1:
        console.print("No batch was faster than one item at a time: this queue's jobs run alone.")
    if calibration.ceiling is not None:
        console.print(f"The device's memory held {calibration.ceiling} items, and no more.")


def _figures(point: Point) -> tuple[str, ...]:
    rates = (point.seconds * 1e3, point.rate, point.items / point.seconds)
    return str(point.items), f"{point.cost:,}", *(f"{figure:,.1f}" for figure in rates)


def to_document(queue: str, calibration: Calibration) -> dict[str, Any]:
    """The curves and the choice, for machines."""
    best = calibration.best
    chosen = {"sharing": calibration.sharing, "items": best.items, "cost": best.cost, "seconds": best.seconds}
    return {"queue": queue, "chosen": chosen, **calibration.to_json()}


def draw(queue: str, calibration: Calibration, file: Path) -> None:
    """Draw the rate against the cost of a pass, one line for each way to share, as a PNG.

    Raises
    ------
    MissingExtra
        When matplotlib isn't installed.

    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415  # an extra
    except ImportError as error:
        raise MissingExtra('drawing needs matplotlib: pip install "pipemill[plots]"') from error
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for sharing, curve in calibration.curves.items():
        axes.plot([point.cost for point in curve], [point.rate for point in curve], marker="o", label=sharing)
    best = calibration.best
    axes.plot([best.cost], [best.rate], "k*", markersize=15, label=f"chosen: {best.items} items, cost {best.cost:,}")
    axes.set(
        xscale="log",
        ylim=(0, None),
        title=f"{queue}: how much a forward pass gains with its size",
        xlabel="cost of one forward pass, padding included (tokens for text)",
        ylabel="cost per second",
    )
    axes.grid(visible=True, alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(file, format="png", dpi=150)
