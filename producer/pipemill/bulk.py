"""Many jobs at once: which to send, which to look for, how long to pause. Pure; the clients do what it says."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, Final

from pipemill.errors import BrokerError, BrokerUnavailable, PipemillError, ResultTimeout, UnknownJob
from pipemill.jobs import (
    CHUNK,
    JobOptions,
    Terms,
    check_many,
    check_options,
    check_parameters,
    check_queue,
    check_size,
    is_id,
    new_id,
    part_end,
    submission,
)
from pipemill.protocol import Result
from pipemill.replies import Deadline, ended, retry_after, unknown_job
from pipemill.store.base import Accepted, QueueInfo, Standing, Submission
from pipemill.transit import Laden

log = logging.getLogger("pipemill.client")

#: Writes the inputs and parameters of a job, and is told when it may start: ``Transit.encode``.
Encode = Callable[[Any, dict[str, Any], float | None], bytes]

#: Most jobs looked for by one call, the oldest first: enough to hear of whole batches, few enough to be cheap.
LOOK_AT_MOST: Final = 128
#: Bounds of the pause between two looks that find nothing, in seconds.
PAUSE_SECONDS: Final = (0.002, 0.25)
#: How the pause grows when nothing was found, and shrinks when something was.
PAUSE_GROWTH: Final = 1.5
#: The longest pause before a full queue is tried again, in seconds; it may drain faster than it did.
FULL_PAUSE_SECONDS: Final = 5.0
#: How long a broker may be away during ``map``, in seconds: a restart, not an outage.
BROKER_PATIENCE_SECONDS: Final = 60.0


@contextmanager
def abandoning() -> Iterator[None]:
    """Cancel jobs that nobody waits for any more; what is in the way of that is logged, and hides no error."""
    try:
        yield
    except BrokerError as error:
        text = "jobs that nobody waits for any more run on, as they can't be cancelled: %s"
        log.warning(text, error, extra={"event": "cancel_failed"})


class Pace:
    """The pause between looks, in seconds: short while answers come, longer while they don't."""

    def __init__(self) -> None:
        self._pause = PAUSE_SECONDS[0]

    def after(self, *, found: bool) -> float:
        """How long to pause after a look that found something, or nothing."""
        shortest, longest = PAUSE_SECONDS
        changed = self._pause / PAUSE_GROWTH if found else self._pause * PAUSE_GROWTH
        self._pause = min(max(changed, shortest), longest)
        return self._pause


class Gathering:
    """Jobs that are waited for, and how those that ended did."""

    def __init__(self, job_ids: Iterable[str] = ()):
        #: Ids of jobs not known to have ended, oldest first.
        self.open: dict[str, None] = dict.fromkeys(job_ids)
        #: By id, how jobs ended, or that there is no trace of them.
        self.ended: dict[str, Result | PipemillError] = {}
        self.pace = Pace()
        for job_id in [job_id for job_id in self.open if not is_id(job_id)]:
            del self.open[job_id]
            self.ended[job_id] = unknown_job(job_id)

    def to_look_for(self) -> list[str]:
        """The jobs to look for now."""
        return list(islice(self.open, LOOK_AT_MOST))

    def note(self, job_ids: Sequence[str], standings: Sequence[Standing]) -> int:
        """Take in what a look found; how many jobs ended."""
        before = len(self.open)
        for job_id, standing in zip(job_ids, standings, strict=True):
            try:
                outcome: Result | PipemillError | None = ended(job_id, standing)
            except UnknownJob as error:
                outcome = error
            if outcome is not None:
                self.ended[job_id] = outcome
                del self.open[job_id]
        return before - len(self.open)

    def results(self, job_ids: Iterable[str]) -> list[Result]:
        """How these jobs ended, in order.

        Raises
        ------
        UnknownJob
            When there is no trace of one.

        """
        outcomes = [self.ended[job_id] for job_id in job_ids]
        for outcome in outcomes:
            if isinstance(outcome, PipemillError):
                raise outcome
        return [outcome for outcome in outcomes if isinstance(outcome, Result)]


class Bulk:
    """The state of one ``map``: inputs drawn as room appears, answers given in the order of the inputs.

    A job counts against the window until its answer is given, so that neither queue nor memory fills up.
    """

    def __init__(  # noqa: PLR0913  # they are the arguments of map
        self,
        queue: str,
        inputs: Iterable[Any],
        parameters: Mapping[str, Any] | None,
        options: JobOptions,
        encode: Encode,
        *,
        window: int,
        timeout: float | None,
        on_progress: Callable[[int, int], object] | None,
    ):
        if window < 1:
            raise ValueError(f"window must be 1 job or more, not {window}")
        check_options(**options)
        self.queue = check_queue(queue)
        #: What the queue announced of itself; set before the first inputs are drawn.
        self.info: QueueInfo | None = None
        self._source = iter(check_many(inputs))
        #: What all inputs share, as it stands when they are drawn.
        self.parameters = check_parameters(parameters)
        self._options = options
        self._encode = encode
        self._window = window
        self._step = min(CHUNK, max(window // 2, 1))
        self._timeout = timeout
        self._deadline = Deadline(None)
        self._on_progress = on_progress
        self._drained = False
        #: Ids in the order of the inputs, until their answers are given.
        self._order: deque[str] = deque()
        self._unsent: list[Submission] = []
        #: How many are sent at once, with payloads one after a refusal, then ever twice as many; and were sent last.
        self._at_once, self._sent = CHUNK, 0
        #: Jobs that take long to encode: id, inputs and parameters of each.
        self._laden: list[tuple[str, Any, dict[str, Any]]] = []
        self._room_at = 0.0
        self._jobs = Gathering()
        self._drawn = self._given = self._told = 0
        self._away_since: float | None = None

    @property
    def outstanding(self) -> list[str]:
        """Ids of jobs that may be on their way: accepted, or sent without an answer to that, and not known to end."""
        return [*self._jobs.open, *(job.job_id for job in self._unsent)]

    @property
    def over(self) -> bool:
        """Whether every input's answer was given."""
        return self._drained and not self._order

    @property
    def ready(self) -> bool:
        """Whether the next answer is there."""
        return bool(self._order) and self._order[0] in self._jobs.ended

    def expect(self) -> None:
        """Start the clock for the next answer."""
        self._deadline = Deadline(self._timeout)

    def to_send(self) -> list[Submission]:
        """The jobs to send now; those a full queue refused come first, when it may have room, and few at first."""
        if time.monotonic() < self._room_at:
            return []
        while (
            not self._unsent and not self.laden and not self._drained and self._window - len(self._order) >= self._step
        ):
            self._draw()
        self._sent = part_end(self._unsent, 0, self._at_once)
        return self._unsent[: self._sent]

    @property
    def laden(self) -> bool:
        """Whether jobs wait to be encoded by ``load``."""
        return bool(self._laden)

    def load(self, encode: Encode) -> None:
        """Encode the jobs that take long; on an event loop, another thread's work."""
        terms = check_options(**self._options)
        waiting, self._laden = self._laden, []
        for job_id, inputs, parameters in waiting:
            self._write(job_id, terms, inputs, parameters, encode)

    def _draw(self) -> None:
        """Encode some inputs."""
        terms = check_options(**self._options)
        for inputs in islice(self._source, self._step):
            job_id = new_id()
            self._order.append(job_id)
            try:
                self._write(job_id, terms, inputs, self.parameters, self._encode)
            except Laden:
                self._laden.append((job_id, inputs, dict(self.parameters)))
        drawn = len(self._order) + self._given
        self._drained = drawn - self._drawn < self._step
        self._drawn = drawn

    def _write(self, job_id: str, terms: Terms, inputs: Any, parameters: dict[str, Any], encode: Encode) -> None:
        """Encode a job; one that can't be sent fails alone, at its place."""
        try:
            arguments = encode(inputs, parameters, terms.eta)
            if self.info is not None:
                check_size(arguments, self.info)
            self._unsent.append(submission(self.queue, job_id, arguments, terms))
        except PipemillError as error:
            self._jobs.ended[job_id] = error

    def note_sent(self, accepted: Accepted) -> None:
        """Take in what became of the jobs last sent."""
        self._away_since = None
        count = len(accepted.job_ids)
        self._jobs.open.update(dict.fromkeys(accepted.job_ids))
        self._unsent = self._unsent[count:]
        self._at_once = min(2 * self._at_once, CHUNK)
        if count < self._sent:
            if any(job.payload is not None for job in self._unsent):
                self._at_once = 1  # Payloads go ahead of a call, and would go again and again.
            pause = min(retry_after(accepted, len(self._unsent)), FULL_PAUSE_SECONDS)
            self._room_at = time.monotonic() + pause

    def to_look_for(self) -> list[str]:
        """The jobs to look for now."""
        return self._jobs.to_look_for()

    def note_found(self, job_ids: Sequence[str], standings: Sequence[Standing]) -> float:
        """Take in what a look found; the seconds to pause if the next answer isn't there."""
        self._away_since = None
        found = self._jobs.note(job_ids, standings)
        if found:
            self._room_at = 0.0
        self._tell()
        return self._pause(found=found > 0)

    def note_away(self, error: BrokerUnavailable) -> float:
        """Take in that the broker can't be reached; the seconds to pause, or the error again when it is too much."""
        now = time.monotonic()
        self._away_since = self._away_since or now
        if now - self._away_since > BROKER_PATIENCE_SECONDS:
            raise error
        return self._pause(found=False)

    def _pause(self, *, found: bool) -> float:
        if not self.ready and self._deadline.left() <= 0:
            raise ResultTimeout(
                f"queue {self.queue!r} didn't answer input {self._given} (counted from 0) in {self._timeout} s; "
                "all unanswered jobs are cancelled: see that workers run, or give a longer timeout"
            )
        return self._jobs.pace.after(found=found)

    def _tell(self) -> None:
        ended_jobs = self._given + len(self._jobs.ended)
        if self._on_progress and ended_jobs > self._told:
            self._told = ended_jobs
            self._on_progress(ended_jobs, self._drawn)

    def give(self) -> Result:
        """How the next job ended; what came instead is raised."""
        self._tell()
        outcome = self._jobs.ended.pop(self._order.popleft())
        self._given += 1
        if isinstance(outcome, PipemillError):
            raise outcome
        return outcome
