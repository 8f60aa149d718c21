"""Handles on accepted jobs, one kind for each client."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from typing import TYPE_CHECKING, Any

from pipemill.protocol import JobStatus
from pipemill.replies import JobInfo
from pipemill.streams import StreamEvent

if TYPE_CHECKING:
    from pipemill.aio import AsyncClient
    from pipemill.client import Client


class Job:
    """A handle on an accepted job; handles of the same job are equal."""

    __slots__ = ("_client", "id", "queue")

    def __init__(self, client: Client, job_id: str, queue: str | None = None):
        self._client = client
        #: Its name, the same for every Celery client.
        self.id = job_id
        #: The queue it was submitted to; None for a handle made from an id alone.
        self.queue = queue

    def status(self) -> JobStatus:
        """Where it stands."""
        return self._client.status(self.id)

    def describe(self) -> JobInfo:
        """Where it stands, with its position and an estimate while it is queued."""
        return self._client.describe(self.id)

    def result(self, timeout: float | None = None) -> Any:
        """Wait for its answer and return it; see ``Client.result``."""
        return self._client.result(self.id, timeout)

    def follow(self, *, after: str | None = None, timeout: float | None = None) -> Generator[StreamEvent, None, None]:
        """Follow its text while it is written; see ``Client.follow``."""
        return self._client.follow(self.id, after=after, timeout=timeout)

    def cancel(self) -> bool:
        """End it as cancelled; see ``Client.cancel``."""
        return self._client.cancel(self.id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"Job(id={self.id!r}, queue={self.queue!r})"


class AsyncJob:
    """A handle on an accepted job; handles of the same job are equal."""

    __slots__ = ("_client", "id", "queue")

    def __init__(self, client: AsyncClient, job_id: str, queue: str | None = None):
        self._client = client
        #: Its name, the same for every Celery client.
        self.id = job_id
        #: The queue it was submitted to; None for a handle made from an id alone.
        self.queue = queue

    async def status(self) -> JobStatus:
        """Where it stands."""
        return await self._client.status(self.id)

    async def describe(self) -> JobInfo:
        """Where it stands, with its position and an estimate while it is queued."""
        return await self._client.describe(self.id)

    async def result(self, timeout: float | None = None) -> Any:
        """Wait for its answer and return it; see ``AsyncClient.result``."""
        return await self._client.result(self.id, timeout)

    def follow(self, *, after: str | None = None, timeout: float | None = None) -> AsyncGenerator[StreamEvent, None]:
        """Follow its text while it is written; see ``Client.follow``."""
        return self._client.follow(self.id, after=after, timeout=timeout)

    async def cancel(self) -> bool:
        """End it as cancelled; see ``AsyncClient.cancel``."""
        return await self._client.cancel(self.id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AsyncJob) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"AsyncJob(id={self.id!r}, queue={self.queue!r})"
