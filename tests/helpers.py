"""What tests of all kinds share."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: How long a test waits for something that must come, in seconds; generous, since a loaded machine is slow.
PATIENCE_SECONDS = 60.0


def until(condition: Callable[[], T], what: str, patience: float = PATIENCE_SECONDS) -> T:
    """Poll until ``condition()`` is true and return its value; fail with ``what`` if it never is."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.01)
    raise AssertionError(f"never came true within {patience:.0f} s: {what}")
