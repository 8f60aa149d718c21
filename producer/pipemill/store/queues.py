"""The ``QueueStore`` on Redis ≥ 6.2 or Valkey."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, Final

from redis.exceptions import NoPermissionError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from pipemill.address import Address, address_of
from pipemill.protocol import names
from pipemill.signing import Signer
from pipemill.store import dead, streams, wire
from pipemill.store.base import Accepted, BlobStore, QueueInfo, QueueReport, Standing, Submission
from pipemill.store.channels import SUBSCRIBED_SECONDS
from pipemill.store.connection import Client, connect, is_out_of_memory, is_refused, script, translated
from pipemill.store.dead import DeadLetter, Replay
from pipemill.store.redis_blobs import RedisBlobs
from pipemill.store.streams import StreamEntry

#: A publish can be lost with its connection, so a waiting producer also looks this often, in seconds.
LOOK_AGAIN_SECONDS: Final = 1.0
#: Subscriptions kept between waits; each is a connection.
IDLE_CHANNELS_KEPT: Final = 8


class RedisQueueStore:
    """A producer's view of the broker."""

    def __init__(self, url: str | Address, *, client: Client | None = None, signer: Signer | None = None):
        self.url = address_of(url)
        self._client = client if client is not None else connect(self.url)
        #: Signs what is enqueued, if there is one.
        self._signer = signer
        #: Where bytes lie that are too large for a message or a result.
        self.blobs: BlobStore = RedisBlobs(self.url, client=self._client)
        #: Subscriptions between two waits; a connection each, so that a wait doesn't have to open one.
        self._idle_channels: list[Any] = []

    def enqueue(self, queue: str, submissions: Sequence[Submission]) -> Accepted | None:
        """Accept jobs as long as no bound is met; None when the queue is unknown."""
        if self._signer is not None:
            submissions = self._signer.sign(queue, submissions)
        uploads = wire.uploads_of(submissions)
        keys, arguments = wire.enqueue_call(queue, submissions, uploads)
        with translated(self.url):
            try:
                for job in submissions:
                    if job.payload is not None:
                        self._client.set(uploads[job.job_id], job.payload, ex=wire.UPLOAD_TTL_SECONDS)
                accepted = wire.read_accepted(script("enqueue").run(self._client, keys, arguments))
            except NoPermissionError:  # nobody has rights on a queue that isn't there
                if self._client.hexists(names.QUEUES_KEY, queue):
                    raise
                accepted = None
            except ResponseError as error:
                if not is_out_of_memory(error):
                    raise
                accepted = wire.NO_MEMORY
            if uploads and (accepted is None or accepted is wire.NO_MEMORY):
                with suppress(NoPermissionError):  # By rules from before; then they expire.
                    self._client.delete(*uploads.values())
            if accepted and len(accepted.job_ids) < len(submissions):
                lanes = wire.fresh_lanes(self._client.hgetall(names.lanes_key(queue)))
                accepted = replace(accepted, rate=wire.total_rate(lanes))
        return accepted

    def declare(self, info: QueueInfo) -> None:
        """Make a queue known, unless it is."""
        with translated(self.url):
            self._client.hsetnx(names.QUEUES_KEY, info.name, wire.encode_info(info))

    def info(self, queue: str) -> QueueInfo | None:
        """What the queue announced of itself."""
        with translated(self.url):
            stored = self._client.hget(names.QUEUES_KEY, queue)
        return wire.decode_info(stored) if stored else None

    def standings(self, job_ids: Sequence[str]) -> list[Standing]:
        """What is known of each job, in order."""
        if not job_ids:
            return []
        with translated(self.url):
            read = wire.read_standings(job_ids, self._client.mget(wire.standing_keys(job_ids)))
            if overdue := wire.overdue(job_ids, read):
                for job_id in overdue:
                    self._end_overdue(job_id)
                read = wire.read_standings(job_ids, self._client.mget(wire.standing_keys(job_ids)))
            taken = {
                queue: int(self._client.hget(names.counters_key(queue), "taken") or 0)
                for queue in wire.queues_waited_in(read)
            }
        return wire.placed(read, taken)

    def wait(self, job_id: str, timeout: float) -> Standing:
        """What is known of a job once it has ended, or after ``timeout`` seconds; woken by the worker's publish."""
        deadline = time.monotonic() + timeout
        with translated(self.url), self._subscribed(names.result_key(job_id)) as channel:
            standing = self._glance(job_id)
            while standing.result is None and standing.queue and (left := deadline - time.monotonic()) > 0:
                published = channel.get_message(timeout=min(left, LOOK_AGAIN_SECONDS))
                standing = wire.read_published(job_id, published) or self._glance(job_id)
        return standing if standing.result else self.standings([job_id])[0]

    def _glance(self, job_id: str) -> Standing:
        """What is known of a job but its position, which takes a second round trip."""
        standing = self._read(job_id)
        if wire.is_overdue(standing):
            self._end_overdue(job_id)
            standing = self._read(job_id)
        return standing

    def _read(self, job_id: str) -> Standing:
        document, record = self._client.mget(wire.standing_keys([job_id]))
        return wire.read_standing(job_id, document, record)[0]

    def _end_overdue(self, job_id: str) -> None:
        """End a job as expired, if nobody has started it before its deadline by the server's clock."""
        try:
            script("cancel").run(self._client, *wire.expire_call(job_id))
        except ResponseError as error:
            if not is_refused(error):  # Who may not cancel leaves it to the workers.
                raise

    @contextmanager
    def _subscribed(self, name: str) -> Iterator[Any]:
        """A subscription to a channel, on a connection that is kept for the next; not after an error."""
        channel = self._channel(name)
        try:
            yield channel
            channel.unsubscribe(name)  # not waited for: whoever has the channel next skips what is left of us
        except BaseException:
            channel.close()
            raise
        if len(self._idle_channels) < IDLE_CHANNELS_KEPT:
            self._idle_channels.append(channel)
        else:
            channel.close()

    def _channel(self, name: str) -> Any:
        """A channel that has subscribed; those kept from before may have lost their server, so then a new one."""
        with suppress(IndexError):
            channel = self._idle_channels.pop()
            try:
                return _subscribed_to(channel, name)
            except RedisError:
                self._forget_channels()
        return _subscribed_to(self._client.pubsub(), name)

    def _forget_channels(self) -> None:
        while self._idle_channels:
            self._idle_channels.pop().close()

    def cancel(self, job_id: str) -> bool | None:
        """End a job as cancelled."""
        keys, arguments = wire.cancel_call(job_id)
        with translated(self.url):
            return wire.read_cancelled(script("cancel").run(self._client, keys, arguments))

    def read_stream(self, job_id: str, after: str, timeout: float) -> list[StreamEntry]:
        """Entries of a job's stream behind ``after``; waits for ``timeout`` seconds at most until there is one."""
        with translated(self.url):
            return streams.read_entries(self._client.xread(*streams.read_call(job_id, after, timeout)))

    def reports(self) -> list[QueueReport]:
        """All known queues that this client may see, by name."""
        with translated(self.url):
            stored = self._client.hgetall(names.QUEUES_KEY)
            owners = wire.lease_owners(self._client.zrange(names.LEASES_KEY, 0, -1))
            found = [self._report(wire.decode_info(stored[name]), owners) for name in sorted(stored)]
        return [report for report in found if report]

    def _report(self, info: QueueInfo, owners: dict[str, list[str]]) -> QueueReport | None:
        """A queue as it stands; None if the broker doesn't let this client see it."""
        mine = owners.get(info.name, [])
        with self._client.pipeline(transaction=False) as pipe, suppress(NoPermissionError):
            wire_report(pipe, info.name, mine)
            return wire.read_report(info, pipe.execute(), len(mine))
        return None

    def dead_letters(self, queue: str, limit: int) -> list[DeadLetter]:
        """The last dead letters, the latest first."""
        with translated(self.url):
            return dead.read_list(queue, script("letters").run(self._client, *dead.list_call(queue, limit)))

    def dead_letter(self, queue: str, letter_id: str) -> DeadLetter | None:
        """One dead letter, whole."""
        with translated(self.url), self._client.pipeline(transaction=False) as pipe:
            wire_letter(pipe, queue, letter_id)
            return dead.read_whole(queue, letter_id, *pipe.execute())

    def replay(self, queue: str, letter_ids: Sequence[str]) -> Replay | None:
        """Put dead letters back into their queue; None when the queue is unknown."""
        call = dead.replay_call(queue, letter_ids, wire.PAYLOAD_TTL_SECONDS)
        with translated(self.url):
            return dead.read_replay(script("replay").run(self._client, *call))

    def drop(self, queue: str, letter_ids: Sequence[str]) -> list[bool]:
        """Forget dead letters; whether each was there."""
        with translated(self.url):
            return [code == 1 for code in script("drop").run(self._client, *dead.drop_call(queue, letter_ids))]

    def close(self) -> None:
        """Close connections."""
        self._forget_channels()
        self._client.close()


def _subscribed_to(channel: Any, name: str) -> Any:
    """Subscribe and read until the server has confirmed; what the channel's last user left is skipped."""
    try:
        channel.subscribe(name)
        deadline = time.monotonic() + SUBSCRIBED_SECONDS
        while (left := deadline - time.monotonic()) > 0:
            message = channel.get_message(timeout=left)
            if message and message["type"] == "subscribe" and message["channel"] == name.encode():
                return channel
        raise RedisTimeoutError("the server didn't confirm a subscription")  # noqa: TRY301  # closed like after any other
    except BaseException:
        channel.close()
        raise


def wire_report(pipe: Any, queue: str, owners: Sequence[str]) -> None:
    """Queue the commands that ``wire.read_report`` reads; ``pipe`` may be blocking or asynchronous."""
    for key in names.list_keys(queue):
        pipe.llen(key)
    pipe.zcard(names.delayed_key(queue))
    pipe.zcard(names.dead_times_key(queue))
    pipe.hgetall(names.counters_key(queue))
    pipe.hgetall(names.lanes_key(queue))
    pipe.hgetall(names.waiting_key(queue))
    pipe.hget(names.bytes_key(queue), "*")
    for owner in owners:
        pipe.hlen(names.lease_key(owner))


def wire_letter(pipe: Any, queue: str, letter_id: str) -> None:
    """Queue the commands that ``dead.read_whole`` reads; ``pipe`` may be blocking or asynchronous."""
    pipe.hget(names.dead_letters_key(queue), letter_id)
    pipe.lrange(names.dead_history_key(letter_id), 0, -1)
    pipe.get(names.dead_payload_key(letter_id))
