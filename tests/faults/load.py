"""A producer at full load, in a process of its own: ``python -m tests.faults.load BROKER KNOWN.json``.

Keeps a window of jobs on its way in each queue of the file, whose jobs have known answers, until it gets SIGTERM; then
it prints how many were answered, and how many of them wrongly.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any, Final

from pipemill import Client
from tests.faults.accounting import alike

#: Jobs on their way in each queue: more than the workers' windows, so that full batches are always at hand.
WINDOW: Final = 512


class Load:
    """Keeps queues busy until ``stopping`` is set."""

    def __init__(self, broker: str):
        self._broker = broker
        self.stopping = threading.Event()
        #: Answers by queue, and those that weren't the known ones.
        self.answered: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()

    def keep(self, queue: str, known: Sequence[tuple[Any, Any]]) -> None:
        """Keep one queue busy, with these jobs over and over; a queue without known answers echoes."""
        with Client(self._broker) as client:
            answers = client.map(queue, self._inputs(known), window=WINDOW, return_errors=True)
            for number, answer in enumerate(answers):
                expected = known[number % len(known)][1] if known else f"text {number}"
                self.answered[queue] += 1
                self.wrong[queue] += not alike(answer, expected)

    def _inputs(self, known: Sequence[tuple[Any, Any]]) -> Iterator[Any]:
        for number in count():
            if self.stopping.is_set():
                return
            yield known[number % len(known)][0] if known else f"text {number}"


def main() -> None:
    """Run until SIGTERM."""
    load = Load(sys.argv[1])
    signal.signal(signal.SIGTERM, lambda *_: load.stopping.set())
    known = json.loads(Path(sys.argv[2]).read_text("utf-8"))
    threads = [threading.Thread(target=load.keep, args=item) for item in known.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({"answered": load.answered, "wrong": load.wrong}))  # noqa: T201  # that is its report


if __name__ == "__main__":
    main()
