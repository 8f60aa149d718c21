"""Models of the matrix, each built once, and their direct answers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.tasks.bench import Bench, shared_bench


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny models are slower on more, and sums come out the same everywhere on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Builds and calls what is asked of it, once a session."""
    return shared_bench(tmp_path_factory.getbasetemp())
