"""The long form of the fault suite: ``scripts/soak``. docs/reliability.md says what it does and how to read it."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.recovery import measure
from rich.console import Console
from rich.table import Table

from tests.e2e.rig import Serve
from tests.faults import steady
from tests.faults.campaign import Campaign, Settings
from tests.faults.durable import DurableBroker
from tests.faults.material import MIXED, Material, known_answers
from tests.faults.schedule import Kind

#: Option → the fault and how often it comes unless told otherwise.
FAULTS: Final[Mapping[str, tuple[Kind, int]]] = {
    "kills": (Kind.KILL, 60),
    "terms": (Kind.TERM, 20),
    "connections": (Kind.CONNECTIONS, 20),
    "restarts": (Kind.RESTART, 10),
    "flushes": (Kind.FLUSH, 5),
    "pauses": (Kind.PAUSE, 5),
}
#: One timed kill: jobs, and the lease's length in seconds.
RECOVERY_JOBS: Final = 2_000
RECOVERY_LEASE_SECONDS: Final = 5.0


def arguments() -> argparse.ArgumentParser:
    """What the command takes."""
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    parser.add_argument("--jobs", type=int, default=100_000, help="jobs in all (100,000)")
    parser.add_argument("--minutes", type=float, default=0.0, help="spread the jobs over so long; as they end, if 0")
    for name, (kind, times) in FAULTS.items():
        parser.add_argument(f"--{name}", type=int, default=times, metavar="N", help=f"faults: {kind.value} ({times})")
    parser.add_argument("--recoveries", type=int, default=3, metavar="N", help="timed kills after the account (3)")
    parser.add_argument("--workers", type=int, default=2, help="worker processes at a time (2)")
    parser.add_argument("--seed", type=int, default=20, help="draws jobs and faults (20)")
    parser.add_argument("--steady", type=float, metavar="MINUTES", help="instead: full load, no faults, and slopes")
    parser.add_argument("--json", action="store_true", help="one JSON document and no table")
    return parser


def soak(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run it; what came of it."""
    known = known_answers(list(MIXED))
    serve = Serve(folder, "")
    try:
        with DurableBroker(folder / "broker") as broker:
            if options.steady is not None:
                return steady.run(serve, broker, list(MIXED), known, options.steady)
            settings = Settings(
                jobs=options.jobs,
                counts={kind: getattr(options, name) for name, (kind, _) in FAULTS.items()},
                seed=options.seed,
                workers=options.workers,
                backlog=2_000,
                spread_seconds=60 * options.minutes,
            )
            figures = Campaign(serve, broker, settings, Material(options.seed, MIXED, known)).run().figures()
    finally:
        serve.end()
    return figures | {"recovery": _recoveries(options.recoveries)}


def _recoveries(times: int) -> dict[str, Any]:
    """Kill a worker beside another, without other faults: how soon its jobs are back, in lease lengths."""
    return {f"kill {number}": measure(RECOVERY_LEASE_SECONDS, RECOVERY_JOBS) for number in range(1, times + 1)}


def show(figures: Mapping[str, Any], console: Console) -> None:
    """Print what came of it as tables."""
    tables = {name: value for name, value in figures.items() if isinstance(value, dict)}
    console.print(_table("soak", {name: value for name, value in figures.items() if name not in tables}))
    for name, value in tables.items():
        console.print(_table(name, value))


def _table(title: str, rows: Mapping[str, Any]) -> Table:
    """Rows of one value each, or of several where each row is a mapping."""
    nested = [row for row in rows.values() if isinstance(row, Mapping)]
    columns = list(nested[0]) if nested and len(nested) == len(rows) and all(nested) else []
    table = Table("", *(columns or [""]), title=title)
    for name, value in rows.items():
        cells = [value.get(column) for column in columns] if columns else [value]
        table.add_row(name, *map(_cell, cells))
    return table


def _cell(value: Any) -> str:
    """A figure for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def main() -> int:
    """Run, print, and say by the exit code whether all is well."""
    options = arguments().parse_args()
    with tempfile.TemporaryDirectory(prefix="pipemill-soak-") as folder:
        figures = soak(options, Path(folder))
    if options.json:
        print(json.dumps(figures, indent=2))  # noqa: T201  # that is what was asked for
    else:
        show(figures, Console(width=120))
    return 0 if figures["well"] else 1


if __name__ == "__main__":
    sys.exit(main())
