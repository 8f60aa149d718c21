"""pipemill beside the ways that people serve pipelines today: `scripts/bench rivals [--quick] [--write] [--json]`.

Stock Celery, celery-batches, LitServe, Mosec, Ray Serve and BentoML run in an environment of their own, each with the
best of a small sweep of its settings; pipemill runs with its defaults. Same model, same sentences, same core.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from benchmarks.rivals.bench import QUICK, Bench, Plan
from benchmarks.rivals.figures import Figures, bars
from benchmarks.rivals.report import show, write
from benchmarks.rivals.sides import OURS, PYTHON, SIDES


def measure(names: list[str], plan: Plan) -> Figures:
    """Run the benchmark with the sides named, and ours."""
    if not PYTHON.exists():
        raise SystemExit("the rivals aren't installed: run scripts/bootstrap-rivals")
    # What a server under measurement is told by no one else.
    os.environ.pop("PIPEMILL_CATALOGUE", None)
    # Servers are in sessions of their own, and stopped while others are measured: whoever ends this ends them.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    sides = [side for side in SIDES if side.name in {OURS, *names}]
    with tempfile.TemporaryDirectory() as folder:
        return Bench(sides, plan, Path(folder), Console(stderr=True)).run()


def main() -> int:
    """Measure and print; 1 if a bar is missed."""
    names = [side.name for side in SIDES if side.name != OURS]
    parser = argparse.ArgumentParser(prog="scripts/bench rivals", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--write", action="store_true", help="write the table and the plots into docs/")
    parser.add_argument("--quick", action="store_true", help="a smoke run: few texts, one setting each, one repeat")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--figures", type=Path, help="show what an earlier run printed with --json, measure nothing")
    options = parser.parse_args()
    if options.figures:
        figures = Figures.from_json(json.loads(options.figures.read_text("utf-8")))
    else:
        figures = measure(options.only, QUICK if options.quick else Plan())
    if options.json:
        print(json.dumps(figures.as_json()))
    else:
        show(figures, Console())
    if options.write:
        write(figures)
    return int(not all(bar.holds for bar in bars(figures)))


if __name__ == "__main__":
    raise SystemExit(main())
