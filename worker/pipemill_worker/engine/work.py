"""A job on its way through the engine."""

from __future__ import annotations

import time
from collections.abc import Hashable
from typing import Any, Final

from pipemill.errors import JobError
from pipemill.protocol import Job, Outcome, message_bytes
from pipemill.protocol.names import STREAM_HEADER, TENANT_HEADER
from pipemill.store.base import Leased
from pipemill_worker.engine.streams import Stream
from pipemill_worker.seams import JOINS, Item, Prepared

_MISSING: Final = object()


class Work:
    """One leased job, from intake to completion."""

    __slots__ = (
        "_left",
        "alone",
        "bytes",
        "cancelled",
        "deliveries",
        "ended",
        "field",
        "job",
        "outputs",
        "prepared",
        "ran_at",
        "started",
        "stream",
        "tenant",
        "urgency",
    )

    def __init__(self, leased: Leased, job: Job):
        self.field = leased.field
        self.job = job
        self.deliveries = leased.deliveries
        #: Length of its message, or of its payload where that was sent by reference.
        self.bytes = message_bytes(leased.raw) or len(leased.raw)
        tenant = job.headers.get(TENANT_HEADER)
        #: Whose job it is; empty for the tenant without a name.
        self.tenant = tenant if isinstance(tenant, str) else ""
        #: Its text as it is told while it is written; None if nobody asked for that.
        self.stream = Stream(leased.field, job.id) if job.headers.get(STREAM_HEADER) is True and job.id else None
        #: Delivered before: it may have killed a worker, so it shares nothing.
        self.alone = leased.deliveries > 0
        self.urgency = int(leased.field.rpartition("|")[2])
        self.prepared: Prepared | None = None
        self.outputs: list[Any] = []
        self._left = 0
        #: A forward pass holds at least one of its items, or has.
        self.started = False
        #: When the last forward pass of one of its items ended, in seconds of the monotonic clock; 0 before.
        self.ran_at = 0.0
        #: It was found to be cancelled while a forward pass held it; it ends with the pass.
        self.cancelled = False
        #: Its end is on its way, or its lease is lost: nothing more is done for it.
        self.ended = False

    def set_prepared(self, prepared: Prepared) -> list[Entry]:
        """Keep what preprocessing made of it; its items, ready to wait."""
        self.prepared = prepared
        self._left = len(prepared.items)
        self.outputs = [_MISSING] * self._left
        return [Entry(self, index, item) for index, item in enumerate(prepared.items)]

    def add_output(self, index: int, output: Any) -> bool:
        """Keep one item's output; whether it was the last one missing."""
        self.outputs[index] = output
        self._left -= 1
        return self._left == 0


class Entry:
    """An item waiting in a lane's pool."""

    __slots__ = ("cost", "fresh", "group", "index", "item", "since", "turn", "urgency", "work")

    def __init__(self, work: Work, index: int, item: Item):
        self.work = work
        self.index = index
        self.item = item
        # What joins and is alone finds nobody to join: it is alone in its process.
        self.group: Hashable | None = item.group if item.group == JOINS or not work.alone else None
        self.cost = item.cost
        #: Since when it waits, in seconds of the monotonic clock.
        self.since = time.monotonic()
        self.urgency = work.urgency
        #: Its place among the items of several tenants; lower ones are first.
        self.turn = 0.0
        #: Its tenant had nothing else waiting when it came.
        self.fresh = False


class End:
    """How a job ended, on its way to the store. An answer still needs postprocessing."""

    __slots__ = ("due", "error", "outcome", "work")

    def __init__(self, work: Work, outcome: Outcome, error: JobError | None = None, due: float = 0.0):
        work.ended = True
        self.work = work
        self.outcome = outcome
        self.error = error
        self.due = due
