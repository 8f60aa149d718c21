"""Looks at results while they come, and counts what is left at the end."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Final, Self

import redis

from pipemill.protocol import names
from tests.faults.accounting import Leftovers, Sightings
from tests.helpers import until

#: How long the listener waits for a message before it looks whether it is to stop, in seconds.
LISTEN_SECONDS: Final = 0.2
#: Keys asked for by one command.
AT_ONCE: Final = 2_000


class Watcher:
    """Hears every result that is published while it is open; it subscribes again when its connection is lost."""

    def __init__(self, url: str):
        self.seen = Sightings()
        self._url = url
        self._guard = threading.Lock()
        self._stopping = threading.Event()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="watcher")

    def __enter__(self) -> Self:
        self._thread.start()
        until(self._listening.is_set, "the watcher listens")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()

    def _listen(self) -> None:
        while not self._stopping.is_set():
            try:
                with redis.Redis.from_url(self._url) as client, client.pubsub() as channel:
                    self._hear(channel)
            except redis.RedisError:  # the broker is away, as it should be at times: what is missed is looked up
                self._stopping.wait(LISTEN_SECONDS)

    def _hear(self, channel: Any) -> None:
        channel.psubscribe(f"{names.RESULT_PREFIX}*")
        while (message := channel.get_message(timeout=LISTEN_SECONDS)) or not self._stopping.is_set():
            if message and message["type"] == "psubscribe":
                self._listening.set()
            elif message and message["type"] == "pmessage":
                job_id = message["channel"].decode("utf-8", "replace").removeprefix(names.RESULT_PREFIX)
                with self._guard:
                    self.seen.hear(job_id, message["data"])

    def heard(self, job_ids: Iterable[str]) -> set[str]:
        """Those of these jobs whose result was seen."""
        with self._guard:
            return {job_id for job_id in job_ids if job_id in self.seen.first}

    def look(self, broker: redis.Redis, job_ids: Sequence[str]) -> None:
        """Look for the results of jobs that nobody heard of."""
        for job_id, document in results(broker, job_ids).items():
            if document is not None:
                with self._guard:
                    self.seen.note(job_id, document)


def results(broker: redis.Redis, job_ids: Sequence[str]) -> dict[str, bytes | None]:
    """The result documents as they are stored."""
    found: dict[str, bytes | None] = {}
    for start in range(0, len(job_ids), AT_ONCE):
        part = job_ids[start : start + AT_ONCE]
        documents: Any = broker.mget([names.result_key(job_id) for job_id in part])
        found.update(zip(part, documents, strict=True))
    return found


def leftovers(broker: Any, queues: Iterable[str], job_ids: Sequence[str] = ()) -> Leftovers:
    """What lies in the broker: of anybody's leases, of these queues' lists, of these jobs' records and inputs."""
    known = list(queues)
    return Leftovers(
        leased=sum(broker.hlen(key) for key in broker.scan_iter(f"{names.lease_key('')}*")),
        inboxes=sum(broker.llen(key) for key in broker.scan_iter(f"{names.inbox_key('')}*")),
        owners=broker.zcard(names.LEASES_KEY),
        waiting=sum(broker.llen(key) for queue in known for key in names.list_keys(queue)),
        parked=sum(broker.zcard(names.delayed_key(queue)) for queue in known),
        records=_count(broker, [names.record_key(job_id) for job_id in job_ids]),
        payloads=_count(broker, [names.payload_key(job_id) for job_id in job_ids]),
    )


def _count(broker: Any, keys: Sequence[str]) -> int:
    return sum(broker.exists(*keys[start : start + AT_ONCE]) for start in range(0, len(keys), AT_ONCE))
