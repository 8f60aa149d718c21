"""A broker that survives itself; workers, clients and the tests' shared broker are those of tests/e2e."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import broker, client, serve  # noqa: F401  # fixtures of these tests, too
from tests.faults.durable import DurableBroker


@pytest.fixture
def durable(tmp_path: Path) -> Iterator[DurableBroker]:
    """A broker of the test's own, with an append-only file that is on the disk before a command is answered."""
    with DurableBroker(tmp_path / "broker") as opened:
        yield opened
