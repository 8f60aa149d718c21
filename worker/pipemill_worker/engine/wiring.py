"""What connects the engine's threads."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from pipemill.errors import BrokerError
from pipemill_worker.engine.hooks import Hooks
from pipemill_worker.engine.lane import Lane
from pipemill_worker.policy.backoff import backoff_seconds

log = logging.getLogger("pipemill.engine")

T = TypeVar("T")

#: Ends a thread's loop when it comes out of its queue.
CLOSED: Final = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Bounds of an engine."""

    #: How long a lease lasts that isn't renewed, in seconds.
    lease_seconds: float = 15.0
    #: How long a drain may take, in seconds.
    drain_seconds: float = 30.0
    #: Workers that may die on a job before it is given up.
    max_deliveries: int = 3
    #: Threads of each lane that preprocess, each with its own tokenizers.
    preprocess_threads: int = 1
    #: How long a forward pass may be without a sign of life, at least, in seconds; None for as long as it likes.
    stuck_seconds: float | None = 300.0


class Gate:
    """Keeps a job that was delivered before alone in its process: it may kill it, and no other is to be blamed.

    Intakes take one at a time, under ``taking``.
    """

    def __init__(self, lanes: Sequence[Lane]):
        self.taking = threading.Lock()
        self._lanes = lanes
        #: Whether an intake may wait for jobs as part of taking them: no other waits for its turn then.
        self.may_linger = len(lanes) == 1
        #: Lanes whose queue has such a job next, which waits until nothing is held.
        self._waiting: set[str] = set()

    def may_take(self, lane: Lane) -> bool:
        """Whether a lane may take now; call it under ``taking``."""
        if any(each.holds_suspect for each in self._lanes):
            return False
        return not self._waiting or (lane.name in self._waiting and not self.held_elsewhere(lane) and not lane.held)

    def held_elsewhere(self, lane: Lane) -> int:
        """Jobs held by the process's other lanes."""
        return sum(len(each.held) for each in self._lanes if each is not lane)

    def note(self, lane: Lane, *, blocked: bool) -> None:
        """Note whether such a job waits in a lane's queue."""
        if blocked:
            self._waiting.add(lane.name)
        else:
            self._waiting.discard(lane.name)


@dataclass(slots=True)
class Pulse:
    """When the heartbeat did what, in seconds of the monotonic clock; 0 is never."""

    #: It last set out to renew a lease.
    tried_at: float = 0.0
    #: The broker last renewed one.
    renewed_at: float = 0.0


@dataclass(slots=True)
class Wiring:
    """Queues and signals between the engine's threads."""

    settings: EngineSettings
    hooks: Hooks
    gate: Gate
    #: Set once: take no more, prepare no more, start no further batch.
    stopping: threading.Event = field(default_factory=threading.Event)
    #: Set once everything is given back: waiting for the broker is over too.
    closed: threading.Event = field(default_factory=threading.Event)
    #: By device: set when a lane of it may have a batch.
    ready: dict[str, threading.Event] = field(default_factory=dict)
    #: Set when a job of some lane was cancelled.
    cancels: threading.Event = field(default_factory=threading.Event)
    pulse: Pulse = field(default_factory=Pulse)

    def retrying(self, call: Callable[[], T], what: str, until: threading.Event) -> T | None:
        """Call the broker until it answers or ``until`` is set (then None): workers wait for their broker."""
        attempt = 0
        while True:
            try:
                answer = call()
            except BrokerError as error:
                attempt += 1
                if attempt == 1:
                    log.warning("%s: %s; trying again", what, error, extra={"event": "broker_unavailable"})
                if until.wait(backoff_seconds(attempt)):
                    return None
            else:
                if attempt:
                    log.warning("%s: the broker answers again", what, extra={"event": "broker_back"})
                return answer
