"""A model's weights once more, laid out as passes of few rows read them fastest on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final

import torch
from torch import nn
from torch.nn.functional import linear
from transformers.pytorch_utils import Conv1D

#: Most rows of a pass that gains: with more, the plain layout is as fast (Zen 3, float32).
MOST_ROWS: Final = 64
#: Most that the copies may take, in bytes: half a billion weights.
MOST_BYTES: Final = 2 << 30
#: Rows that the layout is made for; passes of fewer and of more read it as well.
_USUAL_ROWS: Final = 16
#: Layers of one module that look at the same inputs, by their names.
_SIDE_BY_SIDE: Final = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"), ("q", "k", "v"), ("wi_0", "wi_1"))
#: Modules whose layers so called look at different inputs: what is written at what was read.
_APART: Final = frozenset({"EncDecAttention", "cross_attention", "cross_attn", "encoder_attn"})

_kernels: Any = torch.ops.mkldnn
_has_kernels: Any = torch.backends.mkldnn.is_available


class Product:
    """A linear layer, or several that look at the same inputs, side by side: ``[…, in]`` to ``[…, all out]``.

    In passes of few rows it reads a copy of the weights in oneDNN's own layout. One row is fastest through the weights
    themselves if they lie with all of an input's together, so they are laid anew that way: each layer's own weight is
    a view of that. Where a vocabulary shares them they stay, since looking up its rows would be slow.
    """

    def __init__(self, layers: Sequence[Any], *, shared: bool = False) -> None:
        weights = [_weight(layer) for layer in layers]
        #: Outputs of each layer.
        self.sizes = [len(each) for each in weights]
        biases = [layer.bias for layer in layers]
        self._bias = None if biases[0] is None else torch.cat([each.detach() for each in biases])
        self._plain = torch.cat(weights) if len(weights) > 1 else weights[0]
        if type(layers[0]) is nn.Linear and not shared:
            self._plain = self._plain.t().contiguous().t()
            for layer, part in zip(layers, torch.split(self._plain, self.sizes), strict=True):
                layer.weight.data = part
        self._fewest = 2 if self._plain.t().is_contiguous() else 1
        self._packed = _kernels._reorder_linear_weight(self._plain.contiguous(), _USUAL_ROWS)  # noqa: SLF001 - there is no public way
        #: The inputs seen last, and what the layers that weren't asked for it yet have of them.
        self._seen: torch.Tensor | None = None
        self._outputs: dict[int, torch.Tensor] = {}

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """All outputs, side by side."""
        rows = inputs.numel() // inputs.shape[-1]
        if not self._fewest <= rows <= MOST_ROWS:
            return linear(inputs, self._plain, self._bias)
        outputs: torch.Tensor = _kernels._linear_pointwise(inputs, self._packed, self._bias, "none", [], "")  # noqa: SLF001 - as above
        return outputs

    def part(self, index: int, inputs: torch.Tensor) -> torch.Tensor:
        """One layer's outputs; the others' are kept until they are asked for the same inputs, which comes next."""
        if len(self.sizes) == 1:
            return self(inputs)
        if self._seen is not inputs or index not in self._outputs:
            self._seen, self._outputs = inputs, dict(enumerate(torch.split(self(inputs), self.sizes, -1)))
        outputs = self._outputs.pop(index)
        if not self._outputs:
            self._seen = None
        return outputs


def prepack(model: nn.Module) -> dict[int, Product]:
    """Let a model's linear layers read a second copy of their weights in passes of few rows; the products, by layer.

    A layer's key is its ``id``. None on a GPU, in other formats than float32, without oneDNN, and where copies would
    take more than ``MOST_BYTES``. A step of 8 rows through 384 × 32,000 weights took 5.9 ms so, and 13.4 ms as torch
    has them: its own kernel lays them out anew for each pass. Layers side by side are one product: three of 384 × 384
    took 0.26 ms, and 0.18 ms so. Sums are made in another order: answers differ by rounding.
    """
    if not _has_kernels():
        return {}
    groups = list(_groups(model))
    if sum(layer.weight.nbytes for group in groups for layer in group) > MOST_BYTES:
        return {}
    shared = {each.weight.data_ptr() for each in model.modules() if isinstance(each, nn.Embedding)}
    products: dict[int, Product] = {}
    for group in groups:
        product = Product(group, shared=group[0].weight.data_ptr() in shared)
        for index, layer in enumerate(group):
            products[id(layer)] = product
            layer.forward = partial(_forward, layer.forward, product, index)
    return products


def _groups(model: nn.Module) -> Iterator[list[Any]]:
    """The layers that qualify, those side by side together."""
    grouped: set[int] = set()
    for name, module in model.named_modules():
        for names in _SIDE_BY_SIDE if name.rpartition(".")[2] not in _APART else ():
            layers: list[Any] = [getattr(module, name, None) for name in names]
            if all(type(each) is nn.Linear and _qualifies(each) for each in layers) and _fit(layers):
                grouped.update(map(id, layers))
                yield layers
    yield from ([each] for each in model.modules() if id(each) not in grouped and _qualifies(each))


def _fit(layers: Sequence[Any]) -> bool:
    """Whether layers have equally many inputs, and all of them a bias or none."""
    return len({(each.in_features, each.bias is None) for each in layers}) == 1


def _qualifies(module: Any) -> bool:
    """Whether a module is a plain linear layer of float32 on a CPU; a quantised one only looks like that."""
    if type(module) not in {nn.Linear, Conv1D}:
        return False
    weight = module.weight
    plain = type(weight) is nn.Parameter and type(weight.data) is torch.Tensor
    return plain and weight.dtype == torch.float32 and weight.device.type == "cpu"


def _weight(layer: Any) -> torch.Tensor:
    """``[out, in]``."""
    weight: torch.Tensor = layer.weight.detach()
    return weight if type(layer) is nn.Linear else weight.t()


def _forward(
    plain: Callable[[torch.Tensor], torch.Tensor], product: Product, index: int, inputs: torch.Tensor
) -> torch.Tensor:
    """What a layer computes; as ever with more than ``MOST_ROWS`` rows."""
    rows = inputs.numel() // inputs.shape[-1]
    return product.part(index, inputs) if rows <= MOST_ROWS else plain(inputs)
