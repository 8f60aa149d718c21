"""What a host adds to the engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipemill.errors import JobError
from pipemill.protocol import Job


class Hooks:
    """The engine's questions to its host, with the answers of a host that adds nothing."""

    def is_revoked(self, job_id: str) -> bool:  # noqa: ARG002  # this host knows of none
        """Whether somebody revoked the job by a way of the host's own."""
        return False

    def before_end(
        self,
        job: Job,  # noqa: ARG002  # nothing follows with this host
        value: Any,  # noqa: ARG002  # as above
        error: JobError | None,  # noqa: ARG002  # as above
    ) -> Sequence[tuple[str, bytes]]:
        """What follows a job's end: messages to push together with it, as (list key, message).

        Called only for jobs with a canvas, from the completion thread.

        Raises
        ------
        BrokerError
            When it must be tried again later.
        JobError
            When what follows can't be sent: the job then ends with this error.

        """
        return ()

    def on_failure(self, error: BaseException) -> None:
        """Handle the death of an engine thread or a lost device: the process must not live on."""
