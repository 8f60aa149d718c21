"""Who is compared: how each is started, what is swept, how it is asked."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.rivals.servers.settings import Settings

ROOT = Path(__file__).parents[2]
#: The rivals' own environment; scripts/bootstrap-rivals makes it.
PYTHON = ROOT / ".venv-rivals/bin/python"
#: The name of our side.
OURS = "pipemill"
STOCK = "stock Celery"
#: The least advantage over a rival's best setting; over one call per job.
BAR, STOCK_BAR = 1.6, 2.4

_SERVERS = "benchmarks.rivals.servers"


@dataclass(frozen=True, kw_only=True)
class Side:
    """One way of serving a pipeline."""

    name: str
    #: The distribution whose version is shown.
    package: str
    #: The command that starts it.
    command: Callable[[Settings], list[str]]
    #: The path of its HTTP server; None for those that are asked through the broker.
    path: str | None = None
    #: Whether a request is a list of texts, and its answer a list.
    listed: bool = False
    #: Settings tried: batch size and wait in seconds; among equals the first wins.
    sweep: tuple[tuple[int, float], ...] = ((1, 0.0),)
    #: What the two are called there.
    knobs: tuple[str, str] = ("", "")
    #: Whether it is told the deadline once, when it starts, and not with each request.
    started_with_deadline: bool = False
    #: Whether it behaves differently after what it was asked in the sweep, so that it is started afresh.
    learns: bool = False

    def shown(self, size: int, wait: float) -> str:
        """A setting in the rival's own words."""
        names = [f"{name}={value:g}" for name, value in zip(self.knobs, (size, wait), strict=True) if name]
        return ", ".join(names) or "–"


def _module(name: str) -> Callable[[Settings], list[str]]:
    return lambda _: [str(PYTHON), "-m", f"{_SERVERS}.{name}"]


def _mosec(settings: Settings) -> list[str]:
    options = {"address": "127.0.0.1", "port": settings.port, "timeout": round(settings.deadline * 1e3)}
    return [
        *_module("mosec_worker")(settings),
        *(word for name, each in options.items() for word in (f"--{name}", f"{each}")),
    ]


def _bento(settings: Settings) -> list[str]:
    service = f"{_SERVERS}.bento_service:Classifier"
    return [str(PYTHON), "-m", "bentoml", "serve", service, "--host", "127.0.0.1", "--port", str(settings.port)]


def _celery(name: str) -> Callable[[Settings], list[str]]:
    worker = ["worker", "--pool", "solo", "--loglevel", "WARNING", "--without-gossip", "--without-mingle"]
    return lambda settings: [
        *(str(PYTHON), "-m", "celery", "--app", f"{_SERVERS}.{name}:app"),
        *(*worker, "--queues", settings.queue, "--hostname", f"{settings.queue}@%h"),
    ]


def _pipemill(settings: Settings) -> list[str]:
    catalogue = Path(settings.computing).with_suffix(".yaml")
    queue = f"{settings.queue}: {{task: text-classification, model: {settings.model}, device: cpu}}"
    catalogue.write_text(f"worker: {{torch_threads: 1}}\nqueues: {{{queue}}}\n", "utf-8")
    return [sys.executable, "-m", "pipemill", "worker", "--catalogue", str(catalogue), "--broker", settings.broker]


SIDES = (
    Side(name=OURS, package="pipemill", command=_pipemill),
    Side(name=STOCK, package="celery", command=_celery("celery_stock")),
    Side(
        name="celery-batches",
        package="celery-batches",
        command=_celery("celery_batched"),
        sweep=((4, 0.01), (8, 0.01), (16, 0.01), (8, 0.1)),
        knobs=("flush_every", "flush_interval"),
    ),
    Side(
        name="LitServe",
        package="litserve",
        command=_module("litserve_api"),
        path="/predict",
        sweep=((4, 0.0), (8, 0.0), (16, 0.0), (8, 0.01)),
        knobs=("max_batch_size", "batch_timeout"),
        started_with_deadline=True,
    ),
    Side(
        name="Mosec",
        package="mosec",
        command=_mosec,
        path="/inference",
        sweep=((4, 0.001), (8, 0.001), (16, 0.001), (8, 0.01)),
        knobs=("max_batch_size", "max_wait_time"),
        started_with_deadline=True,
    ),
    Side(
        name="Ray Serve",
        package="ray",
        command=_module("ray_deployment"),
        path="/",
        sweep=((4, 0.0), (8, 0.0), (16, 0.0), (8, 0.01)),
        knobs=("max_batch_size", "batch_wait_timeout_s"),
        started_with_deadline=True,
    ),
    Side(
        name="BentoML",
        package="bentoml",
        command=_bento,
        path="/classify",
        listed=True,
        sweep=((4, 0.0), (8, 0.0), (16, 0.0), (32, 0.0)),
        knobs=("max_batch_size", ""),
        started_with_deadline=True,
        learns=True,
    ),
)
