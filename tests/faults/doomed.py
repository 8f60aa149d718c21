"""``pipemill worker`` in which something goes wrong by itself; the arguments are the command's.

``DOOM`` says what: with ``thread`` a thread of the engine dies, of the kind in ``KIND``, once jobs are in hand; with
``clock`` the wall clock jumps at every look. It is injected where Python code reads time (``time.time``): a library
that deceives a whole process isn't needed for that.
"""

from __future__ import annotations

import ctypes
import os
import random
import threading
import time
from functools import partial
from typing import Final

from pipemill.cli import main
from tests.helpers import until

#: How far the clock jumps, in seconds: a day forward or back.
JUMP_SECONDS: Final = 86_400.0
#: Time between two sweeps, in seconds: an hour would outlast the test.
SWEEP_SECONDS: Final = 0.1


class Doom(BaseException):
    """What a thread dies of: no handler of exceptions catches it."""


def doom_a_thread() -> None:
    """Let an engine start that loses a thread of the kind."""
    from pipemill_worker.celery_host import host  # noqa: PLC0415  # a jumping clock must be there before Celery is
    from pipemill_worker.engine import engine  # noqa: PLC0415  # as above

    class Doomed(engine.Engine):
        """Says which kinds of threads it has, and loses one of them at work."""

        def start(self) -> None:
            super().start()
            print(f"threads: {' '.join(sorted(self._threads))}.", flush=True)  # noqa: T201  # the test reads it
            threading.Thread(target=self._lose_one, daemon=True).start()

        def _lose_one(self) -> None:
            victim = self._threads[os.environ["KIND"]][0]
            until(lambda: all(lane.held and lane.gauges.ended_jobs for lane in self.lanes.values()), "jobs are in hand")
            # Raised in that thread wherever it is, as soon as it runs Python code again.
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(victim.ident or 0), ctypes.py_object(Doom))

    host.Engine = Doomed  # type: ignore[attr-defined]  # that is the doom
    engine.Sweeper = partial(engine.Sweeper, interval=SWEEP_SECONDS)  # type: ignore[assignment, attr-defined]  # as above


def doom_the_clock() -> None:
    """Let the wall clock jump at every look."""
    true, rng = time.time, random.Random(20)
    time.time = lambda: true() + rng.uniform(-JUMP_SECONDS, JUMP_SECONDS)


if __name__ == "__main__":
    {"thread": doom_a_thread, "clock": doom_the_clock}[os.environ["DOOM"]]()
    main()
