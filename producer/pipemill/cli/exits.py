"""Exit codes: the one place that says which error ends the command line with which number."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Final

from pipemill.errors import (
    BlobMissing,
    BrokerError,
    ConfigurationError,
    JobError,
    MediaUnreadable,
    PipemillError,
    ResultTimeout,
    SubmitError,
    UnknownJob,
)


class Exit(IntEnum):
    """How a call of the command line ended."""

    WELL = 0
    UNEXPECTED = 1
    USAGE = 2
    JOB = 3
    CONFIGURATION = 4
    BROKER = 5
    REFUSED = 6
    TIMEOUT = 7
    UNKNOWN_JOB = 8
    UNHEALTHY = 9
    ENGINE = 70
    INTERRUPTED = 130


#: What each code means, in words for people; the help and the documentation show them.
MEANINGS: Final[Mapping[Exit, str]] = {
    Exit.WELL: "it went well",
    Exit.UNEXPECTED: "an unexpected error",
    Exit.USAGE: "wrong usage: an unknown option, a missing argument, an unusable file",
    Exit.JOB: "the job failed, was cancelled or expired, or media of its answer are gone; with map, at least one did",
    Exit.CONFIGURATION: "a mistake in the configuration, or a missing extra",
    Exit.BROKER: "the broker can't be reached, or refused a command",
    Exit.REFUSED: "the job was not accepted: queue full or unknown, inputs too large",
    Exit.TIMEOUT: "the result didn't come in time; the job goes on",
    Exit.UNKNOWN_JOB: "there is no trace of the job",
    Exit.UNHEALTHY: "doctor found a problem; with health, the worker doesn't live or serve",
    Exit.ENGINE: "the engine of a worker died",
    Exit.INTERRUPTED: "interrupted by Ctrl-C or a signal",
}

#: The code of each branch of the error tree; an error has the code of its nearest ancestor here.
_CODES: Final[Mapping[type[PipemillError], Exit]] = {
    PipemillError: Exit.UNEXPECTED,
    JobError: Exit.JOB,
    BlobMissing: Exit.JOB,
    MediaUnreadable: Exit.JOB,
    ConfigurationError: Exit.CONFIGURATION,
    BrokerError: Exit.BROKER,
    SubmitError: Exit.REFUSED,
    ResultTimeout: Exit.TIMEOUT,
    UnknownJob: Exit.UNKNOWN_JOB,
}


def exit_of(error: PipemillError) -> Exit:
    """Find the exit code of an error."""
    return next(_CODES[ancestor] for ancestor in type(error).__mro__ if ancestor in _CODES)
