"""``pipemill worker``: build the application, and run Celery's own worker on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from celery.signals import worker_ready
from celery.utils.nodenames import default_nodename, host_format

from pipemill.catalogue import load_catalogue
from pipemill_worker.celery_host.application import create_app
from pipemill_worker.celery_host.exits import ExitCode
from pipemill_worker.fleet.launch import choose


def serve(  # noqa: PLR0913  # the command's options
    queues: Sequence[str],
    catalogue: str | None,
    options: Mapping[str, Any],
    *,
    hostname: str | None = None,
    loglevel: str = "INFO",
    on_ready: Callable[[], None] | None = None,
) -> int:
    """Serve queues until the worker is asked to stop; its exit code. ``on_ready`` is called when it serves.

    Raises
    ------
    CatalogueError
        When the catalogue has mistakes, or lacks one of the queues.

    """
    chosen = list(choose(load_catalogue(catalogue, overrides=options), queues))
    app = create_app(catalogue, options)
    node = host_format(default_nodename(hostname))  # %h becomes the host, as Celery's own command has it
    worker = app.Worker(queues=chosen, hostname=node, loglevel=loglevel)
    if on_ready is not None:
        worker_ready.connect(lambda **_: on_ready(), weak=False)
    worker.start()
    return int(worker.exitcode or ExitCode.OK)
