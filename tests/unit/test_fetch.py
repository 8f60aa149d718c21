"""What ``pipemill fetch`` downloads for a catalogue; the downloads themselves are tested with the pipelines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipemill.catalogue import Catalogue
from pipemill.errors import ModelLoadError
from pipemill_worker import fetch

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CATALOGUE = Catalogue.model_validate(
    {
        "queues": {
            "plain": {"task": "text-classification", "model": "org/plain", "revision": COMMIT},
            "own-code": {
                "task": "text-classification",
                "model": "org/code",
                "revision": COMMIT,
                "trust_remote_code": True,
                "adapter": "org/lora",
                "adapter_revision": "0123456",
            },
            "local": {"task": "text-classification", "model": "/models/base", "adapter": "/models/lora"},
            "echo": {"task": "echo"},
        }
    }
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What is asked of the hub."""
    found: list[tuple[Any, ...]] = []

    def model(name: str, revision: str | None, *, with_code: bool, cache: Path | None) -> Path:
        found.append((name, revision, with_code, cache))
        return Path("/cache/model")

    def adapter(name: str, revision: str | None, *, cache: Path | None) -> Path:
        found.append((name, revision, cache))
        return Path("/cache/adapter")

    monkeypatch.setattr(fetch, "download_model", model)
    monkeypatch.setattr(fetch, "download_adapter", adapter)
    return found


def test_models_adapters_and_trusted_code(asked: list[tuple[Any, ...]]) -> None:
    """Each hub model and adapter comes at its commit, code only where it is trusted; the rest is left alone."""
    cache = Path("/cache")
    told = [(each.queue, each.model, each.note) for each in fetch.fetch_models(CATALOGUE, cache)]
    assert told == [
        ("plain", f"org/plain@{COMMIT}", "is in /cache/model"),
        ("own-code", f"org/code@{COMMIT}", "is in /cache/model"),
        ("own-code", "org/lora@0123456", "is in /cache/adapter"),
        ("local", "/models/base", "needs no download"),
        ("local", "/models/lora", "needs no download"),
        ("echo", "echo", "needs no download"),
    ]
    assert asked == [
        ("org/plain", COMMIT, False, cache),
        ("org/code", COMMIT, True, cache),
        ("org/lora", "0123456", cache),
    ]


@pytest.mark.usefixtures("asked")
def test_a_failed_download_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Queue, kind, id, revision, cause and mend."""

    def fail(*_: Any, **__: Any) -> Path:
        raise OSError("no route to the hub")

    monkeypatch.setattr(fetch, "download_adapter", fail)
    text = "queue 'own-code': can't download adapter 'org/lora' at '0123456': no route to the hub; check the id"
    with pytest.raises(ModelLoadError, match=text):
        list(fetch.fetch_models(CATALOGUE))
