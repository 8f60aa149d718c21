"""When a queue tries a job again."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipemill.catalogue.base import Settings


class RetrySettings(Settings):
    """Whether and when a job is tried again whose attempt failed with what may pass; never for its own bad input."""

    max_attempts: int = Field(
        default=3,
        ge=1,
        le=20,
        description="Attempts of a job in all; after the last it fails and is kept as a dead letter. 1 tries no job "
        "again.",
    )
    backoff_seconds: float = Field(
        default=1.0,
        ge=0,
        le=3_600,
        allow_inf_nan=False,
        description="Longest wait before the second attempt, in seconds; it doubles with each.",
    )
    max_backoff_seconds: float = Field(
        default=60.0, ge=0, le=86_400, allow_inf_nan=False, description="Longest wait before an attempt, in seconds."
    )
    jitter: bool = Field(
        default=True,
        description="Draw each wait from nothing to its longest, so that jobs that failed together don't come back "
        "together.",
    )
    errors: Literal["transient", "any"] = Field(
        default="transient",
        description="transient tries again what may pass: a host that doesn't answer, a dropped connection, no memory; "
        "any does so after every error that the pipeline raises, too.",
    )
