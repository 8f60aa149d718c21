"""Workers for the tests: some that are a test's own, and one that serves every pipeline to whoever does it no harm."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from pipemill import Client
from pipemill.catalogue import load_catalogue
from pipemill.embedded import EmbeddedBroker
from tests.e2e.mill import CATALOGUE, UNSERVED, Mill
from tests.e2e.rig import Serve


@pytest.fixture
def serve(tmp_path: Path, broker_url: str) -> Iterator[Serve]:
    """Starts workers on an empty broker, and ends them after the test."""
    serving = Serve(tmp_path, broker_url)
    yield serving
    serving.end()


@pytest.fixture
def client(broker_url: str) -> Iterator[Client]:
    """A client of the test's own broker."""
    with Client(broker_url) as opened:
        yield opened


@pytest.fixture
def broker(broker_url: str) -> Iterator[redis.Redis]:
    """A look into the test's own broker."""
    with redis.Redis.from_url(broker_url) as opened:
        yield opened


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Direct calls add in the worker's order, on one thread, and leave it the other core."""
    import torch  # noqa: PLC0415  # which most of these tests leave to workers

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tiny random models, one for each task, and one that fails on the word "example"."""
    from tests.e2e.models import save_models  # noqa: PLC0415  # loads torch, which most of these tests leave to workers

    folder = tmp_path_factory.mktemp("models")
    save_models(folder)
    return folder


@pytest.fixture(scope="session")
def mill(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mill]:
    """The shared worker; it must end well."""
    catalogue = models / "catalogue.yaml"
    catalogue.write_text(CATALOGUE, encoding="utf-8")
    queues = [name for name in load_catalogue(catalogue, environ={}).queues if name not in UNSERVED]
    with EmbeddedBroker() as broker, Client(broker.url, catalogue=catalogue) as client:
        serving = Serve(tmp_path_factory.mktemp("mill"), broker.url)
        try:
            worker = serving(catalogue, *queues)
            yield Mill(url=broker.url, client=client, worker=worker, models=models, catalogue=catalogue)
            assert worker.stop() == 0
        finally:
            serving.end()
