"""When a job is tried again: the policy by itself."""

from __future__ import annotations

import errno
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipemill_worker.policy.retries import NEVER, RetryPolicy, Verdict, decide, passing, retry_seconds, retryable

policies = st.builds(
    RetryPolicy,
    max_attempts=st.integers(1, 20),
    backoff_seconds=st.floats(0, 3_600),
    max_backoff_seconds=st.floats(0, 86_400),
    jitter=st.booleans(),
    any_failure=st.booleans(),
)
attempts = st.integers(1, 10_000)
draws = st.floats(0, 1, exclude_max=True)
worths = st.none() | st.integers(1, 20)


@given(policies, attempts, draws)
def test_waits_are_bounded(policy: RetryPolicy, attempt: int, draw: float) -> None:
    """No wait is negative or above the longest, whatever the attempt, and the first is within the first bound."""
    wait = retry_seconds(policy, attempt, draw)
    assert 0 <= wait <= policy.max_backoff_seconds
    assert retry_seconds(policy, 1, draw) <= policy.backoff_seconds


@given(policies, st.integers(1, 60))
def test_the_longest_wait_never_shrinks(policy: RetryPolicy, attempt: int) -> None:
    """A later attempt waits at least as long as an earlier one, with the same luck."""
    assert retry_seconds(policy, attempt, 0.5) <= retry_seconds(policy, attempt + 1, 0.5)


def test_waits_double_up_to_the_bound() -> None:
    """Without jitter each wait is its longest; with it, a part of that."""
    policy = RetryPolicy(max_attempts=9, backoff_seconds=1.0, max_backoff_seconds=5.0, jitter=False)
    assert [retry_seconds(policy, attempt, 0.25) for attempt in (1, 2, 3, 4, 5)] == [1.0, 2.0, 4.0, 5.0, 5.0]
    drawn = RetryPolicy(max_attempts=9, backoff_seconds=1.0, max_backoff_seconds=5.0)
    assert [retry_seconds(drawn, attempt, 0.25) for attempt in (1, 2, 3, 4, 5)] == [0.25, 0.5, 1.0, 1.25, 1.25]


@given(policies, attempts, worths, draws)
def test_attempts_come_to_an_end(policy: RetryPolicy, attempt: int, worth: int | None, draw: float) -> None:
    """An attempt is followed by another only below both limits; at either the job is given up."""
    verdict, _ = decide(policy, attempt, worth=worth, draw=draw)
    most = min(policy.max_attempts, worth or policy.max_attempts)
    assert verdict is (Verdict.RETRY if attempt < most else Verdict.GIVE_UP)


@given(policies, attempts, worths, draws, st.floats(-10, 100))
def test_a_retry_is_in_time(policy: RetryPolicy, attempt: int, worth: int | None, draw: float, left: float) -> None:
    """A job isn't parked past its deadline: it ends with its error at once."""
    verdict, wait = decide(policy, attempt, worth=worth, left=left, draw=draw)
    if verdict is Verdict.RETRY:
        assert wait < left
    if verdict is Verdict.END:
        assert wait == 0
        assert decide(policy, attempt, worth=worth, left=math.inf, draw=draw)[0] is Verdict.RETRY


@given(policies)
def test_a_jobs_own_error_is_never_retried(policy: RetryPolicy) -> None:
    """Whatever the queue's policy is."""
    assert not retryable(policy, transient=False, unknown=False)


@pytest.mark.parametrize(
    ("policy", "transient", "unknown", "expected"),
    [
        (NEVER, True, True, False),
        (RetryPolicy(max_attempts=2), True, False, True),
        (RetryPolicy(max_attempts=2), True, True, True),
        (RetryPolicy(max_attempts=2), False, True, False),
        (RetryPolicy(max_attempts=2, any_failure=True), False, True, True),
    ],
)
def test_what_is_tried_again(policy: RetryPolicy, *, transient: bool, unknown: bool, expected: bool) -> None:
    """What may pass, and what a pipeline raised only where the queue says so; nothing where one attempt is all."""
    assert retryable(policy, transient=transient, unknown=unknown) is expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionResetError(), True),
        (BrokenPipeError(), True),
        (TimeoutError(), True),
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EMFILE, "Too many open files"), True),
        (FileNotFoundError(errno.ENOENT, "No such file"), False),
        (PermissionError(errno.EACCES, "Permission denied"), False),
        (OSError("cannot identify image file"), False),
        (RuntimeError("connection reset"), False),
        (ValueError(), False),
    ],
)
def test_errors_of_the_system_that_pass(error: BaseException, expected: bool) -> None:  # noqa: FBT001  # an expected value
    """A connection that broke and a disk that is full for now pass; a file that isn't one doesn't."""
    assert passing(error) is expected
