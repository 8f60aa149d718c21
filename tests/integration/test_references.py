"""What a worker's queues read and write by reference, as the catalogue says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pipemill.errors import ConfigurationError
from pipemill.store.files import FileBlobs
from pipemill.store.queues import RedisQueueStore
from pipemill_worker.celery_host import host as host_module
from pipemill_worker.celery_host.host import Host
from pipemill_worker.engine import Hooks
from pipemill_worker.media import References
from pipemill_worker.pipelines.echo import EchoRunner

HEX = "0123456789abcdef" * 2


@pytest.fixture
def readers(monkeypatch: pytest.MonkeyPatch) -> list[References]:
    """What each pipeline that is loaded is given to read references with."""
    given: list[References] = []

    def load_runner(*_: Any, references: References, **__: Any) -> EchoRunner:
        given.append(references)
        return EchoRunner()

    monkeypatch.setattr(host_module, "load_runner", load_runner)
    return given


def host_on(tmp_path: Path, broker: str, blobs: str = "") -> Host:
    """A host whose catalogue has two queues."""
    file = tmp_path / "pipemill.yaml"
    file.write_text(f"broker: {broker}\n{blobs}\nqueues: {{one: {{task: echo}}, two: {{task: echo}}}}\n", "utf-8")
    return Host(str(file))


def references_of(store: Any, sizes: Sequence[int]) -> list[str]:
    """Where bytes of these sizes are kept."""
    return [store.put(b"x" * size, 60) for size in sizes]


def test_without_a_place_all_goes_through_the_broker(
    tmp_path: Path, broker_url: str, readers: list[References]
) -> None:
    """Answers of any size are kept there, inputs are read from there, and files are told to be unknown."""
    engine = host_on(tmp_path, broker_url).build_engine(["one", "two"], Hooks())
    kept = references_of(engine.lanes["one"].blobs, [10, 1_000_000])
    assert [reference.partition(":")[0] for reference in kept] == ["redis", "redis"]
    producer = RedisQueueStore(broker_url)
    assert readers[0](producer.blobs.put(b"inputs", 60), 6) == b"inputs"
    with pytest.raises(ValueError, match="is no reference of kind"):
        readers[0](f"files:2026-01-01/{HEX}", 6)
    producer.close()
    engine.drain()


def test_with_a_place_what_is_large_goes_there(tmp_path: Path, broker_url: str, readers: list[References]) -> None:
    """Every queue of the worker shares it, reads it, and the broker's as before."""
    blobs = f"blobs: {{location: 'file://{tmp_path}/media', min_bytes: 2048, retention_days: 3}}"
    engine = host_on(tmp_path, broker_url, blobs).build_engine(["one", "two"], Hooks())
    kept = references_of(engine.lanes["one"].blobs, [2_047, 2_048])
    assert [reference.partition(":")[0] for reference in kept] == ["redis", "files"]
    assert [readers[1](reference, 2_048) for reference in kept] == [b"x" * 2_047, b"x" * 2_048]
    assert FileBlobs(f"file://{tmp_path}/media").get(kept[1]) == b"x" * 2_048
    assert engine.lanes["one"].keep_above == 2_047
    engine.drain()


@pytest.mark.usefixtures("readers")
def test_a_place_that_cannot_be_written_ends_the_start(tmp_path: Path, broker_url: str) -> None:
    """Before a model is loaded or a job taken; a worker without lanes needs no place."""
    (tmp_path / "media").write_text("a file, not a folder", "utf-8")
    host = host_on(tmp_path, broker_url, f"blobs: {{location: 'file://{tmp_path}/media'}}")
    with pytest.raises(ConfigurationError, match=r"blobs\.location: can't write to file://"):
        host.build_engine(["one"], Hooks())
    assert host.build_engine([], Hooks()).lanes == {}
