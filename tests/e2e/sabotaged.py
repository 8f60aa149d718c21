"""``pipemill worker`` with echo lanes that "poison" breaks; the arguments are the command's.

``SABOTAGE`` says how: ``lose`` loses the device, ``kill`` kills the process, ``hang`` never comes back, ``wait``
comes back once the file named by ``GATE`` is there.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipemill.cli import main
from pipemill_worker.pipelines import factory
from pipemill_worker.pipelines.echo import EchoRunner
from pipemill_worker.seams import Item
from tests.helpers import until


class Sabotaged(EchoRunner):
    """A runner that breaks."""

    def forward(self, items: Sequence[Item]) -> Sequence[Any]:
        """Answer with the inputs, or break."""
        if any(item.payload == "poison" for item in items):
            if os.environ["SABOTAGE"] == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if os.environ["SABOTAGE"] == "hang":
                threading.Event().wait()
            if os.environ["SABOTAGE"] == "wait":
                until(Path(os.environ["GATE"]).exists, "the gate is open")
                return super().forward(items)
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return super().forward(items)

    def is_device_lost(self, error: BaseException) -> bool:  # noqa: ARG002  # the seam's signature
        """Whatever happened, it was that."""
        return True


if __name__ == "__main__":
    factory.EchoRunner = Sabotaged  # type: ignore[attr-defined]  # that is the sabotage
    main()
