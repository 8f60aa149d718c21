"""The ``AsyncQueueStore`` in memory: the blocking one never waits long, so its methods are called as they are."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from pipemill.store.base import Accepted, BlobStore, QueueInfo, QueueReport, Standing, Submission
from pipemill.store.dead import DeadLetter, Replay
from pipemill.store.memory import MemoryBroker
from pipemill.store.memory_queues import MemoryQueueStore
from pipemill.store.streams import StreamEntry

#: How often a waiting producer looks, in seconds: nothing wakes an event loop from another thread's job.
LOOK_AGAIN_SECONDS: Final = 0.005


class AsyncMemoryQueueStore:
    """A producer's view of the broker in memory, for asyncio."""

    def __init__(self, broker: MemoryBroker):
        self._store = MemoryQueueStore(broker)
        self.blobs: BlobStore = broker.blobs

    async def enqueue(self, queue: str, submissions: Sequence[Submission]) -> Accepted | None:
        """Accept jobs as long as no bound is met; None when the queue is unknown."""
        return self._store.enqueue(queue, submissions)

    async def declare(self, info: QueueInfo) -> None:
        """Make a queue known, unless it is."""
        self._store.declare(info)

    async def info(self, queue: str) -> QueueInfo | None:
        """What the queue announced of itself."""
        return self._store.info(queue)

    async def standings(self, job_ids: Sequence[str]) -> list[Standing]:
        """What is known of each job, in order."""
        return self._store.standings(job_ids)

    async def wait(self, job_id: str, timeout: float) -> Standing:
        """What is known of a job once it has ended, or after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            (standing,) = self._store.standings([job_id])
            left = deadline - time.monotonic()
            if standing.result is not None or standing.queue is None or left <= 0:
                return standing
            await asyncio.sleep(min(left, LOOK_AGAIN_SECONDS))

    async def cancel(self, job_id: str) -> bool | None:
        """End a job as cancelled."""
        return self._store.cancel(job_id)

    async def read_stream(self, job_id: str, after: str, timeout: float) -> list[StreamEntry]:
        """Entries of a job's stream behind ``after``; waits for ``timeout`` seconds at most until there is one."""
        deadline = time.monotonic() + timeout
        while not (found := self._store.read_stream(job_id, after, 0.0)):
            if (left := deadline - time.monotonic()) <= 0:
                break
            await asyncio.sleep(min(left, LOOK_AGAIN_SECONDS))
        return found

    async def reports(self) -> list[QueueReport]:
        """All known queues, by name."""
        return self._store.reports()

    async def dead_letters(self, queue: str, limit: int) -> list[DeadLetter]:
        """The last dead letters, the latest first."""
        return self._store.dead_letters(queue, limit)

    async def dead_letter(self, queue: str, letter_id: str) -> DeadLetter | None:
        """One dead letter, whole."""
        return self._store.dead_letter(queue, letter_id)

    async def replay(self, queue: str, letter_ids: Sequence[str]) -> Replay | None:
        """Put dead letters back into their queue; None when the queue is unknown."""
        return self._store.replay(queue, letter_ids)

    async def drop(self, queue: str, letter_ids: Sequence[str]) -> list[bool]:
        """Forget dead letters; whether each was there."""
        return self._store.drop(queue, letter_ids)

    async def close(self) -> None:
        """Nothing to close."""
