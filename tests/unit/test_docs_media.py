"""What docs/media.md says is run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from pipemill import testing
from pipemill.catalogue import find_mistakes
from pipemill.codec import decode

TEXT = (Path(__file__).parents[2] / "docs/media.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The document's code of a language."""
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the document's files lie."""
    for name in ("cat.jpg", "dog.png", "call.wav", "walk.mp4", "letter.png"):
        (tmp_path / name).write_bytes(b"content")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def depth(_image: Any) -> Any:
    """Answer as a depth estimation does."""
    return {"depth": PIL.Image.new("L", (2, 2)), "predicted_depth": np.zeros((2, 2), "float32")}


@pytest.mark.usefixtures("folder")
def test_the_code_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """It sends and receives as it says."""
    broker = testing.MemoryBroker()
    for queue in ("photos", "calls", "clips", "letters", "assistant"):
        testing.announce(broker, queue)
    monkeypatch.setattr("pipemill.Client", lambda: testing.client(broker))
    with testing.answering(broker, "depths", depth):
        for code in blocks("python"):
            exec(compile(code, "media.md", "exec"), {})  # noqa: S102  # our own
    assert len(broker.records) == 6


def test_the_json_is_media() -> None:
    """Each line of JSON is what the document says it is."""
    image, sound = (decode(json.loads(line))["inputs"] for block in blocks("json") for line in block.splitlines())
    assert image.getpixel((0, 0)) == (255, 0, 0)
    assert sound.data.numpy().tolist() == [0, 0.5, -0.5]


def test_the_catalogue_is_right(tmp_path: Path) -> None:
    """It passes the check."""
    (catalogue,) = blocks("yaml")
    file = tmp_path / "pipemill.yaml"
    file.write_text(catalogue, "utf-8")
    assert find_mistakes(file, environ={}, check_files=True) == []


def test_every_error_it_names_is_there() -> None:
    """The table names errors of ours."""
    import pipemill  # noqa: PLC0415  # only here

    named = re.findall(r"^\| `(\w+)` \|", TEXT.partition("## Errors")[2], re.MULTILINE)
    assert named
    assert [name for name in named if not hasattr(pipemill, name)] == []
