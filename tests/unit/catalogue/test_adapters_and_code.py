"""The catalogue's rules of adapters, and of code that comes with models."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipemill.catalogue import find_mistakes, load_catalogue

HUB = "task: text-classification, model: org/base, revision: 714eb0f"


def write(folder: Path, queue: str) -> Path:
    """Write a catalogue with one queue."""
    file = folder / "pipemill.yaml"
    file.write_text(f"queues:\n  q: {{{queue}}}\n")
    return file


@pytest.mark.parametrize(
    ("queue", "path", "problem", "mend"),
    [
        (f"{HUB}, adapter: org/lora", "adapter_revision", "missing", "in the history of org/lora"),
        (f"{HUB}, adapter: org/lora, adapter_revision: main", "adapter_revision", "not a commit hash", "7 to 40 hex"),
        (f"{HUB}, adapter: ./lora, adapter_revision: 714eb0f", "adapter_revision", "a directory has no", "remove this"),
        (f"{HUB}, adapter_revision: 714eb0f", "adapter_revision", "there is no adapter", "or name an adapter"),
        (f"{HUB}, adapter: lora", "adapter", "neither a hub id nor a directory", "give a hub id such as org/name"),
        (f"{HUB}, adapter: 'builtin:lora'", "adapter", "neither a hub id nor a directory", "or a directory"),
        ("task: echo, adapter: org/lora", "adapter", "echo has no model", "remove this line"),
        ("task: echo, trust_remote_code: true", "trust_remote_code", "echo has no model", "remove this line"),
        (
            "task: text-classification, model: 'builtin:sentiment', trust_remote_code: true",
            "trust_remote_code",
            "a builtin model brings no code",
            "remove this line",
        ),
    ],
)
def test_mistakes(tmp_path: Path, queue: str, path: str, problem: str, mend: str) -> None:
    """Each mistake is told by its path, with its mend."""
    found = {each.path: each for each in find_mistakes(write(tmp_path, queue), environ={})}
    mistake = found[f"queues.q.{path}"]
    assert problem in mistake.problem
    assert mend in mistake.mend


def test_what_is_right(tmp_path: Path) -> None:
    """Pinned adapters, and those in directories, which are relative to the catalogue; code of pinned models."""
    pinned = write(tmp_path, f"{HUB}, adapter: org/lora, adapter_revision: 714eb0f, trust_remote_code: true")
    queue = load_catalogue(pinned, environ={}).queues["q"]
    assert (queue.adapter, queue.adapter_revision, queue.trust_remote_code) == ("org/lora", "714eb0f", True)
    local = write(tmp_path, "task: fill-mask, model: ./base, adapter: ./lora, trust_remote_code: true")
    queue = load_catalogue(local, environ={}).queues["q"]
    assert (queue.adapter, queue.adapter_revision) == (str(tmp_path / "lora"), None)


def test_adapters_on_disk_are_looked_at(tmp_path: Path) -> None:
    """A directory must hold an adapter's settings, and its weights as safetensors."""
    file = write(tmp_path, f"{HUB}, adapter: ./lora")

    def problems() -> list[str]:
        return [each.problem for each in find_mistakes(file, environ={}, check_files=True)]

    assert problems() == ["there is no such directory"]
    (tmp_path / "lora").mkdir()
    assert problems() == ["the directory holds no adapter_config.json"]
    (tmp_path / "lora" / "adapter_config.json").touch()
    (tmp_path / "lora" / "adapter_model.bin").touch()
    assert problems() == ["the directory holds no adapter_model.safetensors"]
    (tmp_path / "lora" / "adapter_model.safetensors").touch()
    assert problems() == []
