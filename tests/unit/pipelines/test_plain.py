"""Answers as plain Python, and errors as what they mean."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pipemill_worker.pipelines.faults import is_device_lost, is_out_of_memory, is_transient
from pipemill_worker.pipelines.plain import to_plain


@pytest.mark.parametrize(
    ("answer", "plain"),
    [
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.array(3), 3),
        (torch.tensor(0.5), 0.5),
        ((1, (2.5, "a")), [1, [2.5, "a"]]),
        ({"score": np.float32(0.25), "span": (1, 2), "word": None}, {"score": 0.25, "span": [1, 2], "word": None}),
        ([{"ok": np.bool_(True)}], [{"ok": True}]),  # noqa: FBT003 - a value under test
        ([], []),
        ([[0.5, 1.5]], [[0.5, 1.5]]),
    ],
)
def test_answers_become_plain(answer: Any, plain: Any) -> None:
    """NumPy and torch numbers become Python's, tuples become lists, at any depth."""
    result = to_plain(answer)
    assert result == plain
    assert type(result) is type(plain)


@pytest.mark.parametrize("array", [np.array([1, 2]), torch.tensor([0.5])])
def test_arrays_are_left_to_the_codec(array: Any) -> None:
    """Arrays and tensors pass as they are: they travel whole, not as lists of numbers."""
    assert to_plain({"audio": array})["audio"] is array


def test_rows_of_floats_are_not_walked() -> None:
    """Feature-extraction's rows pass as they are."""
    row = [0.5] * 9
    assert to_plain([row])[0] is row


@pytest.mark.parametrize(
    ("error", "memory", "lost"),
    [
        (MemoryError(), True, False),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True, False),
        (RuntimeError("CUDA error: out of memory"), True, False),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate"), True, False),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"), True, False),
        (RuntimeError("CUDA error: device-side assert triggered"), False, True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False, True),
        (RuntimeError("HIP error: unspecified launch failure"), False, True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False, False),
        (ValueError("out of memory is what this text is about"), False, False),
        (IndexError("index out of range in self"), False, False),
    ],
)
def test_errors_mean_what_they_mean(error: BaseException, memory: bool, lost: bool) -> None:  # noqa: FBT001 - expected values
    """Out of memory asks for a smaller batch, a lost device for a restart, everything else for neither."""
    assert is_out_of_memory(error) is memory
    assert is_device_lost(error) is lost


@pytest.mark.skipif(not hasattr(torch, "AcceleratorError"), reason="this torch has no AcceleratorError")
def test_accelerator_errors_lose_the_device() -> None:
    """Torch's own class for sticky errors counts, whatever its text."""
    error = torch.AcceleratorError.__new__(torch.AcceleratorError)
    assert is_device_lost(error)
    assert not is_out_of_memory(error)


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"), True),
        (RuntimeError("cuFFT error: CUFFT_INTERNAL_ERROR"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), False),
        (RuntimeError("CUDA error: CUDNN_STATUS_INTERNAL_ERROR"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("cudnn_status_internal_error is what this text is about"), False),
    ],
)
def test_an_error_that_leaves_the_device_whole_may_pass(error: BaseException, passes: bool) -> None:  # noqa: FBT001 - expected values
    """A library's internal error is worth another try; a sticky one, and one of the model's, is not."""
    assert is_transient(error) is passes
