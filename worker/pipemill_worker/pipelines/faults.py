"""What an error of a forward pass means for the device."""

from __future__ import annotations

from typing import Final

import torch

#: Texts of errors after which a smaller batch may succeed, in lower case; torch has no class for the CPU's.
_OUT_OF_MEMORY: Final = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "insufficient memory",
)

#: Texts of errors after which a CUDA or HIP context answers nothing but errors, in lower case.
_DEVICE_LOST: Final = (
    "device-side assert",
    "cuda error",
    "hip error",
    "acceleratorerror",
    "illegal memory access",
    "misaligned address",
    "unspecified launch failure",
    "uncorrectable ecc",
    "cublas_status_execution_failed",
    "cublas_status_not_initialized",
    "cudnn_status_execution_failed",
)

#: Texts of errors of the device's libraries that leave its context whole, in lower case: often others took the memory.
_TRANSIENT: Final = (
    "cudnn_status_internal_error",
    "cusolver_status_internal_error",
    "cufft_internal_error",
)

#: torch ≥ 2.8; before, such errors are plain ``RuntimeError``.
_AcceleratorError: Final[type[BaseException] | None] = getattr(torch, "AcceleratorError", None)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a smaller batch could succeed."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and _mentions(error, _OUT_OF_MEMORY)


def is_device_lost(error: BaseException) -> bool:
    """Whether the device answers nothing but errors until the process restarts."""
    if is_out_of_memory(error):
        return False
    if _AcceleratorError is not None and isinstance(error, _AcceleratorError):
        return True
    return isinstance(error, RuntimeError) and _mentions(error, _DEVICE_LOST)


def is_transient(error: BaseException) -> bool:
    """Whether the same pass may succeed a little later, on the same device."""
    return isinstance(error, RuntimeError) and not is_device_lost(error) and _mentions(error, _TRANSIENT)


def _mentions(error: BaseException, texts: tuple[str, ...]) -> bool:
    message = str(error).lower()
    return any(text in message for text in texts)
