"""The catalogue's section about signatures of jobs."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationInfo, field_validator

from pipemill.catalogue.base import Settings


class SigningSettings(Settings):
    """Which signatures workers ask for."""

    required: bool = Field(
        default=True,
        description="Refuse jobs without a signature; a queue may say otherwise. A wrong signature is always refused.",
    )
    keys_file: str | None = Field(
        default=None,
        description="File of the keys that workers know, relative to the catalogue; null leaves it to "
        "PIPEMILL_SIGNING_KEYS_FILE and PIPEMILL_SIGNING_KEYS.",
    )
    max_age_seconds: int = Field(
        default=1_209_600,
        ge=60,
        le=31_536_000,
        description="Seconds after which a signature is no longer good, so that old messages can't be sent again for "
        "ever. Longer than jobs may wait; the default is two weeks.",
    )

    @field_validator("keys_file")
    @classmethod
    def _find(cls, keys_file: str | None, info: ValidationInfo) -> str | None:
        folder: Path | None = info.context["folder"] if info.context else None
        return keys_file if keys_file is None or folder is None else str(folder / keys_file)
