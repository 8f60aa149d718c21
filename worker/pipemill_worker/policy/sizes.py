"""The few sizes that passes are rounded to, for kernels that prepare themselves for each size."""

from __future__ import annotations

from typing import Final

#: Sizes up to this one stay: those of steps of written texts, and of many a lone sentence.
_EXACT: Final = 32
#: Bits of a larger one that stay: eight sizes for each doubling.
_BITS: Final = 4


def rounded_up(size: int) -> int:
    """The next size from this one on; at most an eighth more."""
    step = _step(size)
    return -(-size // step) * step


def rounded_down(size: int) -> int:
    """The next size up to this one; at most an eighth less."""
    step = _step(size)
    return size // step * step


def _step(size: int) -> int:
    return 1 if size <= _EXACT else 1 << ((size - 1).bit_length() - _BITS)
