"""A broker that keeps what it accepted through its own death, and can be made to fail."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import redis

from pipemill.embedded import EmbeddedBroker
from tests.e2e.rig import free_port, state_of
from tests.helpers import until

#: The file that a snapshot goes to; a folder in its place lets snapshots fail, as a full disk does.
SNAPSHOT: Final = "dump.rdb"


class DurableBroker:
    """A real Valkey with an append-only file that is on the disk before a command is answered."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._port = free_port()
        self._server = self._new()

    def _new(self) -> EmbeddedBroker:
        return EmbeddedBroker(port=self._port, folder=self._folder)

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.thaw()
        self._server.__exit__(kind, error, trace)

    def _start(self) -> None:
        self._server.__enter__()
        with self.admin() as admin:
            admin.config_set("appendfsync", "always")

    @property
    def url(self) -> str:
        """Its address; the same after a restart."""
        return f"redis://127.0.0.1:{self._port}/0"

    @property
    def port(self) -> int:
        """Its port on loopback."""
        return self._port

    @property
    def pid(self) -> int:
        """Its process id, another after a restart."""
        return self._server.pid

    def admin(self) -> Any:
        """A connection of one's own; close it."""
        return redis.Redis.from_url(self.url)

    def restart(self) -> None:
        """Kill it with SIGKILL, and start it again on its port and its file."""
        os.kill(self.pid, signal.SIGKILL)
        self._server.__exit__(None, None, None)
        self._server = self._new()
        self._start()

    def freeze(self) -> None:
        """Stop it in its tracks: it keeps its connections, and answers nobody."""
        os.kill(self.pid, signal.SIGSTOP)
        until(lambda: state_of(self.pid) == "T", "the broker stands still")

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def fill_disk(self) -> None:
        """Let it find out that it can't write a snapshot: it refuses all writes from then on (MISCONF)."""
        (self._folder / SNAPSHOT / "occupied").mkdir(parents=True)
        with self.admin() as admin:
            admin.config_set("save", "3600 1")
            admin.bgsave()
            until(lambda: admin.info("persistence")["rdb_last_bgsave_status"] == "err", "the snapshot has failed")

    def free_disk(self) -> None:
        """Let it write a snapshot: it accepts writes again."""
        shutil.rmtree(self._folder / SNAPSHOT)
        with self.admin() as admin:
            admin.bgsave()
            until(lambda: admin.info("persistence")["rdb_last_bgsave_status"] == "ok", "the snapshot was written")
