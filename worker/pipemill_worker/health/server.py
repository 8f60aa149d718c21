"""The port at which a process says how it is: two paths, and nothing that a client could keep busy or fill up.

One thread serves all connections. Each has a few seconds in all, however slowly its client writes or reads; their
number, and the bytes that are read of each, are bounded.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Final

from pipemill.errors import ConfigurationError
from pipemill.health import LIVE_PATH, READY_PATH, Health

#: How long a connection may last, in seconds; probes wait for less.
CONNECTION_SECONDS: Final = 5.0
#: Connections at a time; further ones are dropped at once. A few probes ask, each every few seconds.
MOST_CONNECTIONS: Final = 32
#: Bytes of a request's head that are read; that of a probe has about 100.
MOST_BYTES: Final = 8_192
#: How long the thread may take to start, in seconds; far more than it needs.
START_SECONDS: Final = 10.0
#: How long the thread may take to end, in seconds; it must not keep the process.
END_SECONDS: Final = 1.0

_ASKED: Final = {LIVE_PATH.encode(): "live", READY_PATH.encode(): "ready"}
_HEAD_ENDS: Final = b"\r\n\r\n"


class HealthServer:
    """Answers who asks how this process is, in a thread that never keeps it alive.

    Raises
    ------
    ConfigurationError
        When the port can't be opened.

    """

    def __init__(self, look: Callable[[], Health], host: str, port: int):
        self._look = look
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._socket = socket.create_server((host, port), family=family, backlog=MOST_CONNECTIONS)
        except OSError as error:
            raise ConfigurationError(
                f"worker.health_port: {host} port {port} can't be opened ({error.strerror or error}): choose a port "
                "that is free, one for each worker of a machine, and an address of this machine (worker.health_host)"
            ) from error
        self._thread = threading.Thread(target=self._run, name="health-port", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: asyncio.Event | None = None
        self._up = threading.Event()
        self._connections = 0

    @property
    def port(self) -> int:
        """Its port, also where the system chose it."""
        port: int = self._socket.getsockname()[1]
        return port

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()
        self._up.wait(START_SECONDS)

    def close(self) -> None:
        """Answer no more."""
        loop, closing = self._loop, self._closing
        if loop is not None and closing is not None:
            with suppress(RuntimeError):  # it has ended meanwhile
                loop.call_soon_threadsafe(closing.set)
            self._thread.join(END_SECONDS)
        self._socket.close()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._closing = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self._connected, sock=self._socket, limit=MOST_BYTES)
        self._up.set()
        await self._closing.wait()
        server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._connections >= MOST_CONNECTIONS:
            writer.transport.abort()
            return
        self._connections += 1
        try:
            # Whoever is too slow, or goes away, has no answer; that is theirs to notice.
            with suppress(TimeoutError, ConnectionError, asyncio.IncompleteReadError):
                async with asyncio.timeout(CONNECTION_SECONDS):
                    writer.write(await self._answer(reader))
                    writer.close()
                    await writer.wait_closed()
        finally:
            self._connections -= 1
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        try:
            head = await reader.readuntil(_HEAD_ENDS)
        except asyncio.LimitOverrunError:
            return response(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        return answer(head.partition(b"\r\n")[0], self._look)


def answer(request: bytes, look: Callable[[], Health]) -> bytes:
    """The response to a request's first line."""
    method, _, rest = request.partition(b" ")
    target, _, version = rest.partition(b" ")
    if not version.startswith(b"HTTP/1."):
        return response(HTTPStatus.BAD_REQUEST)
    asked = _ASKED.get(target.partition(b"?")[0])
    if asked is None:
        return response(HTTPStatus.NOT_FOUND)
    if method not in {b"GET", b"HEAD"}:
        return response(HTTPStatus.METHOD_NOT_ALLOWED)
    health = look()
    status = HTTPStatus.OK if getattr(health, asked) else HTTPStatus.SERVICE_UNAVAILABLE
    return response(status, json.dumps(health.to_json()).encode(), with_body=method == b"GET")


def response(status: HTTPStatus, body: bytes = b"", *, with_body: bool = True) -> bytes:
    """A response of HTTP/1.1 after which the connection ends."""
    more = ["Allow: GET, HEAD"] if status is HTTPStatus.METHOD_NOT_ALLOWED else []
    head = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        "Connection: close",
        *more,
    ]
    return "\r\n".join(head).encode() + _HEAD_ENDS + (body if with_body else b"")
