"""Servers that tests share. A missing server skips on a laptop and fails in CI."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from pipemill.embedded import EmbeddedBroker
from tests.helpers import until


@pytest.fixture(scope="session", autouse=True)
def own_measurements(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What workers measure is kept for this run only, not among the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIPEMILL_CACHE_DIR", str(tmp_path_factory.mktemp("measured")))
        yield


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[str]:
    """Address of a real Valkey server."""
    with EmbeddedBroker() as broker:
        yield broker.url


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a real Redis server."""
    binary = shutil.which("redis-server")
    if binary is None:
        if os.environ.get("CI"):
            pytest.fail("redis-server is missing; CI must install it")
        pytest.skip("redis-server isn't installed (Debian: apt-get install redis-server)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder: Path = tmp_path_factory.mktemp("redis")
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        try:
            client = redis.Redis(port=port)
            until(lambda: _answers(client), "Redis answers")
            client.close()
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.terminate()


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


@pytest.fixture
def broker_url(valkey_server: str) -> str:
    """Address of a real Valkey server with nothing in it."""
    with redis.Redis.from_url(valkey_server) as client:
        client.flushall()
    return valkey_server
