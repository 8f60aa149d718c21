"""A worker's side of its supervisor: it says when it serves, and ends when its supervisor is gone.

The two share a pair of sockets; the worker's end is its standard input, which stays open through Celery's restart on
SIGHUP. The supervisor never writes: the end of the stream says that it is dead, whatever it died of, on every system.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from pipemill.cli.exits import Exit

log = logging.getLogger("pipemill.worker")

#: The environment variable that tells a worker that its standard input is its supervisor's socket. Its value is how
#: many seconds the worker may take to end when its supervisor is gone.
VARIABLE: Final = "PIPEMILL_SUPERVISED"
#: The environment variable that tells a worker how many processes its supervisor runs.
PROCESSES_VARIABLE: Final = "PIPEMILL_SUPERVISED_PROCESSES"
#: What a worker writes when it serves.
READY: Final = b"R"


def processes() -> int:
    """How many processes share this machine with this one, itself included, as far as a supervisor tells."""
    return int(os.environ.get(PROCESSES_VARIABLE) or 1)


def attach(node: str | None) -> Callable[[], None] | None:
    """Bind this worker's life to its supervisor's, and name it in its log lines.

    Returns what to call when it serves; ``None`` for a worker that has no supervisor.
    """
    seconds = os.environ.get(VARIABLE)
    if not seconds:
        return None
    # Celery's log format shows the process's name.
    multiprocessing.current_process().name = (node or "worker").partition("@")[0]
    threading.Thread(target=_watch, args=(float(seconds),), name="supervisor", daemon=True).start()
    return _tell


def _tell() -> None:
    with suppress(OSError):  # the supervisor is gone: the watching thread sees to that
        os.write(0, READY)


def _watch(seconds: float) -> None:
    """Wait until the supervisor is gone; then stop this worker in order, and in time."""
    with suppress(ConnectionError):  # it died before it read what we wrote
        while os.read(0, 1):
            pass
    log.warning("the supervisor is gone; this worker ends", extra={"event": "supervisor_lost"})
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(seconds)
    log.critical("still busy %.0f s after that; it ends at once", seconds, extra={"event": "supervisor_lost"})
    os._exit(Exit.ENGINE)
