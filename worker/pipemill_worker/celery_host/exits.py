"""Exit codes of a worker; those of the command line are the same numbers."""

from __future__ import annotations

import logging
import os
import sys
from enum import IntEnum


class ExitCode(IntEnum):
    """What a worker's exit code says."""

    #: Asked to stop, and did.
    OK = 0
    #: The catalogue has a mistake, a model can't be loaded, or the pool can't serve; nothing was taken.
    CONFIGURATION = 4
    #: A thread of the engine died, the device was lost, or a pass is stuck; jobs were given back. Start it again.
    ENGINE_DIED = 70


def leave(code: ExitCode) -> None:
    """End the process, whatever its threads are at; what was logged is written.

    The usual way waits for what a model has started, which may never end.
    """
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    os._exit(code)
