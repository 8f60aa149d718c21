"""Every error pipemill raises, in one tree. Each says what to do next.

::

    PipemillError
    ├── ConfigurationError          what was configured can't work
    │   ├── CatalogueError          the catalogue file has mistakes, each named by its path
    │   ├── MissingExtra            an optional dependency isn't installed
    │   └── ModelLoadError          a queue's model can't be loaded
    ├── BrokerError                 Redis or Valkey, or where large media lie
    │   ├── BrokerUnavailable       can't be reached, or dropped the connection
    │   ├── BrokerRefused           answered with an error
    │   └── BlobStoreError          the place of large media (blobs.location) can't be used
    ├── SubmitError                 the job was not accepted; nothing was stored
    │   ├── UnknownQueue            no worker or catalogue has announced the queue
    │   ├── QueueFull               a bound of the queue, or of its tenant, is met (has retry_after)
    │   ├── PayloadTooLarge         the inputs are larger than the queue takes
    │   ├── NotSerialisable         the inputs or parameters can't be written as JSON
    │   └── ParameterRefused        the queue's task doesn't take a parameter so (an InvalidParameter as well)
    ├── JobError                    how an accepted job ended, other than well
    │   ├── MalformedJob            the message isn't a job
    │   ├── InvalidInput            the inputs have the wrong type or shape
    │   ├── InvalidParameter        a parameter is unknown, forbidden or out of bounds
    │   ├── InputTooLong            more tokens than the model takes
    │   ├── InferenceFailed         the pipeline raised
    │   │   ├── InferenceInterrupted  what may pass: a dropped connection, a full disk
    │   │   └── OutOfMemory         no memory, though the job ran alone
    │   ├── ResultNotSerialisable   the answer can't be written as JSON
    │   ├── PayloadMissing          a payload sent by reference is gone
    │   ├── SignatureRefused        it isn't signed as its queue asks
    │   ├── SourceUnavailable       what the job refers to can't be had for now
    │   ├── DeliveryLimitReached    workers died on it too often
    │   ├── RetryLimitReached       attempts failed too often, with what might have passed
    │   ├── JobFailed               failed with an error this process doesn't know
    │   ├── JobCancelled            cancelled before it ended
    │   └── JobExpired              not started before its deadline
    ├── BlobMissing                 media that a result refers to are gone
    ├── MediaUnreadable             media of a result can't be read
    ├── UnknownJob                  no trace of this job: never accepted, or its result has expired
    └── ResultTimeout               the result didn't come in time; the job goes on
"""

from __future__ import annotations

from typing import ClassVar, Final


class PipemillError(Exception):
    """Root of all errors raised by pipemill."""


class ConfigurationError(PipemillError):
    """Raised when settings can't work as they stand."""


class CatalogueError(ConfigurationError):
    """Raised when a catalogue has mistakes; its text names each by its path and says the mend."""


class MissingExtra(ConfigurationError):
    """Raised when a feature needs an extra that isn't installed."""


class ModelLoadError(ConfigurationError):
    """Raised when a queue's model can't be loaded; names queue, model and cause."""


class BrokerError(PipemillError):
    """Raised for any trouble with Redis or Valkey, or with the place where large media lie."""


class BrokerUnavailable(BrokerError):
    """Raised when the broker can't be reached or the connection drops."""


class BrokerRefused(BrokerError):
    """Raised when the broker answers a command with an error."""


class BlobStoreError(BrokerError):
    """Raised when the place where large media lie (``blobs.location``) can't be written, read or swept."""


class SubmitError(PipemillError):
    """Raised when a job is not accepted; nothing was stored for it."""


class UnknownQueue(SubmitError):
    """Raised when no worker and no catalogue has announced the queue."""


class QueueFull(SubmitError):
    """Raised when a bound of a queue is met: of its jobs or bytes, of one tenant's, or of the broker's memory.

    ``retry_after`` is in seconds. ``accepted`` holds the ids of the jobs of the same call that were accepted before
    the bound was met, in the order they were given. ``bound`` is its name in the catalogue's ``limits``.
    """

    def __init__(
        self,
        message: str = "the queue is full",
        retry_after: float = 1.0,
        accepted: tuple[str, ...] = (),
        bound: str = "max_depth",
    ):
        super().__init__(message)
        self.bound = bound
        self.retry_after = retry_after
        self.accepted = accepted


class PayloadTooLarge(SubmitError):
    """Raised when a job's inputs are larger than its queue takes."""


class NotSerialisable(SubmitError):
    """Raised when a job's inputs or parameters can't be written as JSON."""


class JobError(PipemillError):
    """Raised by ``result()`` when a job ended other than well.

    Whether the same job may succeed later, as it is, each class says of itself: retries go by that, never by names.
    """

    #: The cause may pass: the job is worth another attempt.
    transient: ClassVar[bool] = False
    #: Attempts that are worth it for this error, if fewer than the queue allows; None leaves it to the queue.
    worth_attempts: ClassVar[int | None] = None


class MalformedJob(JobError):
    """The message isn't a job: not JSON, no id, or arguments of the wrong form."""


class InvalidInput(JobError):
    """The inputs have the wrong type or shape for the queue's pipeline."""


class InvalidParameter(JobError):
    """A parameter is unknown, forbidden, or out of its bounds."""


class ParameterRefused(SubmitError, InvalidParameter):
    """Raised when a job's parameters aren't what its queue's task takes; no worker was asked."""


class InputTooLong(JobError):
    """The inputs have more tokens than the model takes."""


class InferenceFailed(JobError):
    """The pipeline raised; the text carries its error."""


class InferenceInterrupted(InferenceFailed):
    """The pipeline raised what may pass: a dropped connection, a full disk, a library's internal error."""

    transient = True


class OutOfMemory(InferenceFailed):
    """There was no memory for the job, though it ran alone; it is tried once more, others may have held it."""

    transient = True
    worth_attempts = 2


class ResultNotSerialisable(JobError):
    """The pipeline's answer can't be written as JSON."""


class PayloadMissing(JobError):
    """A payload sent by reference is gone; submit the job again."""


class SourceUnavailable(JobError):
    """What the job refers to can't be had for now: a URL, or bytes at the place of large media."""

    transient = True


class SignatureRefused(JobError):
    """The job isn't signed with a key that its queue's workers know, or isn't what was signed."""


class DeliveryLimitReached(JobError):
    """Workers died while they held this job, as often as the limit allows."""


class RetryLimitReached(JobError):
    """Attempts failed as often as the queue allows, each with what might have passed; it is kept as a dead letter."""


class JobFailed(JobError):
    """The job failed with an error type that this process doesn't know."""


class JobCancelled(JobError):
    """The job was cancelled before it ended."""


class JobExpired(JobError):
    """The job was not started before its deadline."""


class BlobMissing(PipemillError):
    """Raised when media that a result refers to are gone: their retention has passed."""


class MediaUnreadable(PipemillError):
    """Raised when media of a result can't be read; with ``decode=False`` the client leaves them as they came."""


class UnknownJob(PipemillError):
    """Raised when there is no trace of a job: never accepted here, or its result has expired."""


class ResultTimeout(PipemillError, TimeoutError):
    """Raised when a result didn't come in time; the job goes on, ask again."""


#: The outcomes that cross the wire by class name, so that a client raises what the worker meant.
JOB_ERRORS: Final[dict[str, type[JobError]]] = {
    cls.__name__: cls
    for cls in (
        MalformedJob,
        InvalidInput,
        InvalidParameter,
        InputTooLong,
        InferenceFailed,
        InferenceInterrupted,
        OutOfMemory,
        ResultNotSerialisable,
        PayloadMissing,
        SignatureRefused,
        SourceUnavailable,
        DeliveryLimitReached,
        RetryLimitReached,
        JobFailed,
        JobCancelled,
        JobExpired,
    )
}
