"""``pipemill worker``: build the application, and run Celery's own worker on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipemill.catalogue import load_catalogue
from pipemill.errors import CatalogueError
from pipemill_worker.celery_host.application import create_app
from pipemill_worker.celery_host.exits import ExitCode


def serve(
    queues: Sequence[str],
    catalogue: str | None,
    options: Mapping[str, Any],
    *,
    hostname: str | None = None,
    loglevel: str = "INFO",
) -> int:
    """Serve queues until the worker is asked to stop; its exit code.

    Raises
    ------
    CatalogueError
        When the catalogue has mistakes, or lacks one of the queues.

    """
    known = load_catalogue(catalogue, overrides=options).queues
    missing = [queue for queue in queues if queue not in known]
    if missing:
        text = f"no such queue in the catalogue: {', '.join(missing)}; it has {', '.join(sorted(known))}"
        raise CatalogueError(text)
    app = create_app(catalogue, options)
    worker = app.Worker(queues=list(queues or known), hostname=hostname, loglevel=loglevel)
    worker.start()
    return int(worker.exitcode or ExitCode.OK)
