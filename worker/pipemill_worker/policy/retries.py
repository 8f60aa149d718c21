"""Whether a job whose attempt failed gets another one, and when: pure."""

from __future__ import annotations

import errno
import math
from dataclasses import dataclass
from enum import Enum
from typing import Final

#: Errors of the system that pass: too much is open or in memory just now, or the other side went away.
_PASSING_ERRNOS: Final = frozenset(
    {
        errno.EAGAIN,
        errno.EBUSY,
        errno.EHOSTUNREACH,
        errno.EINTR,
        errno.EIO,
        errno.EMFILE,
        errno.ENETDOWN,
        errno.ENETRESET,
        errno.ENETUNREACH,
        errno.ENFILE,
        errno.ENOBUFS,
        errno.ENOMEM,
        errno.ENOSPC,
        errno.ESTALE,
    }
)
#: Doublings of the wait, at most: any bound is reached by then.
_DOUBLINGS: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and when a queue tries again."""

    #: Attempts of a job in all; 1 never tries again.
    max_attempts: int = 1
    #: The longest wait before the second attempt, in seconds; it doubles with each.
    backoff_seconds: float = 1.0
    #: The longest wait, in seconds.
    max_backoff_seconds: float = 60.0
    #: Whether a wait is drawn from nothing to its longest, so that jobs that failed together don't come back together.
    jitter: bool = True
    #: Whether a job is also tried again after an error of its pipeline of which nobody knows whether it passes.
    any_failure: bool = False


#: Nothing is tried again.
NEVER: Final = RetryPolicy()


class Verdict(Enum):
    """What becomes of a job whose attempt failed."""

    #: It ends with its error: another attempt would be no use, or not in time.
    END = "end"
    #: It is tried again.
    RETRY = "retry"
    #: It was tried as often as allowed; it is kept as a dead letter.
    GIVE_UP = "give up"


def retryable(policy: RetryPolicy, *, transient: bool, unknown: bool) -> bool:
    """Whether a policy tries again after an error that may pass, or after one of which nobody knows."""
    return policy.max_attempts > 1 and (transient or (policy.any_failure and unknown))


def decide(
    policy: RetryPolicy, attempt: int, *, worth: int | None = None, left: float = math.inf, draw: float
) -> tuple[Verdict, float]:
    """What becomes of a job whose ``attempt``-th attempt (the first is 1) failed with an error that is retryable.

    ``worth`` are the attempts that its error is worth, ``left`` the seconds until the job's deadline. ``draw`` is a
    number from 0 to 1, drawn by chance. The second part is the wait before the next attempt, in seconds.
    """
    most = policy.max_attempts if worth is None else min(policy.max_attempts, worth)
    if attempt >= most:
        return Verdict.GIVE_UP, 0.0
    wait = retry_seconds(policy, attempt, draw)
    return (Verdict.RETRY, wait) if wait < left else (Verdict.END, 0.0)


def retry_seconds(policy: RetryPolicy, attempt: int, draw: float) -> float:
    """How long to wait after the ``attempt``-th attempt: doubling, bounded, and drawn from all that if it jitters."""
    longest = min(policy.backoff_seconds * 2.0 ** min(attempt - 1, _DOUBLINGS), policy.max_backoff_seconds)
    return longest * draw if policy.jitter else longest


def passing(error: BaseException) -> bool:
    """Whether an error of the system or of a connection is one that passes; a missing or broken file is not."""
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    return isinstance(error, OSError) and error.errno in _PASSING_ERRNOS
