"""Downloading a catalogue's models and adapters ahead of time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from huggingface_hub.errors import HFValidationError

from pipemill.catalogue import Catalogue, QueueSettings, Source
from pipemill.catalogue.rules import source_of
from pipemill.errors import ModelLoadError
from pipemill_worker.pipelines.hub import download_adapter, download_model


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A queue's model or adapter, and where it is."""

    queue: str
    model: str
    #: One phrase for people.
    note: str


def fetch_models(catalogue: Catalogue, cache: Path | None = None) -> Iterator[Fetched]:
    """Download every hub model and adapter of the catalogue at its pinned revision; what is there is left alone.

    Raises
    ------
    ModelLoadError
        Names queue, model, revision and cause.

    """
    for name, queue in catalogue.queues.items():
        yield _fetch_model(name, queue, cache)
        if queue.adapter is not None:
            yield _fetch_adapter(name, queue.adapter, queue.adapter_revision, cache)


def _fetch_model(name: str, queue: QueueSettings, cache: Path | None) -> Fetched:
    if queue.source is not Source.HUB or queue.model is None:
        return Fetched(queue=name, model=queue.model or queue.task, note="needs no download")
    fetch = partial(download_model, with_code=queue.trust_remote_code, cache=cache)
    return _fetch(name, "model", queue.model, queue.revision, fetch)


def _fetch_adapter(name: str, adapter: str, revision: str | None, cache: Path | None) -> Fetched:
    if source_of(adapter) is not Source.HUB:
        return Fetched(queue=name, model=adapter, note="needs no download")
    return _fetch(name, "adapter", adapter, revision, partial(download_adapter, cache=cache))


def _fetch(
    queue: str, kind: str, repository: str, revision: str | None, fetch: Callable[[str, str | None], Path]
) -> Fetched:
    try:
        folder = fetch(repository, revision)
    except (OSError, HFValidationError) as error:
        text = (
            f"queue {queue!r}: can't download {kind} {repository!r} at {revision!r}: {error}; "
            "check the id, the revision and the network (a private model needs HF_TOKEN)"
        )
        raise ModelLoadError(text) from error
    return Fetched(queue=queue, model=f"{repository}@{revision}", note=f"is in {folder}")
