"""A job whose attempt failed: tried again, ended, or given up with its history."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Final

from pipemill.errors import DeliveryLimitReached, InferenceFailed, JobError, RetryLimitReached
from pipemill.protocol import History, IncidentKind, Outcome
from pipemill.protocol.history import attempts_in, encode_incident, encode_letter, tell
from pipemill_worker.engine.lane import Lane
from pipemill_worker.engine.wiring import log
from pipemill_worker.engine.work import Work
from pipemill_worker.policy.retries import Verdict, decide, retryable

#: Draws the part of its longest wait that a job waits.
_draw: Final = random.Random().random  # noqa: S311  # it spreads load, it hides nothing


#: What to do about a letter, by the class of its error.
_MENDS: Final = {
    DeliveryLimitReached.__name__: "look at its inputs and at the workers' memory, then replay or drop it",
}
_MEND: Final = "mend the cause, then replay it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """How a job's lease ends."""

    outcome: Outcome
    error: JobError
    #: How long it waits for its next attempt, in seconds.
    delay: float = 0.0
    #: What its history gains.
    incident: bytes = b""
    #: What its dead letter says.
    letter: bytes = b""


def needs_history(lane: Lane, work: Work, outcome: Outcome, error: JobError | None) -> bool:
    """Whether what happened to a job before decides how it ends, or is told with its end."""
    if error is None or not work.job.id:
        return False
    return outcome is Outcome.DEAD or (outcome is Outcome.FAILED and _is_retryable(lane, error))


def _is_retryable(lane: Lane, error: JobError) -> bool:
    return retryable(lane.retry, transient=error.transient, unknown=isinstance(error, InferenceFailed))


def fate_of(lane: Lane, work: Work, outcome: Outcome, error: JobError, history: History) -> Fate:
    """How a job ends that failed, or that workers died on too often; ``history`` is what happened to it before."""
    if outcome is Outcome.DEAD:
        return _dead(lane, work, error, history)
    if outcome is not Outcome.FAILED or not _is_retryable(lane, error):
        return Fate(outcome=outcome, error=error)
    attempt = attempts_in(history) + 1
    left = inf if work.job.expires is None else work.job.expires - lane.now()
    verdict, delay = decide(lane.retry, attempt, worth=error.worth_attempts, left=left, draw=_draw())
    if verdict is Verdict.END:
        return Fate(outcome=outcome, error=error)
    kind, text = type(error).__name__, _own_words(error)
    incident = encode_incident(IncidentKind.FAILED, worker=lane.store.owner, attempt=attempt, error=kind, text=text)
    if verdict is Verdict.GIVE_UP:
        limit = RetryLimitReached(f"{attempt} attempts failed, the last with {kind}: {text}")
        return _dead(lane, work, limit, history, incident)
    told = "queue %s: attempt %d of %d of a job failed (%s: %s); again in %.1f s"
    facts = (lane.name, attempt, lane.retry.max_attempts, kind, text, delay)
    log.warning(told, *facts, extra={"event": "job_retried", "job": work.job.id})
    return Fate(outcome=Outcome.RETRIED, error=error, delay=delay, incident=incident)


def _dead(lane: Lane, work: Work, error: JobError, history: History, incident: bytes = b"") -> Fate:
    """Give a job up, after one more incident or none; its producer is told what happened, its letter has all of it."""
    kind, text = type(error).__name__, str(error)
    mend = _MENDS.get(kind, _MEND)
    log.error(
        "queue %s: a job is given up: %s: %s", lane.name, kind, text, extra={"event": "job_dead", "job": work.job.id}
    )
    attempts = attempts_in(history) + (1 if incident else 0)
    letter = encode_letter(error=kind, text=text, deliveries=work.deliveries, attempts=attempts)
    before = f" What happened before: {tell(history)}." if history else ""
    # No id stands in a command: whoever may enqueue jobs chooses it, and somebody copies the command into a shell.
    told = f"{text}; it is kept as a dead letter.{before} `pipemill dead list {lane.name}` lists it: {mend}"
    return Fate(outcome=Outcome.DEAD, error=type(error)(told), incident=incident, letter=letter)


def _own_words(error: JobError) -> str:
    """What an error says without what a pipeline said: that may hold the inputs."""
    text = str(error)
    return text.partition(":")[0] if isinstance(error, InferenceFailed) else text


def histories_of(lane: Lane, works: Iterable[Work]) -> Mapping[str, History]:
    """What happened to jobs before, by id."""
    job_ids = [work.job.id for work in works]
    return dict(zip(job_ids, lane.store.histories(job_ids), strict=True)) if job_ids else {}
