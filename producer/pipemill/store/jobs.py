"""The ``JobStore`` on Redis ≥ 6.2 or Valkey."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import orjson
from redis.exceptions import NoPermissionError, NoScriptError, RedisError, ResponseError

from pipemill.address import Address, address_of
from pipemill.errors import BrokerUnavailable, MalformedJob
from pipemill.protocol import History, Outcome, encode_failure, names, split_deliveries
from pipemill.protocol.history import decode_history, encode_letter
from pipemill.store import dead, streams, wire
from pipemill.store.base import (
    DEFAULT_AGEING_SECONDS,
    DEFAULT_LEASE_SECONDS,
    BlobStore,
    Completion,
    Leased,
    QueueInfo,
    Renewal,
    Taken,
)
from pipemill.store.connection import (
    Client,
    Line,
    Translated,
    connect,
    is_out_of_memory,
    script,
    translated,
)
from pipemill.store.redis_blobs import RedisBlobs
from pipemill.store.streams import Piece

#: Most jobs moved by one script, so that no script blocks the server for long.
TAKE_AT_MOST: Final = 128
#: Cancels told by one call.
HEAR_AT_MOST: Final = 1000
#: Owners reaped by one call.
REAP_AT_MOST: Final = 16
#: How long the trace of a job with an ignored result is kept against duplicates, in seconds.
TRACE_TTL_SECONDS: Final = 300
#: The script's code for a large document that isn't where it was written.
DOCUMENT_GONE: Final = 3
#: The script's code for a follow-up that the broker doesn't take.
FOLLOW_UP_REFUSED: Final = 4

#: How the script is to end a lease: the way, the value, and the retention or due time in seconds.
_HowToEnd: TypeAlias = tuple[str, bytes | str, float]


class RedisJobStore:
    """One lane's hold on its queue."""

    def __init__(  # noqa: PLR0913  # each is an option of the store
        self,
        url: str | Address,
        queue: str,
        *,
        lease_seconds: float = DEFAULT_LEASE_SECONDS,
        result_ttl_seconds: int = 3600,
        ageing_seconds: float = DEFAULT_AGEING_SECONDS,
        client: Client | None = None,
    ):
        self.url = address_of(url)
        self.queue = queue
        self.owner = names.new_owner(queue)
        self._client = client if client is not None else connect(self.url)
        #: Where bytes lie that are too large for a message or a result.
        self.blobs: BlobStore = RedisBlobs(self.url, client=self._client)
        self._lease_seconds = lease_seconds
        self._ttl = result_ttl_seconds
        self._ageing_seconds = ageing_seconds
        self._lists = names.list_keys(queue)
        self._hash, self._inbox = names.lease_key(self.owner), names.inbox_key(self.owner)
        #: From where to where a job moves that ends a wait.
        self._wake = queue, self._inbox
        self._seen_cancelled = 0.0
        #: A connection that hears of cancels, while one listens.
        self._ear: Any = None
        #: Tells texts while they are written.
        self._voice = Line(self._client, "emit")
        self._held: set[str] = set()
        self._reply_lost = False
        self._closed = False
        #: Queues whose jobs this client isn't allowed to give back; their own workers do.
        self._foreign: set[str] = set()

    def announce(self, info: QueueInfo) -> None:
        """Make the queue known to producers."""
        with translated(self.url):
            script("tell").run(self._client, [names.QUEUES_KEY], [self.queue, wire.encode_info(info)])

    def wait(self, timeout: float) -> bool:
        """Block until the most urgent list has a job, which moves to our inbox, or for ``timeout`` seconds."""
        with self._open(), self._client.pipeline(transaction=False) as pipe:
            self._add_move(pipe, timeout)
            return self._moved(pipe.execute(raise_on_error=False), timeout)

    def _add_move(self, pipe: Any, timeout: float) -> None:
        """Let the server move a job to our inbox, and see that we have a lease.

        Without one nobody would look into our inbox if we died now: the server may do this long after we asked. One
        that ended at the beginning of time says so.
        """
        pipe.blmove(*self._wake, timeout, "RIGHT", "LEFT")
        pipe.zadd(names.LEASES_KEY, {self.owner: 0}, nx=True)

    def _moved(self, replies: Sequence[Any], timeout: float) -> bool:
        """Whether a job moved; what went wrong is raised."""
        moved, leased = replies
        if isinstance(moved, ResponseError):
            self._let_pass(moved, timeout)
            return False
        for reply in (moved, leased):
            if isinstance(reply, RedisError) and not is_out_of_memory(reply):
                raise reply
        return moved is not None

    @staticmethod
    def _let_pass(error: ResponseError, timeout: float) -> None:
        """Wait here where a server without memory refuses to: no new jobs come then, and `take` finds the others."""
        if not is_out_of_memory(error):
            raise error
        time.sleep(timeout)

    def _open(self) -> Translated:
        """A lease that was ended isn't begun again: a thread that is late must not take what was given back."""
        if self._closed:
            text = f"the lease of {self.owner} has ended"
            raise BrokerUnavailable(text)
        return translated(self.url)

    def take(self, n: int, held_elsewhere: int = 0, *, patience: float = 0.0, most_bytes: int = sys.maxsize) -> Taken:
        """Lease up to ``n`` jobs (``TAKE_AT_MOST`` in one call), after waiting for the first."""
        if self._reply_lost:
            self._recover()
        keys = [
            self._hash,
            self._inbox,
            names.LEASES_KEY,
            names.SEQUENCE_KEY,
            names.delayed_key(self.queue),
            names.counters_key(self.queue),
            names.cancelled_key(self.queue),
            names.passed_key(self.queue),
            *self._lists,
        ]
        arguments = [self.owner, self._lease_seconds, min(n, TAKE_AT_MOST), self._seen_cancelled, wire.STEPS]
        arguments += (held_elsewhere, self.queue, self._ageing_seconds, most_bytes)
        self._reply_lost = True
        with self._open():
            clock, stood, blocked, by_bytes, cancelled, flat = self._run_take(keys, arguments, patience)
        self._reply_lost = False
        if not stood:
            self._held.clear()
        jobs = [_leased(flat[i], flat[i + 1]) for i in range(0, len(flat), 2)]
        self._held.update(job.field for job in jobs)
        now = float(clock)
        return Taken(jobs, now, stood == 1, blocked == 1, by_bytes == 1, self._note_cancelled(cancelled, now))

    def _run_take(self, keys: Sequence[Any], arguments: Sequence[Any], patience: float) -> Any:
        """Run ``take.lua``; with patience, the server does so once it has moved a job to our inbox, or has waited."""
        take = script("take")
        if patience:
            with self._client.pipeline(transaction=False) as pipe:
                self._add_move(pipe, patience)
                take.add_to(pipe, keys, arguments)
                *moved, taken = pipe.execute(raise_on_error=False)
            if isinstance(taken, RedisError) and not isinstance(taken, NoScriptError):
                raise taken
            self._moved(moved, patience)
            if not isinstance(taken, RedisError):
                return taken
        return take.run(self._client, keys, arguments)

    def _recover(self) -> None:
        """Give back what a lost reply left in our lease: the server thinks it is ours, and we never saw it."""
        with translated(self.url):
            fields = [str(field, "utf-8") for field in self._client.hkeys(self._hash)]
        self.release([field for field in fields if field not in self._held])
        self._reply_lost = False

    def _note_cancelled(self, cancelled: Sequence[bytes], now: float) -> list[str]:
        if cancelled:
            self._seen_cancelled = now
        return [str(job_id, "utf-8") for job_id in cancelled]

    def payloads(self, job_ids: Sequence[str]) -> list[bytes | None]:
        """Fetch payloads sent by reference."""
        with translated(self.url):
            found: list[bytes | None] = self._client.mget([names.payload_key(job_id) for job_id in job_ids])
        return found

    def histories(self, job_ids: Sequence[str]) -> list[History]:
        """What happened to each job so far, other than well."""
        with translated(self.url), self._client.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.lrange(names.history_key(job_id), 0, -1)
            return [decode_history(entries) for entries in pipe.execute()]

    def complete(self, completions: Sequence[Completion]) -> list[bool]:
        """End leases atomically; large documents are written first and renamed by the script."""
        with translated(self.url):
            ends = [self._end(done) for done in completions]
            reply = self._run_complete(completions, ends)
            # A document that was evicted, or expired, on its way goes through the script, which blocks the server.
            again = {index: completions[index] for index, code in enumerate(reply) if code == DOCUMENT_GONE}
            ways: list[_HowToEnd] = [("store", done.document or b"", self._ttl) for done in again.values()]
            # A job whose follow-up is refused would be refused for ever: it fails instead.
            refused = [index for index, code in enumerate(reply) if code == FOLLOW_UP_REFUSED]
            failed = {index: _unfollowed(completions[index]) for index in refused}
            ways += [self._end(done) for done in failed.values()]
            if again := again | failed:
                codes = self._run_complete(list(again.values()), ways)
                for index, code in zip(again, codes, strict=True):
                    reply[index] = code
            for index, (done, (how, _, _)) in enumerate(zip(completions, ends, strict=True)):
                if how == "move" and reply[index] == 1 and index not in again and done.document is not None:
                    self._client.publish(names.result_key(done.job_id), done.document)
        self._held.difference_update(done.field for done in completions)
        return [code == 1 for code in reply]

    def _run_complete(self, completions: Sequence[Completion], ends: Sequence[_HowToEnd]) -> list[int]:
        """Run ``complete.lua``; its code for each."""
        arguments: list[Any] = [
            names.record_key(""),
            names.result_key(""),
            names.payload_key(""),
            *dead.end_arguments(),
            *streams.end_arguments(self._ttl),
        ]
        for done, (how, value, seconds) in zip(completions, ends, strict=True):
            arguments += (done.field, done.job_id, done.outcome.value, how, value, seconds, len(done.follow_ups))
            arguments += streams.last_arguments(done.piece) if done.streamed else ("",)
            if done.outcome is Outcome.DEAD:
                arguments += (done.incident, done.letter or encode_letter())
            for follow_up in done.follow_ups:
                arguments += follow_up
        keys = [
            self._hash,
            names.counters_key(self.queue),
            names.delayed_key(self.queue),
            names.dead_times_key(self.queue),
            names.cancelled_key(self.queue),
            names.dead_letters_key(self.queue),
        ]
        codes: list[int] = script("complete").run(self._client, keys, arguments)
        return codes

    def _end(self, done: Completion) -> _HowToEnd:
        """How the script is to end it; a large document is written here."""
        if done.outcome is Outcome.PARKED:
            return "park", "", done.due
        if done.outcome is Outcome.RETRIED:
            return "retry", done.incident, done.delay
        if done.document is None:
            return "drop", "", TRACE_TTL_SECONDS
        if len(done.document) <= names.REFERENCE_BYTES:
            return "store", done.document, self._ttl
        key = f"{names.PREFIX}document:{self.owner}:{done.field}"
        try:
            self._client.set(key, done.document, ex=self._ttl)
        except ResponseError as error:
            if not is_out_of_memory(error):
                raise
            # The script may write what a command may not: it ends what takes memory.
            return "store", done.document, self._ttl
        return "move", key, self._ttl

    def emit(self, pieces: Sequence[Piece]) -> list[bool]:
        """Append pieces of texts to their jobs' streams, each only while its lease is ours; whether it was."""
        with self._open():
            codes: list[int] = self._voice.run([self._hash], streams.emit_arguments(pieces))
        return [code == 1 for code in codes]

    def release(self, fields: Sequence[str]) -> int:
        """Give jobs back to the head of the queue."""
        if not fields:
            return 0
        with translated(self.url):
            released = self._give_back(self.owner, "some", fields)
        self._held.difference_update(fields)
        return released

    def _give_back(self, owner: str, which: str, fields: Sequence[str] = ()) -> int:
        """Run ``release.lua`` on an owner's jobs, whose queue need not be ours."""
        queue = names.owner_queue(owner)
        keys = [names.lease_key(owner), names.inbox_key(owner), names.LEASES_KEY, names.counters_key(queue)]
        arguments = [owner, wire.STEPS, which, names.record_key(""), queue, *dead.death_arguments(owner), *fields]
        released: int = script("release").run(self._client, [*keys, *names.list_keys(queue)], arguments)
        if which != "some":
            self._client.hdel(names.lanes_key(queue), owner)
        return released

    def renew(self, running: Mapping[str, str]) -> Renewal:
        """Extend the lease if it still stands, and mark running jobs."""
        keys = [names.LEASES_KEY, self._hash, names.cancelled_key(self.queue)]
        arguments: list[Any] = [self.owner, self._lease_seconds, self._seen_cancelled, names.record_key("")]
        arguments += [names.RECORD_TTL_SECONDS, self.queue]
        for item in running.items():
            arguments += item
        with translated(self.url):
            clock, stands, cancelled = script("renew").run(self._client, keys, arguments)
        return Renewal(float(clock), stands == 1, [str(job_id, "utf-8") for job_id in cancelled])

    def hear_cancelled(self, timeout: float) -> list[str]:
        """Wait until jobs of this queue are cancelled, for ``timeout`` seconds at most; their ids."""
        with self._open():
            if self._ear is None:
                self._ear = self._client.pubsub(ignore_subscribe_messages=True)
            try:
                if not self._ear.subscribed:
                    self._ear.subscribe(names.cancelled_key(self.queue))
                return self._heard(timeout)
            except BaseException:
                self._ear.close()  # what it missed is told by `take` and `renew`
                self._ear = None
                raise

    def _heard(self, timeout: float) -> list[str]:
        heard: list[str] = []
        message = self._ear.get_message(timeout=timeout)
        while message is not None and len(heard) < HEAR_AT_MOST:
            heard.append(str(message["data"], "utf-8"))
            message = self._ear.get_message()
        return heard

    def reap(self) -> int:
        """Give back the jobs of owners whose lease ran out, on any queue that the broker's user may touch."""
        reaped = 0
        with translated(self.url):
            seconds, micros = self._client.time()
            now = seconds + micros / 1e6
            expired = [str(member, "utf-8") for member in self._client.zrangebyscore(names.LEASES_KEY, "-inf", now)]
            ours = [owner for owner in expired if names.owner_queue(owner) not in self._foreign]
            for owner in ours[:REAP_AT_MOST]:
                try:
                    reaped += max(self._give_back(owner, "expired"), 0)
                except NoPermissionError:
                    self._foreign.add(names.owner_queue(owner))
        return reaped

    def report(self, facts: Mapping[str, Any]) -> None:
        """Publish facts about this lane."""
        with self._open():
            said = orjson.dumps({"at": time.time(), **facts})
            script("tell").run(self._client, [names.lanes_key(self.queue)], [self.owner, said])

    def close(self, *, blame: bool = False) -> int:
        """Give everything back and end the lease, for good."""
        self._closed = True
        with translated(self.url):
            released = self._give_back(self.owner, "blamed" if blame else "all")
        self._held.clear()
        self._voice.close()
        self._client.close()
        return released


def _unfollowed(done: Completion) -> Completion:
    """The failure of a job whose follow-up the broker refuses."""
    text = "what follows the job can't be sent: its queue is none that this worker may use; mend the link or chain"
    return Completion(
        field=done.field,
        job_id=done.job_id,
        outcome=Outcome.FAILED,
        document=done.document and encode_failure(done.job_id, MalformedJob(text)),
        streamed=done.streamed,
    )


def _leased(field: bytes, stored: bytes) -> Leased:
    deliveries, raw = split_deliveries(stored)
    return Leased(str(field, "utf-8"), raw, deliveries)
