"""The commands that need what a worker installs. What they run is imported when they run."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

catalogue_option = click.option(
    "--catalogue",
    type=click.Path(dir_okay=False),
    envvar="PIPEMILL_CATALOGUE",
    help="The catalogue. Default: ./pipemill.yaml.",
)


@click.command()
@click.argument("queues", nargs=-1)
@catalogue_option
@click.option("--broker", help="Redis or Valkey URL, instead of the catalogue's.")
@click.option("--device", help="Device of every queue: auto, cpu, cuda, cuda:N or mps.")
@click.option(
    "--processes", metavar="N|auto", help="Worker processes; auto is one for each GPU, or for each core it may run on."
)
@click.option("--torch-threads", type=int, help="CPU threads of one forward pass.")
@click.option("--preprocess-threads", type=int, help="Threads that tokenize.")
@click.option("--lease-seconds", type=float, help="After how long a silent worker's jobs go to others.")
@click.option("--drain-seconds", type=float, help="How long running jobs may take to end after SIGTERM.")
@click.option("--max-deliveries", type=int, help="Workers that may die on a job before it fails.")
@click.option("--health-file", help="Write how the worker is into this file, once a second.")
@click.option("--health-port", type=int, help="Tell over HTTP how the worker is, at this port.")
@click.option("--health-host", help="Address of that port; else 127.0.0.1.")
@click.option("--hostname", "-n", help="Celery's node name, such as gpu1@%h.")
@click.option("--loglevel", "-l", default="INFO", show_default=True, help="DEBUG, INFO, WARNING, ERROR or CRITICAL.")
def worker(queues: tuple[str, ...], catalogue: str | None, hostname: str | None, loglevel: str, **options: Any) -> None:
    """Serve QUEUES of the catalogue; all of them if none is named.

    The same worker as `celery -A pipemill_worker.app worker -Q QUEUES`. It loads and warms up the models, then takes
    jobs. SIGTERM stops it: what runs is finished, the rest goes back to the queue. With several processes, this one
    starts the others and watches over them.
    """
    from pipemill_worker.fleet.launch import supervise  # noqa: PLC0415  # loads pydantic
    from pipemill_worker.fleet.link import attach  # noqa: PLC0415  # as above

    code = supervise(queues, catalogue, options, hostname=hostname, loglevel=loglevel)
    if code is None:
        from pipemill_worker.celery_host.serve import serve  # noqa: PLC0415  # loads Celery

        alone = options | {"processes": 1}
        code = serve(queues, catalogue, alone, hostname=hostname, loglevel=loglevel, on_ready=attach(hostname))
    sys.exit(code)


@click.command()
@click.argument("queue")
@catalogue_option
@click.option("--device", help="Instead of the queue's: auto, cpu, cuda, cuda:N or mps.")
@click.option("--torch-threads", type=int, help="CPU threads of one forward pass.")
@click.option("--cache-dir", type=click.Path(file_okay=False), help="Where workers keep what they measured.")
@click.option("--png", type=click.Path(dir_okay=False), help="Draw the curve into this file.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of a table.")
def calibrate(queue: str, catalogue: str | None, png: str | None, as_json: bool, **options: Any) -> None:  # noqa: FBT001  # a flag of the command
    """Measure the model of QUEUE on this machine: how much a forward pass gains with its size.

    Workers measure by themselves when they first start, and keep what they found. This measures again, keeps it for
    them, and shows it. Run it on a quiet machine, with the threads that a worker will have.
    """
    from pipemill_worker.calibrate import calibrate_queue  # noqa: PLC0415  # loads torch in the end

    calibrate_queue(queue, catalogue, options, png=Path(png) if png else None, as_json=as_json)


@click.command()
@catalogue_option
@click.option("--cache-dir", type=click.Path(file_okay=False), help="Where to put them. Default: the hub's own cache.")
def fetch(catalogue: str | None, cache_dir: str | None) -> None:
    """Download the models of a catalogue ahead, so that workers can run offline (HF_HUB_OFFLINE=1)."""
    from pipemill.catalogue import load_catalogue  # noqa: PLC0415  # loads pydantic
    from pipemill_worker.fetch import fetch_models  # noqa: PLC0415  # loads the hub's client

    for fetched in fetch_models(load_catalogue(catalogue), Path(cache_dir) if cache_dir else None):
        click.echo(f"{fetched.queue}: {fetched.model} {fetched.note}")


@click.command()
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option("--keep", is_flag=True, help="Leave the broker and the worker up until Ctrl-C.")
@click.option("--rows", type=click.IntRange(0), default=12, show_default=True, help="Answers to show.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of tables.")
def demo(file: str | None, keep: bool, rows: int, as_json: bool) -> None:  # noqa: FBT001  # flags of the command
    """Send 500 sentences, or the lines of FILE, through a broker and a worker of their own; then clean up."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from pipemill_worker.demo.run import run_demo  # noqa: PLC0415  # loads torch in the end

    lines = click.open_file(file, encoding="utf-8").read().splitlines() if file else None
    sys.exit(run_demo(lines, keep=keep, rows=rows, as_json=as_json))
