"""The same API in memory, so that a web backend's tests need neither Redis nor models.

::

    broker = testing.MemoryBroker()
    with testing.client(broker) as client, testing.answering(broker, "sentiment", lambda text: {"label": "good"}):
        assert client.run("sentiment", "I like it") == {"label": "good"}
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, Final

from pipemill.aio import AsyncClient
from pipemill.client import Client
from pipemill.codec import decode, encoder
from pipemill.errors import (
    InferenceFailed,
    InvalidInput,
    JobCancelled,
    JobError,
    JobExpired,
    MediaUnreadable,
    PayloadMissing,
    ResultNotSerialisable,
)
from pipemill.protocol import (
    Job,
    Outcome,
    decode_arguments,
    decode_message,
    encode_failure,
    encode_success,
    message_id,
)
from pipemill.protocol.names import STREAM_HEADER
from pipemill.store.base import Completion, Leased, QueueInfo
from pipemill.store.memory import MemoryBroker, MemoryJobStore
from pipemill.store.memory_aio import AsyncMemoryQueueStore
from pipemill.store.memory_queues import MemoryQueueStore
from pipemill.store.streams import Piece

__all__ = ["MemoryBroker", "announce", "answering", "async_client", "client"]

#: How long the answering thread waits for a job before it looks whether it is to stop, in seconds.
LOOK_SECONDS: Final = 0.02


def client(broker: MemoryBroker, **options: Any) -> Client:
    """Return a client of a broker in memory; ``options`` are those of ``Client``."""
    return Client(store=MemoryQueueStore(broker), **options)


def async_client(broker: MemoryBroker, **options: Any) -> AsyncClient:
    """Return a client for asyncio of a broker in memory; ``options`` are those of ``AsyncClient``."""
    return AsyncClient(store=AsyncMemoryQueueStore(broker), **options)


def announce(broker: MemoryBroker, queue: str, *, task: str = "", **limits: Any) -> None:
    """Make a queue known that nobody answers: its jobs stay queued. ``limits`` are those of ``QueueInfo``.

    With a ``task``, parameters that it doesn't take are refused as they would be by a real queue of it.
    """
    MemoryJobStore(broker, queue).announce(QueueInfo(name=queue, task=task, **limits))


@contextmanager
def answering(
    broker: MemoryBroker, queue: str, function: Callable[..., Any], *, task: str = "", **limits: Any
) -> Iterator[list[Job]]:
    """Announce a queue and answer its jobs with ``function(inputs, **parameters)``, in a thread, one by one.

    The function gets media as a client gets them in answers, and may give media as a client may.
    One that yields tells the job's text so, piece by piece, to who follows it, and returns the answer.
    What it raises becomes the job's failure: a JobError as it is, anything else as InferenceFailed. The block is
    given the list of the jobs that were started so far, in order. Jobs that wait when it ends stay queued.
    """
    announce(broker, queue, task=task, **limits)
    answerer = _Answerer(broker, queue, function)
    thread = threading.Thread(target=answerer.run, name=f"answering {queue}", daemon=True)
    thread.start()
    try:
        yield answerer.started
    finally:
        answerer.stop.set()
        thread.join()


class _Answerer:
    """A worker without a model."""

    def __init__(self, broker: MemoryBroker, queue: str, function: Callable[..., Any]):
        self._broker, self._queue, self._function = broker, queue, function
        self._store = MemoryJobStore(broker, queue)
        self.stop = threading.Event()
        self.started: list[Job] = []

    def run(self) -> None:
        """Answer jobs until told to stop."""
        while not self.stop.is_set():
            self._store.wait(LOOK_SECONDS)
            taken = self._store.take(1)
            for leased in taken.jobs:
                self._store.complete([self._end(leased, taken.now)])
        self._store.close()

    def _end(self, leased: Leased, now: float) -> Completion:
        job_id = message_id(leased.raw) or ""
        try:
            job = decode_message(leased.raw, self._queue)
            if job.eta is not None and job.eta > now:
                return Completion(field=leased.field, job_id=job_id, outcome=Outcome.PARKED, due=job.eta)
            document = encode_success(job_id, self._answer(job, leased, now), default=encoder())
        except JobError as error:
            return _failure(leased, job_id, error)
        except (TypeError, ValueError) as error:
            text = f"the answer can't be written as JSON: {error}"
            return _failure(leased, job_id, ResultNotSerialisable(text))
        kept = None if job.ignore_result else document
        done = Completion(field=leased.field, job_id=job_id, outcome=Outcome.SUCCEEDED, document=kept)
        done.streamed = STREAM_HEADER in job.headers
        return done

    def _answer(self, job: Job, leased: Leased, now: float) -> Any:
        if job.expires is not None and job.expires <= now:
            raise JobExpired("the job was not started before its deadline; submit it again with a later one")
        if self._broker.ending(job.id):
            raise JobCancelled("the job was cancelled")
        self._store.renew({leased.field: job.id})
        if job.by_reference:
            (payload,) = self._store.payloads([job.id])
            if payload is None:
                raise PayloadMissing("the inputs were sent by reference and are gone; submit the job again")
            job.inputs, job.parameters, _ = decode_arguments(payload)
        try:
            job.inputs, job.parameters = decode([job.inputs, job.parameters], self._fetch)
        except MediaUnreadable as error:
            raise InvalidInput(str(error)) from error
        self.started.append(job)
        try:
            found = self._function(job.inputs, **job.parameters)
            return self._told(found, job, leased) if isinstance(found, Generator) else found
        except JobError:
            raise
        except Exception as error:
            raise InferenceFailed(f"{type(error).__name__}: {error}") from error

    def _told(self, pieces: Generator[str, None, Any], job: Job, leased: Leased) -> Any:
        """Tell the pieces of a text to who follows it; what they come to."""
        offset = 0
        while True:
            try:
                text = next(pieces)
            except StopIteration as end:
                return end.value
            piece = Piece(field=leased.field, job_id=job.id, run=leased.field, offset=offset, text=text)
            if STREAM_HEADER in job.headers:
                self._store.emit([piece])
            offset += len(text)

    def _fetch(self, reference: str) -> bytes:
        data = self._store.blobs.get(reference)
        if data is None:
            raise PayloadMissing("the inputs' media were sent by reference and are gone; submit the job again")
        return data


def _failure(leased: Leased, job_id: str, error: JobError) -> Completion:
    outcome = {JobExpired: Outcome.EXPIRED, JobCancelled: Outcome.CANCELLED}.get(type(error), Outcome.FAILED)
    document = encode_failure(job_id, error) if job_id else None
    return Completion(field=leased.field, job_id=job_id, outcome=outcome, document=document)
