"""How the load generator asks a side: over HTTP, or through the broker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

import h11

from benchmarks.rivals.server import Server
from pipemill import AsyncClient
from pipemill.errors import PipemillError

#: Most bytes read at a time; an answer has about 100.
READ_BYTES = 65536
#: A request without a deadline waits for so long, in seconds.
PATIENCE_SECONDS = 120.0


class NoAnswer(Exception):
    """A request was refused, failed, or its deadline has passed."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a text was classified as."""

    label: str
    score: float


class Asker(Protocol):
    """Asks one side."""

    async def ask(self, text: str, deadline: float | None = None) -> Answer:
        """One request; ``deadline`` in seconds from now, of which the side is told if it can be.

        Raises
        ------
        NoAnswer
            When there is none, or none in time.

        """

    async def ask_all(self, texts: Sequence[str]) -> list[Answer]:
        """Independent requests, all at once; answers in order."""


@asynccontextmanager
async def asking(server: Server) -> AsyncIterator[Asker]:
    """Open the way to a side."""
    if server.side.path is None:
        async with AsyncClient(server.settings.broker) as client:
            yield QueueAsker(client, server.settings.queue)
        return
    asker = HttpAsker(server.settings.port, server.side.path, listed=server.side.listed)
    try:
        yield asker
    finally:
        await asker.close()


class QueueAsker:
    """Asks through the broker, for pipemill, stock Celery and celery-batches alike: they share messages and results."""

    def __init__(self, client: AsyncClient, queue: str):
        self._client = client
        self._queue = queue

    async def ask(self, text: str, deadline: float | None = None) -> Answer:
        """Submit one job and wait for its answer."""
        try:
            job = await self._client.submit(self._queue, text, expires=deadline)
            return _answer(await job.result(deadline or PATIENCE_SECONDS))
        except PipemillError as error:
            raise NoAnswer(str(error)) from error

    async def ask_all(self, texts: Sequence[str]) -> list[Answer]:
        """Submit jobs in bulk and collect their answers."""
        jobs = await self._client.submit_many(self._queue, texts)
        return [_answer(result.get()) for result in await self._client.results(jobs, PATIENCE_SECONDS)]


class HttpAsker:
    """Asks over HTTP/1.1, one connection per request on its way, kept for the next.

    h11 on asyncio streams costs a fifth of what the usual clients do, so that the load generator is nobody's limit.
    """

    def __init__(self, port: int, path: str, *, listed: bool):
        self._port = port
        self._path = path
        self._listed = listed
        self._idle: list[_Connection] = []
        self._opened: list[_Connection] = []

    async def ask(self, text: str, deadline: float | None = None) -> Answer:
        """Post one request; when its deadline has passed the connection is closed, as users do."""
        body = json.dumps({"inputs": [text] if self._listed else text}).encode()
        try:
            async with asyncio.timeout(deadline or PATIENCE_SECONDS):
                return _answer(json.loads(await self._post(body)))
        except (OSError, ValueError, TimeoutError, h11.ProtocolError) as error:
            raise NoAnswer(f"{type(error).__name__}: {error}") from error

    async def ask_all(self, texts: Sequence[str]) -> list[Answer]:
        """Post all requests at once."""
        return await asyncio.gather(*(self.ask(text) for text in texts))

    async def close(self) -> None:
        """Close the connections and wait until they are."""
        for connection in self._opened:
            await connection.closed()

    async def _post(self, body: bytes) -> bytes:
        connection = self._idle.pop() if self._idle else await self._open()
        try:
            status, answer = await connection.post(self._path, body)
        except BaseException:  # a request that was given up leaves its connection in the middle of an answer
            connection.close()
            raise
        if connection.reusable():
            self._idle.append(connection)
        if status != 200:  # noqa: PLR2004  # OK
            raise NoAnswer(f"{status}: {answer[:200]!r}")
        return answer

    async def _open(self) -> _Connection:
        connection = await _Connection.open(self._port)
        self._opened.append(connection)
        return connection


class _Connection:
    """One connection that is kept alive."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int):
        self._reader = reader
        self._writer = writer
        self._state = h11.Connection(h11.CLIENT)
        self._headers = [("Host", f"127.0.0.1:{port}"), ("Content-Type", "application/json")]

    @classmethod
    async def open(cls, port: int) -> _Connection:
        """Connect."""
        return cls(*await asyncio.open_connection("127.0.0.1", port), port)

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Status and body of the response."""
        headers = [*self._headers, ("Content-Length", str(len(body)))]
        request = h11.Request(method="POST", target=path, headers=headers)
        for part in (request, h11.Data(data=body), h11.EndOfMessage()):
            self._writer.write(self._state.send(part) or b"")
        status, parts = 0, []
        event: Any
        while not isinstance(event := await self._next(), h11.EndOfMessage):
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                parts.append(bytes(event.data))
            elif isinstance(event, h11.ConnectionClosed):
                raise ConnectionError("closed without an answer")
        return status, b"".join(parts)

    async def _next(self) -> Any:
        event: Any
        while (event := self._state.next_event()) is h11.NEED_DATA:
            self._state.receive_data(await self._reader.read(READ_BYTES))
        if event is h11.PAUSED:
            raise ConnectionError("paused in the middle of an answer")
        return event

    def reusable(self) -> bool:
        """Whether another request may follow; then it is prepared for it."""
        if self._state.our_state is not h11.DONE or self._state.their_state is not h11.DONE:
            self.close()
            return False
        self._state.start_next_cycle()
        return True

    def close(self) -> None:
        """Close it, without waiting."""
        self._writer.close()

    async def closed(self) -> None:
        """Close it, if it isn't, and wait; that the other end closed it first is as well."""
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()


def _answer(found: Any) -> Answer:
    """Read an answer; some sides answer with a list of one."""
    first = found[0] if isinstance(found, list) else found
    return Answer(str(first["label"]), float(first["score"]))
