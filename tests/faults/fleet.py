"""Workers that die: so many at a time, started again whenever one has ended."""

from __future__ import annotations

import signal
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipemill import Client
from tests.e2e.rig import Process, Serve, served_by

#: With which exit code a worker ends that was told so; one that ends unasked has none that is right.
RIGHT: Final = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 0}
#: Characters of a log that a report repeats.
TOLD: Final = 3_000


@dataclass(slots=True)
class _Member:
    process: Process
    told: signal.Signals | None = None


class Fleet:
    """Keeps so many workers running on one catalogue, and remembers how each ended."""

    def __init__(self, serve: Serve, catalogue: Path, size: int):
        self._serve = serve
        self._catalogue = catalogue
        self._size = size
        self._members: list[_Member] = []
        #: How workers ended, and how often: ``SIGKILL -9``, ``SIGTERM 0``; ``unasked 1`` for one.
        self.exits: Counter[str] = Counter()
        #: The ends of the logs of those that ended otherwise than they were told.
        self.complaints: list[str] = []

    @property
    def well(self) -> bool:
        """Whether every worker that ended did so as it was told."""
        return not self.complaints

    def tend(self) -> None:
        """Note who has ended, and start another in the place of each."""
        for member in [member for member in self._members if member.process.ended]:
            self._note(member)
        while len(self._members) < self._size:
            self._members.append(_Member(self._serve.start(self._catalogue)))

    def _note(self, member: _Member) -> None:
        code = member.process.wait()
        self._members.remove(member)
        cause = member.told.name if member.told else "unasked"
        self.exits[f"{cause} {code}"] += 1
        # Told before it listened to signals, and so before it took anything, it ends by the signal itself.
        unheard = member.told is not None and code == -member.told and not member.process.output().strip()
        if not unheard and (member.told is None or RIGHT[member.told] != code):
            self.complaints.append(f"{cause} {code}\n{member.process.output()[-TOLD:]}")

    def pids(self) -> set[int]:
        """The process ids of those that live."""
        return {member.process.pid for member in self._members if not member.process.ended}

    def serving(self, client: Client) -> list[Process]:
        """Those that report a lane and weren't told to end."""
        there = [member.process for member in self._members if member.told is None and not member.process.ended]
        return [process for process in there if served_by(client, process)]

    def tell(self, process: Process, how: signal.Signals) -> None:
        """Send a worker a signal that ends it."""
        (member,) = (member for member in self._members if member.process is process)
        member.told = how
        process.send(how)

    def stop(self) -> None:
        """End all with SIGTERM, in order."""
        for member in self._members:
            if member.told is None and not member.process.ended:
                self.tell(member.process, signal.SIGTERM)
        for member in list(self._members):
            member.process.wait()
            self._note(member)
