"""Exit codes of a worker; those of the command line are the same numbers."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What a worker's exit code says."""

    #: Asked to stop, and did.
    OK = 0
    #: The catalogue has a mistake, a model can't be loaded, or the pool can't serve; nothing was taken.
    CONFIGURATION = 4
    #: A thread of the engine died or the device was lost; jobs were given back. Start it again.
    ENGINE_DIED = 70
