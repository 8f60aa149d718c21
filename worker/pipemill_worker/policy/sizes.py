"""The few sizes that passes are rounded to, for kernels that prepare themselves for each size."""

from __future__ import annotations

from typing import Final

#: Bits of a size that stay: eight sizes for each doubling, all up to 16.
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
    return 1 << max(0, (size - 1).bit_length() - _BITS)
