"""A model's weights once more, laid out as passes of few rows read them fastest on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

#: Most rows of a pass that gains: with more, the plain layout is as fast (Zen 3, float32).
MOST_ROWS: Final = 64
#: Most that the copies may take, in bytes: half a billion weights.
MOST_BYTES: Final = 2 << 30
#: Rows that the layout is made for; passes of fewer and of more read it as well.
_USUAL_ROWS: Final = 16

_kernels: Any = torch.ops.mkldnn
_has_kernels: Any = torch.backends.mkldnn.is_available


def prepack(model: nn.Module) -> int:
    """Let a model's linear layers read a second copy of their weights in passes of few rows; how many do.

    None on a GPU, in other formats than float32, without oneDNN, and where copies would take more than ``MOST_BYTES``.
    A step of 8 rows through 384 × 32,000 weights took 5.9 ms so, and 13.4 ms as torch has them: its own kernel lays
    them out anew for each pass. One row is fastest through the plain layout, transposed where a layer widens: 2.1 ms,
    and 4.5 ms as torch has it. Sums are made in another order: answers differ by rounding.
    """
    layers: list[Any] = [each for each in model.modules() if _qualifies(each)] if _has_kernels() else []
    if sum(layer.weight.nbytes for layer in layers) > MOST_BYTES:
        return 0
    shared = {each.weight.data_ptr() for each in model.modules() if isinstance(each, nn.Embedding)}
    for layer in layers:
        weight = layer.weight.detach() if type(layer) is nn.Linear else layer.weight.detach().t().contiguous()
        packed = _kernels._reorder_linear_weight(weight, _USUAL_ROWS)  # noqa: SLF001 - there is no public way
        widens = type(layer) is nn.Linear and layer.out_features > layer.in_features and weight.data_ptr() not in shared
        if widens:
            layer.weight.data = weight.t().contiguous().t()
        layer.forward = partial(_forward, layer.forward, packed, layer.bias, 1 if widens else 0)
    return len(layers)


def _qualifies(module: Any) -> bool:
    """Whether a module is a plain linear layer of float32 on a CPU; a quantised one only looks like that."""
    if type(module) not in {nn.Linear, Conv1D}:
        return False
    weight = module.weight
    plain = type(weight) is nn.Parameter and type(weight.data) is torch.Tensor
    return plain and weight.dtype == torch.float32 and weight.device.type == "cpu"


def _forward(
    plain: Callable[[torch.Tensor], torch.Tensor],
    packed: torch.Tensor,
    bias: torch.Tensor | None,
    fewer: int,
    inputs: torch.Tensor,
) -> torch.Tensor:
    """What a layer computes; as ever with more than ``MOST_ROWS`` rows, or no more than ``fewer``."""
    rows = inputs.numel() // inputs.shape[-1]
    if not fewer < rows <= MOST_ROWS:
        return plain(inputs)
    output: torch.Tensor = _kernels._linear_pointwise(inputs, packed, bias, "none", [], "")  # noqa: SLF001 - as above
    return output
