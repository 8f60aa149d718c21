"""Where a job can stand, and what ends a lease."""

from __future__ import annotations

from enum import StrEnum


class JobStatus(StrEnum):
    """Where a job stands, told truthfully."""

    #: Accepted, not yet running; includes jobs parked until their time.
    QUEUED = "queued"
    #: A worker is at it.
    RUNNING = "running"
    #: Ended with an answer.
    SUCCEEDED = "succeeded"
    #: Ended with an error.
    FAILED = "failed"
    #: Ended by a cancel or a revoke.
    CANCELLED = "cancelled"
    #: Ended because its deadline passed before it was started.
    EXPIRED = "expired"
    #: No trace of it: never accepted here, or its result's retention is over.
    UNKNOWN = "unknown"

    @property
    def ended(self) -> bool:
        """Whether the job is over."""
        return self in {JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.EXPIRED}


class Outcome(StrEnum):
    """What ends a lease. The value is also the name of the queue's counter."""

    #: The job has its answer.
    SUCCEEDED = "succeeded"
    #: The job ended with an error of its own.
    FAILED = "failed"
    #: The job was cancelled before it ran.
    CANCELLED = "cancelled"
    #: The job's deadline passed before it ran.
    EXPIRED = "expired"
    #: Workers died on the job or attempts failed too often, or its message has no id; it is kept as a dead letter.
    DEAD = "dead"
    #: The job waits for its time; it comes back.
    PARKED = "parked"
    #: An attempt failed with what may pass; the job waits a little and comes back.
    RETRIED = "retried"
