"""Whether an engine is live and ready: a pure judgement of what is seen of it.

What isn't live is mended by a restart only. What passes by itself isn't ready and stays live: a restart in the middle
of loading, of a drain, or of an hour without a broker would only load the models once more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pipemill.health import Health

#: How long the heartbeat may be at one attempt, in seconds. Looking a name up at several servers, connecting and
#: waiting for an answer take no longer together; beyond that it hangs, and its jobs are others' by now.
SILENT_SECONDS: Final = 180.0
#: How long the broker may be silent before a worker isn't ready, in seconds, where leases are no shorter than that.
BROKER_SECONDS: Final = 10.0

#: Before the engine runs.
STARTING: Final = Health(live=True, ready=False, reasons=("starting: its models are loaded and warmed up first",))


@dataclass(frozen=True, slots=True, kw_only=True)
class Signs:
    """What is seen of an engine at one moment."""

    #: Its threads were started.
    started: bool
    #: It takes no more jobs.
    stopping: bool
    #: Its jobs are given back.
    closed: bool
    #: The class of the error that ended one of its threads.
    failure: str | None
    #: Threads that ended, by name.
    ended: tuple[str, ...]
    #: Since the heartbeat last set out to renew a lease, in seconds.
    tried_seconds: float
    #: Since the broker last renewed one, in seconds; None if it never did.
    renewed_seconds: float | None
    #: How long a lease lasts, in seconds.
    lease_seconds: float


def judge(signs: Signs) -> Health:
    """Whether an engine is live and ready, and why not."""
    if not signs.started:
        return STARTING
    broken, unready = tuple(_broken(signs)), tuple(_unready(signs))
    return Health(live=not broken, ready=not broken and not unready, reasons=broken + unready)


def _broken(signs: Signs) -> Iterator[str]:
    """What only a restart mends."""
    if signs.failure is not None:
        yield f"engine: it failed ({signs.failure}), gives its jobs back, and ends"
    elif not signs.stopping:
        yield from (f"thread: {name} has ended" for name in signs.ended)
    if signs.tried_seconds > SILENT_SECONDS and not signs.closed:
        yield f"heartbeat: it has hung for {signs.tried_seconds:.0f} s"


def _unready(signs: Signs) -> Iterator[str]:
    """What passes."""
    if signs.stopping:
        yield "draining: it finishes what runs, and takes no more"
    elif signs.renewed_seconds is None:
        yield "broker: it has not answered yet"
    elif signs.renewed_seconds > min(BROKER_SECONDS, signs.lease_seconds):
        yield f"broker: it has not answered for {signs.renewed_seconds:.0f} s"
