"""The servers of one run: started together, measured one at a time, stopped at the end."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.material import TASK
from benchmarks.rivals.asking import PATIENCE_SECONDS, Asker, NoAnswer, asking
from benchmarks.rivals.load import Loop
from benchmarks.rivals.server import Server, Unavailable
from benchmarks.rivals.servers.settings import Settings
from benchmarks.rivals.sides import OURS, Side
from pipemill.errors import PipemillError
from pipemill.store.base import QueueInfo
from pipemill.store.queues import RedisQueueStore

#: How long a server may take until it answers: models and frameworks load, several at a time; in seconds.
READY_SECONDS = 150.0
#: How long one request may take while a server starts, in seconds.
TRY_SECONDS = 5.0
#: What makes a side unmeasurable, instead of ending the run.
FAILURES = (NoAnswer, Unavailable, PipemillError, TimeoutError, OSError)

#: A batch size, and a wait in seconds.
Setting = tuple[int, float]


@dataclass(frozen=True, kw_only=True)
class Cores:
    """Who runs where."""

    #: Whoever computes.
    computing: int
    #: The load generator, the broker, and what of a rival doesn't compute.
    other: int

    @classmethod
    def here(cls) -> Cores:
        """Two cores of this machine."""
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        if len(cores) < 2:  # noqa: PLR2004  # see above
            raise SystemExit("this benchmark pins processes to two cores: run it on Linux, with two cores or more")
        return cls(computing=cores[0], other=cores[1])

    def take(self, *cores: int) -> None:
        """Move this thread, and what it starts from now on."""
        os.sched_setaffinity(0, cores)


class Fleet:
    """Servers by name."""

    def __init__(self, folder: Path, broker: str, cores: Cores, say: Callable[[str], None]):
        self._folder = folder
        self._broker = broker
        self._cores = cores
        self._say = say
        self._started = 0
        self.servers: dict[str, Server] = {}
        #: Why a server could not be measured.
        self.failed: dict[str, str] = {}

    @property
    def names(self) -> list[str]:
        """The servers that are there."""
        return list(self.servers)

    def start(self, wanted: Mapping[str, tuple[Side, Setting]], deadline: float, text: str) -> None:
        """Start servers together, wait until each has answered a text, and stop their clocks."""
        self._say(f"starting {', '.join(wanted)}")
        self._cores.take(self._cores.computing, self._cores.other)
        for name, (side, setting) in wanted.items():
            self.servers[name] = Server(side, self._settings(side, setting, deadline), self._folder)
        self._cores.take(self._cores.other)
        for name in wanted:
            try:
                asyncio.run(_ready(self.servers[name], text))
            except FAILURES as error:
                self._give_up(name, error)
        for name in wanted.keys() & self.servers.keys():
            self.servers[name].pause()

    def rename(self, name: str, other: str) -> None:
        """Call a server something else, unless it has failed."""
        if server := self.servers.pop(name, None):
            self.servers[other] = server

    def stop(self, names: list[str]) -> None:
        """Stop those of them that run, all at the same time."""
        leaving = [self.servers.pop(name) for name in names if name in self.servers]
        for server in leaving:
            server.end()
        for server in leaving:
            server.stop()

    def measure(self, name: str, work: Callable[[Asker], Awaitable[Loop]]) -> Loop | None:
        """Let a server run, alone on its core, and ask it; None when it has failed, now or before."""
        server = self.servers.get(name)
        if server is None:
            return None

        async def run() -> Loop:
            async with asking(server) as asker, asyncio.timeout(PATIENCE_SECONDS):
                return await work(asker)

        try:
            with server.measured(self._cores.computing, self._cores.other):
                return asyncio.run(run())
        except FAILURES as error:
            self._give_up(name, error)
            return None

    def _settings(self, side: Side, setting: Setting, deadline: float) -> Settings:
        self._started += 1
        queue = f"{side.package}-{self._started}"
        if side.path is None and side.name != OURS:
            RedisQueueStore(self._broker).declare(QueueInfo(name=queue, task=TASK))
        return Settings(
            model=str(self._folder / "model"),
            computing=str(self._folder / queue),
            port=_free_port(),
            broker=self._broker,
            queue=queue,
            size=setting[0],
            wait=setting[1],
            deadline=deadline,
        )

    def _give_up(self, name: str, error: BaseException) -> None:
        server = self.servers.pop(name)
        self.failed[name] = f"{type(error).__name__}: {error}; {server.log()}"
        self._say(f"{name} can't be measured: {self.failed[name]}")
        server.stop()
        if server.side.name == OURS:
            raise RuntimeError(f"{name} itself: {self.failed[name]}") from error


async def _ready(server: Server, text: str) -> None:
    ends = time.monotonic() + READY_SECONDS
    async with asking(server) as asker:
        while True:
            server.check()
            try:
                await asker.ask(text, TRY_SECONDS)
            except NoAnswer as error:
                if time.monotonic() > ends:
                    raise Unavailable(f"no answer in {READY_SECONDS:g} s") from error
                await asyncio.sleep(0.1)
            else:
                return


def _free_port() -> int:
    """A port that nobody listens on, chosen by the system."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
