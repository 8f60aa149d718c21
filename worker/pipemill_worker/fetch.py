"""Downloading a catalogue's models ahead of time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError

from pipemill.catalogue import Catalogue, Source
from pipemill.errors import ModelLoadError

#: What a pipeline needs of a repository: weights as safetensors, and what describes them. No pickles, no code.
PATTERNS: Final = ("*.safetensors", "*.json", "*.txt", "*.model", "*.spm", "*.tiktoken", "*.jinja")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A queue's model, and where it is."""

    queue: str
    model: str
    #: One phrase for people.
    note: str


def fetch_models(catalogue: Catalogue, cache: Path | None = None) -> Iterator[Fetched]:
    """Download every hub model of the catalogue at its pinned revision; what is there already is left alone.

    Raises
    ------
    ModelLoadError
        Names queue, model, revision and cause.

    """
    for name, queue in catalogue.queues.items():
        if queue.source is not Source.HUB or queue.model is None:
            yield Fetched(queue=name, model=queue.model or queue.task, note="needs no download")
            continue
        try:
            folder = snapshot_download(
                queue.model, revision=queue.revision, allow_patterns=list(PATTERNS), cache_dir=cache
            )
        except (OSError, HFValidationError) as error:
            text = (
                f"queue {name!r}: can't download model {queue.model!r} at {queue.revision!r}: {error}; "
                "check the id, the revision and the network (a private model needs HF_TOKEN)"
            )
            raise ModelLoadError(text) from error
        yield Fetched(queue=name, model=f"{queue.model}@{queue.revision}", note=f"is in {folder}")
