"""Models are fetched ahead, and a worker without a network serves them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

import pytest

from pipemill import Client
from tests.e2e.hub import Hub, serving
from tests.e2e.mill import direct_pipeline
from tests.e2e.rig import Serve
from tests.unit.pipelines.tiny import assert_same

NAME: Final = "someone/tiny"
COMMIT: Final = "0123456789abcdef0123456789abcdef01234567"
#: What a repository may hold and a worker must not have.
UNWANTED: Final = ("pytorch_model.bin", "modeling_tiny.py", "README.md", "training_args.pkl")
CATALOGUE: Final = f"""
queues:
  labels: {{task: text-classification, model: {NAME}, revision: "{COMMIT}", device: cpu}}
  echo: {{task: echo}}
"""


@pytest.fixture
def repository(models: Path, tmp_path: Path) -> Path:
    """A model's files, and some beside them that nobody should download."""
    folder = tmp_path / "repository"
    shutil.copytree(models / "text-classification", folder)
    for name in UNWANTED:
        (folder / name).write_bytes(b"unwanted")
    return folder


def fetch(serve: Serve, hub: Hub, cache: Path, catalogue: str = CATALOGUE) -> tuple[int, str]:
    """Run ``pipemill fetch`` against a hub; its exit code and what it printed."""
    path = serve.catalogue(catalogue)
    command = ("pipemill", "fetch", "--catalogue", str(path), "--cache-dir", str(cache))
    process = serve.run(*command, HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="0", HF_HUB_DISABLE_XET="1", HF_HOME=str(cache))
    return process.wait(), process.output()


def test_a_fetched_model_is_served_offline(serve: Serve, client: Client, repository: Path, tmp_path: Path) -> None:
    """Only weights and what describes them are downloaded; with the hub gone, a worker loads them and answers."""
    cache = tmp_path / "cache"
    with serving(repository, NAME, COMMIT) as hub:
        code, output = fetch(serve, hub, cache)
        assert code == 0, output
        assert f"labels: {NAME}@{COMMIT} is in {cache}" in output
        assert "echo: echo needs no download" in output
        assert hub.asked == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    fetched = {path.name for path in cache.rglob("snapshots/*/*")}
    assert fetched == hub.asked
    serve(CATALOGUE, "labels", HF_HUB_OFFLINE="1", HF_HUB_CACHE=str(cache), HF_ENDPOINT=hub.url)
    answer = client.run("labels", "river stone cloud", timeout=60)
    assert_same(answer, direct_pipeline("text-classification", str(repository))("river stone cloud"))


def test_a_revision_that_isnt_there(serve: Serve, repository: Path, tmp_path: Path) -> None:
    """A download that fails names queue, model, revision, cause and mend: exit code 4."""
    elsewhere = COMMIT[::-1]
    with serving(repository, NAME, COMMIT) as hub:
        code, output = fetch(serve, hub, tmp_path / "cache", CATALOGUE.replace(COMMIT, elsewhere))
    assert code == 4
    for part in ("queue 'labels'", NAME, elsewhere, "check the id, the revision and the network"):
        assert part in output
    assert "Traceback" not in output
