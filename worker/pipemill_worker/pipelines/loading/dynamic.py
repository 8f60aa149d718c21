"""Linear layers that compute in eight bits on a CPU: their weights are rounded, and so is what they are given.

Torch's own ``quantize_dynamic`` is deprecated, and rounds what a layer is given by one scale for the whole batch: an
answer then depends on its neighbours. torchao's successor has a scale for each token, but no quick kernel for a CPU
(MiniLM: 2 texts a second, where float32 has 35); nor is oneDNN's quicker than float32 without VNNI. So here is FBGEMM,
the kernel of the first, with the scales of the second: a token is rounded by itself, and a batch changes no answer.
"""

from __future__ import annotations

import warnings
from typing import Any, Final

import torch
from torch import nn

from pipemill_worker.pipelines.loading.refusal import Refusal

#: Whole numbers on either side of zero that what a layer is given is rounded to.
_STEPS: Final = 127
#: As above for the weights. Processors without VNNI add two products in 16 bits, into which 2 x 255 x 63 still fits:
#: with 127 steps, sums are cut off, and a layer's outputs were 20 times as far off (AVX2, evenly spread weights).
_WEIGHT_STEPS: Final = 63
#: Where zero lies among the kernel's unsigned numbers.
_ZERO: Final = 128
#: Less is taken for this much: a token of zeros has no scale.
_LEAST: Final = 1e-12

#: Layers with fewer outputs are heads: in eight bits they'd be no quicker, and their answers off.
FEWEST_OUTPUTS: Final = 32

_kernels: Final[Any] = torch.ops.quantized


class DynamicLinear(nn.Module):
    """A linear layer in eight bits, with a scale for each output of its weights and each token that it is given."""

    #: For models that look at a layer's weights before they call it.
    weight: None = None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        weights = linear.weight.detach()
        scales = (weights.abs().amax(1) / _WEIGHT_STEPS).clamp_min_(_LEAST)
        zeros = torch.zeros(len(scales), dtype=torch.int64)
        with warnings.catch_warnings():  # Its tensors are deprecated; the kernel takes no others.
            warnings.filterwarnings("ignore", "torch.quantize_per_tensor")
            rounded = torch.quantize_per_channel(weights, scales, zeros, 0, torch.qint8)
        self._packed = _kernels.linear_prepack(rounded, None)
        bias: torch.Tensor | None = linear.bias  # Its hints know no layer without.
        self.bias = torch.zeros(self.out_features) if bias is None else bias.detach()

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """What the layer makes of ``[…, in_features]``."""
        largest = given.abs().amax(-1, keepdim=True).clamp_min_(_LEAST)
        scaled = given / largest
        product = _kernels.linear_with_input_q_dq_qweight_dq_output_fp32(scaled, 1 / _STEPS, _ZERO, self._packed)
        return torch.addcmul(self.bias, product, largest)


def round_layers(model: nn.Module) -> None:
    """Put a layer in eight bits into the place of each linear layer.

    Raises
    ------
    Refusal
        When the weights aren't float32, no layer is linear, or torch has no such kernel for this processor.

    """
    # Kinds of linear layers have reasons of their own: torch's attention, for one, reads the weights itself.
    found = [(name, each) for name, each in model.named_modules(remove_duplicate=False) if type(each) is nn.Linear]
    layers = [(name, each) for name, each in found if each.out_features >= FEWEST_OUTPUTS]
    if not layers:
        raise Refusal("it has no linear layers to round", "remove quantisation: it would gain nothing")
    if any(each.weight.dtype is not torch.float32 for _, each in layers):
        saved = str(layers[0][1].weight.dtype).removeprefix("torch.")
        raise Refusal(f"int8-dynamic rounds float32 weights, and these are {saved}", "set dtype: float32")
    _check_kernel()
    rounded = {each: DynamicLinear(each) for each in {each for _, each in layers}}  # One may stand in several places.
    for name, each in layers:
        model.set_submodule(name, rounded[each])


def _check_kernel() -> None:
    try:
        DynamicLinear(nn.Linear(8, 8))(torch.ones(1, 8))
    except (AttributeError, RuntimeError) as error:  # Kernels differ between processors and versions of torch.
        raise Refusal(
            "this torch has no kernel of eight bits for this processor", "use int8, or remove quantisation"
        ) from error
