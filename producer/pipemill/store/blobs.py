"""Names of bytes too large for a message or a result, and the double in memory.

Those in Redis are in ``redis_blobs.py``, those in files in ``files.py``: the double needs neither a Redis client nor
what reads catalogues.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from pipemill.errors import PayloadTooLarge

#: What names bytes: 128 random bits. Whoever may enqueue jobs could otherwise read what others sent.
NAME: Final = r"[0-9a-f]{32}"
#: Characters of a wrong reference that an error repeats.
_SHOWN: Final = 60


def new_name() -> str:
    """A name that can't be guessed."""
    return secrets.token_hex(16)


def name_in(reference: str, kind: str, pattern: str = NAME) -> str:
    """Read the name in a reference of one kind.

    Raises
    ------
    ValueError
        When it is of another kind, or no reference.

    """
    found = re.fullmatch(f"{kind}:({pattern})", reference)
    if found is None:
        raise ValueError(f"{reference[:_SHOWN]!r} is no reference of kind {kind!r}")
    return found[1]


def check_size(size: int, max_bytes: int | None) -> None:
    """Raise PayloadTooLarge for more than ``max_bytes``; None is no bound."""
    if max_bytes is not None and size > max_bytes:
        raise PayloadTooLarge(f"it has {size} bytes, more than the {max_bytes} that may be read: send less")


class MemoryBlobs:
    """A ``BlobStore`` in memory, for tests."""

    kind: Final = "memory"

    def __init__(self, now: Callable[[], float] = time.time):
        self._now = now
        self._kept: dict[str, tuple[bytes, float]] = {}
        self._lock = threading.Lock()

    def put(self, data: bytes, ttl_seconds: int) -> str:
        """Keep bytes; returns their reference."""
        name = new_name()
        with self._lock:
            self._kept[name] = (bytes(data), self._now() + ttl_seconds)
        return f"{self.kind}:{name}"

    def get(self, reference: str, max_bytes: int | None = None) -> bytes | None:
        """Read what a reference stands for; None when it is gone."""
        name = name_in(reference, self.kind)
        with self._lock:
            data, until = self._kept.get(name, (None, 0.0))
        if data is None or until <= self._now():
            return None
        check_size(len(data), max_bytes)
        return data

    def delete(self, references: Sequence[str]) -> None:
        """Forget them."""
        names = [name_in(reference, self.kind) for reference in references]
        with self._lock:
            for name in names:
                self._kept.pop(name, None)
