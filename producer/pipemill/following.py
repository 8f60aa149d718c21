"""How clients follow a job's text while it is written, one kind for each client."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from typing import Final

from pipemill import jobs, replies
from pipemill.loop import in_thread
from pipemill.store.base import AsyncQueueStore, QueueStore, Standing
from pipemill.streams import StreamEvent, Tail
from pipemill.transit import Transit

#: How long one wait for a job's stream may take, in seconds: what ends without a worker ends no stream, so it is looked
#: then whether the job has ended.
LOOK_AGAIN_SECONDS: Final = 1.0


class Following:
    """The part of a client that follows jobs."""

    _store: QueueStore
    _transit: Transit

    def follow(
        self, job_id: str, *, after: str | None = None, timeout: float | None = None
    ) -> Generator[StreamEvent, None, None]:
        """Follow a job's text while it is written; the last event has its answer.

        Begins behind the event ``after``, which may have been told to another process, or at the beginning. A job that
        wasn't submitted with ``stream=True`` has no event but its last. Closing the iterator leaves the job as it
        is. ``timeout`` is the longest wait for the end, in seconds; None for ever.

        Raises
        ------
        JobError
            When the job ended other than well; the subclass says how.
        ResultTimeout
            When it hasn't ended in time; it goes on.
        UnknownJob
            When there is no trace of it.
        BlobMissing, MediaUnreadable
            When media of the answer are gone, or broken.
        BrokerError
            When the broker can't be reached or refuses; follow it again after the last event.
        ValueError
            When ``after`` is no event's id.

        """
        tail, deadline, wait, end = Tail(job_id, after), replies.Deadline(timeout), 0.0, None
        while end is None:
            entries = self._store.read_stream(job_id, tail.after, wait) if jobs.is_id(job_id) else []
            yield from tail.take(entries)
            if not entries or tail.ended or deadline.left() <= 0:
                standing = self._store.standings((job_id,))[0] if jobs.is_id(job_id) else Standing()
                end = replies.ended(job_id, standing)
                if end is None and deadline.left() <= 0:
                    raise replies.result_timeout(job_id, standing, timeout)
            wait = max(min(deadline.left(), LOOK_AGAIN_SECONDS), 0.0)
        # What was told between the last look at the stream and that at the job.
        while not tail.ended and (entries := self._store.read_stream(job_id, tail.after, 0.0)):
            yield from tail.take(entries)
        yield tail.end(self._transit.decode(end, self._store))


class AsyncFollowing:
    """The part of a client for asyncio that follows jobs."""

    _store: AsyncQueueStore
    _transit: Transit

    async def follow(
        self, job_id: str, *, after: str | None = None, timeout: float | None = None
    ) -> AsyncGenerator[StreamEvent, None]:
        """Follow a job's text while it is written; the last event has its answer. See ``Client.follow``."""
        tail, deadline, wait, end = Tail(job_id, after), replies.Deadline(timeout), 0.0, None
        while end is None:
            entries = await self._store.read_stream(job_id, tail.after, wait) if jobs.is_id(job_id) else []
            for event in tail.take(entries):
                yield event
            if not entries or tail.ended or deadline.left() <= 0:
                standing = (await self._store.standings((job_id,)))[0] if jobs.is_id(job_id) else Standing()
                end = replies.ended(job_id, standing)
                if end is None and deadline.left() <= 0:
                    raise replies.result_timeout(job_id, standing, timeout)
            wait = max(min(deadline.left(), LOOK_AGAIN_SECONDS), 0.0)
        # What was told between the last look at the stream and that at the job.
        while not tail.ended and (entries := await self._store.read_stream(job_id, tail.after, 0.0)):
            for event in tail.take(entries):
                yield event
        decodes = self._transit.decodes(end)
        yield tail.end(await in_thread(self._transit.decode, end, self._store) if decodes else end)
