"""The ``AsyncQueueStore`` on Redis ≥ 6.2 or Valkey; the twin of ``queues.py``."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from redis.exceptions import NoPermissionError, ResponseError

from pipemill.address import Address, address_of
from pipemill.protocol import names
from pipemill.signing import Signer
from pipemill.store import dead, streams, wire
from pipemill.store.base import Accepted, BlobStore, QueueInfo, QueueReport, Standing, Submission
from pipemill.store.channels import Channels
from pipemill.store.connection import Client, connect_async, is_out_of_memory, is_refused, script, translated
from pipemill.store.dead import DeadLetter, Replay
from pipemill.store.queues import LOOK_AGAIN_SECONDS, wire_letter, wire_report
from pipemill.store.redis_blobs import RedisBlobs
from pipemill.store.streams import StreamEntry

#: Most waits that look at their job at the same time; each does so on a connection.
GLANCES_AT_ONCE: Final = 16


class AsyncRedisQueueStore:
    """A producer's view of the broker, for asyncio."""

    def __init__(self, url: str | Address, *, client: Client | None = None, signer: Signer | None = None):
        self.url = address_of(url)
        self._client = client if client is not None else connect_async(self.url)
        #: Signs what is enqueued, if there is one.
        self._signer = signer
        self._channels = Channels(self._client)
        #: However many wait, this many connections look how their jobs stand.
        self._glancing = asyncio.Semaphore(GLANCES_AT_ONCE)
        self._blobs: RedisBlobs | None = None
        self._making_blobs = threading.Lock()

    @property
    def blobs(self) -> BlobStore:
        """Where bytes lie that are too large for a message or a result; it blocks, on connections of its own."""
        with self._making_blobs:  # answers are read in several threads
            self._blobs = self._blobs or RedisBlobs(self.url)
        return self._blobs

    async def enqueue(self, queue: str, submissions: Sequence[Submission]) -> Accepted | None:
        """Accept jobs as long as no bound is met; None when the queue is unknown."""
        if self._signer is not None:
            submissions = self._signer.sign(queue, submissions)
        uploads = wire.uploads_of(submissions)
        keys, arguments = wire.enqueue_call(queue, submissions, uploads)
        with translated(self.url):
            try:
                for job in submissions:
                    if job.payload is not None:
                        await self._client.set(uploads[job.job_id], job.payload, ex=wire.UPLOAD_TTL_SECONDS)
                accepted = wire.read_accepted(await script("enqueue").run_async(self._client, keys, arguments))
            except NoPermissionError:  # nobody has rights on a queue that isn't there
                if await self._client.hexists(names.QUEUES_KEY, queue):
                    raise
                accepted = None
            except ResponseError as error:
                if not is_out_of_memory(error):
                    raise
                accepted = wire.NO_MEMORY
            if uploads and (accepted is None or accepted is wire.NO_MEMORY):
                with suppress(NoPermissionError):  # By rules from before; then they expire.
                    await self._client.delete(*uploads.values())
            if accepted and len(accepted.job_ids) < len(submissions):
                lanes = wire.fresh_lanes(await self._client.hgetall(names.lanes_key(queue)))
                accepted = replace(accepted, rate=wire.total_rate(lanes))
        return accepted

    async def declare(self, info: QueueInfo) -> None:
        """Make a queue known, unless it is."""
        with translated(self.url):
            await self._client.hsetnx(names.QUEUES_KEY, info.name, wire.encode_info(info))

    async def info(self, queue: str) -> QueueInfo | None:
        """What the queue announced of itself."""
        with translated(self.url):
            stored = await self._client.hget(names.QUEUES_KEY, queue)
        return wire.decode_info(stored) if stored else None

    async def standings(self, job_ids: Sequence[str]) -> list[Standing]:
        """What is known of each job, in order."""
        if not job_ids:
            return []
        with translated(self.url):
            read = wire.read_standings(job_ids, await self._client.mget(wire.standing_keys(job_ids)))
            if overdue := wire.overdue(job_ids, read):
                for job_id in overdue:
                    await self._end_overdue(job_id)
                read = wire.read_standings(job_ids, await self._client.mget(wire.standing_keys(job_ids)))
            taken = {
                queue: int(await self._client.hget(names.counters_key(queue), "taken") or 0)
                for queue in wire.queues_waited_in(read)
            }
        return wire.placed(read, taken)

    async def wait(self, job_id: str, timeout: float) -> Standing:  # part of the seam, like its twin
        """What is known of a job once it has ended, or after ``timeout`` seconds; woken by the worker's publish."""
        deadline = time.monotonic() + timeout
        with translated(self.url):
            async with self._channels.heard(names.result_key(job_id)) as ear:
                standing = await self._glance(job_id)
                while standing.result is None and standing.queue and (left := deadline - time.monotonic()) > 0:
                    published = await ear.next(min(left, LOOK_AGAIN_SECONDS))
                    standing = wire.read_published(job_id, published) or await self._glance(job_id)
        return standing if standing.result else (await self.standings([job_id]))[0]

    async def _glance(self, job_id: str) -> Standing:
        """What is known of a job but its position, which takes a second round trip."""
        async with self._glancing:
            standing = await self._read(job_id)
            if wire.is_overdue(standing):
                await self._end_overdue(job_id)
                standing = await self._read(job_id)
        return standing

    async def _read(self, job_id: str) -> Standing:
        document, record = await self._client.mget(wire.standing_keys([job_id]))
        return wire.read_standing(job_id, document, record)[0]

    async def _end_overdue(self, job_id: str) -> None:
        """End a job as expired, if nobody has started it before its deadline by the server's clock."""
        try:
            await script("cancel").run_async(self._client, *wire.expire_call(job_id))
        except ResponseError as error:
            if not is_refused(error):  # Who may not cancel leaves it to the workers.
                raise

    async def cancel(self, job_id: str) -> bool | None:
        """End a job as cancelled."""
        keys, arguments = wire.cancel_call(job_id)
        with translated(self.url):
            return wire.read_cancelled(await script("cancel").run_async(self._client, keys, arguments))

    async def read_stream(self, job_id: str, after: str, timeout: float) -> list[StreamEntry]:
        """Entries of a job's stream behind ``after``; waits for ``timeout`` seconds at most until there is one."""
        with translated(self.url):
            return streams.read_entries(await self._client.xread(*streams.read_call(job_id, after, timeout)))

    async def reports(self) -> list[QueueReport]:
        """All known queues that this client may see, by name."""
        with translated(self.url):
            stored = await self._client.hgetall(names.QUEUES_KEY)
            owners = wire.lease_owners(await self._client.zrange(names.LEASES_KEY, 0, -1))
            found = [await self._report(wire.decode_info(stored[name]), owners) for name in sorted(stored)]
        return [report for report in found if report]

    async def _report(self, info: QueueInfo, owners: dict[str, list[str]]) -> QueueReport | None:
        """A queue as it stands; None if the broker doesn't let this client see it."""
        mine = owners.get(info.name, [])
        async with self._client.pipeline(transaction=False) as pipe:
            wire_report(pipe, info.name, mine)
            with suppress(NoPermissionError):
                return wire.read_report(info, await pipe.execute(), len(mine))
        return None

    async def dead_letters(self, queue: str, limit: int) -> list[DeadLetter]:
        """The last dead letters, the latest first."""
        with translated(self.url):
            reply = await script("letters").run_async(self._client, *dead.list_call(queue, limit))
        return dead.read_list(queue, reply)

    async def dead_letter(self, queue: str, letter_id: str) -> DeadLetter | None:
        """One dead letter, whole."""
        with translated(self.url):
            async with self._client.pipeline(transaction=False) as pipe:
                wire_letter(pipe, queue, letter_id)
                return dead.read_whole(queue, letter_id, *await pipe.execute())

    async def replay(self, queue: str, letter_ids: Sequence[str]) -> Replay | None:
        """Put dead letters back into their queue; None when the queue is unknown."""
        call = dead.replay_call(queue, letter_ids, wire.PAYLOAD_TTL_SECONDS)
        with translated(self.url):
            return dead.read_replay(await script("replay").run_async(self._client, *call))

    async def drop(self, queue: str, letter_ids: Sequence[str]) -> list[bool]:
        """Forget dead letters; whether each was there."""
        call = dead.drop_call(queue, letter_ids)
        with translated(self.url):
            return [code == 1 for code in await script("drop").run_async(self._client, *call)]

    async def close(self) -> None:
        """Close connections."""
        if self._blobs is not None:
            self._blobs.close()
        await self._channels.close()
        await self._client.aclose()
