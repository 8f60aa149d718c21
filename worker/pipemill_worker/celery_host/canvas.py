"""What follows a job: links, errbacks, the rest of a chain, a chord.

Celery's own canvas code builds the messages. A capturing producer collects them, so that the store pushes them in the
same script that ends the job: what follows is enqueued once, or not at all. Chords keep their count in Celery's result
backend; their part is returned before the job's end, and returning it twice counts once.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from celery import Celery, signature
from celery.app.task import Context
from celery.exceptions import ChordError, TaskRevokedError
from celery.result import GroupResult
from kombu.connection import Connection
from kombu.exceptions import OperationalError
from kombu.messaging import Producer
from kombu.transport import virtual
from kombu.utils.json import dumps
from redis.exceptions import DataError, RedisError, ResponseError

from pipemill.errors import BrokerUnavailable, JobCancelled, JobError, JobExpired, MalformedJob
from pipemill.protocol import Job, names
from pipemill.protocol.signing import sign_message
from pipemill.signing import Keyring

Message = tuple[str, bytes]

#: How an answer of the broker's begins that tells of its own state (OOM, MISCONF, READONLY), not of what was asked.
_STATE: Final = re.compile(r"(?!WRONGTYPE)[A-Z]{3,}\b")


def passes(problem: Exception) -> bool:
    """Whether an error tells of the broker, and will pass, and not of what the job asked of it."""
    if isinstance(problem, DataError):
        return False
    if type(problem) is ResponseError:
        return _STATE.match(str(problem)) is not None
    return isinstance(problem, OperationalError | RedisError)


class _Channel(virtual.Channel):
    """Keeps what is published instead of sending it."""

    def _put(self, queue: str, message: dict[str, Any], **_: Any) -> None:
        if queue.startswith(names.RESERVED_PREFIXES):
            text = f"{queue[:80]!r} isn't a queue: what follows a job goes to a queue's name"
            raise ValueError(text)
        step = names.priority_step(int(message["properties"].get("priority") or 0))
        self.connection.captured.append((names.list_key(queue, step), dumps(message).encode()))


class _Transport(virtual.Transport):
    Channel = _Channel
    #: Declarations made while publishing are this transport's own affair.
    global_state = virtual.BrokerState()

    def __init__(self, client: Connection, **options: Any):
        super().__init__(client, **options)  # type: ignore[no-untyped-call]  # kombu says nothing of it
        self.captured: list[Message] = []


class Canvas:
    """Turns a job's end into what follows it."""

    def __init__(self, app: Celery, keyring: Keyring | None = None):
        self._app = app
        self._keyring = keyring

    def follow(self, job: Job, value: Any, error: JobError | None) -> Sequence[Message]:
        """Messages to push together with the job's end.

        Raises
        ------
        BrokerUnavailable
            When a chord's part could not be returned for now.
        MalformedJob
            When the canvas can't be read, or the broker refuses what it asks for.

        """
        request = Context({**job.headers, **job.canvas, "args": [], "kwargs": {}, "delivery_info": {}})
        try:
            found = self._failed(request, error) if error is not None else self._succeeded(request, value)
            return self._signed(job, found)
        except JobError:
            raise
        except Exception as problem:
            if passes(problem):
                text = f"what follows the job could not be sent yet: {problem}"
                raise BrokerUnavailable(text) from problem
            text = (
                f"the job's link, chain or chord can't be followed ({type(problem).__name__}: {problem}); send it anew"
            )
            raise MalformedJob(text) from problem

    def _signed(self, job: Job, found: list[Message]) -> list[Message]:
        """Sign what follows a signed job with its key: whoever signed the job signed that too."""
        key = self._keyring.keys().get(job.signed_by or "") if self._keyring else None
        if key is None:
            return found
        return [
            (name, sign_message(raw, name.partition(names.PRIORITY_SEPARATOR)[0], key, time.time()))
            for name, raw in found
        ]

    def _succeeded(self, request: Context, value: Any) -> list[Message]:
        if request.chord:
            self._return_part(request, "SUCCESS", value)
        related = {"parent_id": request.id, "root_id": request.root_id or request.id}
        callbacks = [signature(callback, app=self._app) for callback in request.callbacks or ()]

        def publish(producer: Producer) -> None:
            for callback in callbacks:
                callback.apply_async((value,), producer=producer, **related)
            if request.chain:
                following = signature(request.chain[-1], app=self._app)
                following.apply_async((value,), chain=request.chain[:-1], producer=producer, **related)

        return self._captured(publish)

    def _failed(self, request: Context, error: JobError) -> list[Message]:
        revoked = isinstance(error, JobCancelled | JobExpired)
        state, cause = ("REVOKED", TaskRevokedError(str(error))) if revoked else ("FAILURE", error)
        if request.chord:
            self._return_part(request, state, cause)
        if revoked:
            return []
        self._app.backend._fail_chain(request.chain, cause, None, state=state)  # noqa: SLF001  # Celery's own walk
        errbacks = [signature(errback, app=self._app) for errback in request.errbacks or ()]

        def publish(producer: Producer) -> None:
            for errback in errbacks:
                related = {"parent_id": request.id, "root_id": request.root_id or request.id}
                errback.apply_async((request.id,), producer=producer, **related)

        return self._captured(publish)

    def _return_part(self, request: Context, state: str, value: Any) -> None:
        """Count this part of a chord; the last one sends its body.

        A header whose members have canvases of their own is joined by waiting for their results, which this very thread
        would have to store: such a chord is failed instead.
        """
        if not request.group or GroupResult.restore(request.group, app=self._app) is None:
            self._app.backend.on_chord_part_return(request, state, value)
            return
        text = "a chord over chains that contain groups or chords can't be counted here: make its header a flat group"
        try:
            raise ChordError(text)  # noqa: TRY301  # Celery reads the traceback
        except ChordError as error:
            self._app.backend.chord_error_from_stack(signature(request.chord, app=self._app), error)
            raise MalformedJob(text) from error

    def _captured(self, publish: Callable[[Producer], None]) -> list[Message]:
        with Connection(transport=_Transport) as connection, self._app.amqp.Producer(connection) as producer:
            publish(producer)
            captured: list[Message] = list(connection.transport.captured)
        return captured
