"""A model's weights once more, laid out as oneDNN reads them, for passes in which its products are the faster ones.

On a CPU torch multiplies float32 by the BLAS that it was built with. Intel's doesn't use AVX-512 on other processors:
105 GFLOP/s on one core of a Zen 5, where oneDNN comes to 240; on a Zen 3, which has none, oneDNN is ahead in passes of
few rows only. So it is measured, on the machine and the model that it is for.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import torch
from torch import nn
from torch.nn.functional import linear, pad
from transformers.pytorch_utils import Conv1D

from pipemill_worker.pipelines.inputs import shorten
from pipemill_worker.pipelines.memory import ALL_OF_IT, Share
from pipemill_worker.policy.sizes import rounded_up

log = logging.getLogger("pipemill.worker")

#: Characters of a foreign error's text that our own repeats.
_MAX_CAUSE_CHARACTERS: Final = 300
#: Most that the copies may take, in bytes: half a billion weights.
MOST_BYTES: Final = 2 << 30
#: Layers with fewer inputs or outputs are left to torch, unless the model writes: oneDNN gained nothing in any of 14
#: shapes with a side of 2 to 31 (adapters, the heads of classifiers; Zen 5).
_NARROWEST: Final = 32
#: Rows that the layout is made for; passes of fewer and of more read it as well.
_USUAL_ROWS: Final = 16
#: Rows of the passes that are timed, and rounds over all of them; of each the quickest counts.
_TIMED_ROWS: Final = (8, 16, 32, 64, 128, 256, 512, 1_024)
_ROUNDS: Final = 5
#: Of a larger weight, a part of so many numbers is timed: the whole would take long, and gain what its part gains.
_MOST_TIMED: Final = 1 << 21
#: The share of torch's own time that a product must stay below.
_GAINS: Final = 0.95
#: Layers of one module that look at the same inputs, by their names.
_SIDE_BY_SIDE: Final = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"), ("q", "k", "v"), ("wi_0", "wi_1"))
#: Modules whose layers so called look at different inputs: what is written at what was read.
_APART: Final = frozenset({"EncDecAttention", "cross_attention", "cross_attn", "encoder_attn"})

#: All passes.
_NO_END: Final = range(1, sys.maxsize)

_kernels: Any = torch.ops.mkldnn
_has_kernels: Any = torch.backends.mkldnn.is_available

#: Tells seconds.
Clock: TypeAlias = Callable[[], float]


class Product:
    """A linear layer, or several that look at the same inputs, side by side: ``[…, in]`` to ``[…, all out]``.

    In passes of so many ``rows`` it reads a copy of the weights in oneDNN's own layout. With ``writes``, one
    row is fastest through the weights themselves if they lie with all of an input's together, so they are laid anew
    that way: each layer's own weight is a view of that. Where a vocabulary shares them they stay, since looking up its
    rows would be slow.
    """

    def __init__(self, layers: Sequence[Any], rows: range, *, writes: bool = False, shared: bool = False) -> None:
        weights = [_weight(layer) for layer in layers]
        #: Outputs of each layer.
        self.sizes = [len(each) for each in weights]
        biases = [layer.bias for layer in layers]
        self._bias = None if biases[0] is None else torch.cat([each.detach() for each in biases])
        self._plain = torch.cat(weights) if len(weights) > 1 else weights[0]
        if writes and type(layers[0]) is nn.Linear and not shared:
            self._plain = self._plain.t().contiguous().t()
            for layer, part in zip(layers, torch.split(self._plain, self.sizes), strict=True):
                layer.weight.data = part
        self.rows = range(max(rows.start, 2), rows.stop) if self._plain.t().is_contiguous() else rows
        self._packed = _packed(self._plain) if self.rows else None
        #: The inputs seen last, and what the layers that weren't asked for it yet have of them.
        self._kept: tuple[torch.Tensor, dict[int, torch.Tensor]] | None = None

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """All outputs, side by side."""
        if self._packed is None or rows_of(inputs) not in self.rows:
            return linear(inputs, self._plain, self._bias)
        return _multiply(inputs, self._packed, self._bias)

    def part(self, index: int, inputs: torch.Tensor) -> torch.Tensor:
        """One layer's outputs; the others' are kept until they are asked for the same inputs, which comes next."""
        if len(self.sizes) == 1:
            return self(inputs)
        kept = self._kept  # Read once: an engine of a thread of its own may ask as well.
        if kept is None or kept[0] is not inputs or index not in kept[1]:
            kept = self._kept = inputs, dict(enumerate(torch.split(self(inputs), self.sizes, -1)))
        outputs = kept[1].pop(index)
        if not kept[1]:
            self._kept = None
        return outputs


class Prepacked:
    """What a layer computes in place of its own ``forward``; as ever in passes of too many rows."""

    def __init__(self, layer: Any, product: Product, index: int) -> None:
        self._own: Callable[..., torch.Tensor] = layer.forward
        self._product, self._index = product, index

    def __call__(self, *inputs: torch.Tensor, **named: torch.Tensor) -> torch.Tensor:
        """``[…, in]`` to ``[…, out]``."""
        if named or inputs[0].dtype != torch.float32 or rows_of(inputs[0]) >= self._product.rows.stop:
            return self._own(*inputs, **named)
        return self._product.part(self._index, *inputs)


def prepack(
    model: nn.Module, rows: range | None = None, *, writes: bool = False, share: Share = ALL_OF_IT
) -> dict[int, Product]:
    """Let a model's linear layers read a second copy of their weights in passes that gain; the products, by layer.

    A layer's key is its ``id``. The ``rows`` of a pass that gains are measured if they aren't given. ``writes``:
    most passes are of few rows, each a token, so layers side by side are one product, and weights are laid anew for
    one row.

    None on a GPU, in other formats than float32, without oneDNN, and where copies would take more than ``MOST_BYTES``
    or than a share of the memory allows: torch multiplies, by weights that may still lie in a file that all processes
    share. Where nothing gains there are none either, but what writes has its layers side by side.

    A step of 8 rows through 384 × 32,000 weights took 5.9 ms so, and 13.4 ms as torch has them: its own kernel lays
    them out anew for each pass. Layers side by side are one product: three of 384 × 384 took 0.26 ms, and 0.18 ms so
    (Zen 3). Sums are made in another order: answers differ by rounding.
    """
    if not _has_kernels():
        return {}
    groups = list(_groups(model, writes=writes))
    copies = sum(layer.weight.nbytes for group in groups for layer in group)
    if copies > MOST_BYTES or not share.allows(copies * (1 + writes)):  # What writes has its weights laid anew, too.
        text = "%s keeps its weights as they are, and torch multiplies: there is no room for %d MiB of copies"
        log.info(text, type(model).__name__, copies >> 20, extra={"event": "products_not_had"})
        return {}
    try:
        rows = gaining_rows(model) if rows is None else rows
        return _laid_out(model, groups, rows, writes=writes) if rows or writes else {}
    except RuntimeError as error:
        restore(model)
        text = "oneDNN can't multiply by a model's weights, so torch does: %s"
        log.warning(text, shorten(error, _MAX_CAUSE_CHARACTERS), extra={"event": "products_not_had"})
        return {}


def _laid_out(model: nn.Module, groups: Sequence[list[Any]], rows: range, *, writes: bool) -> dict[int, Product]:
    shared = {each.weight.data_ptr() for each in model.modules() if isinstance(each, nn.Embedding)}
    products: dict[int, Product] = {}
    for group in groups:
        product = Product(group, rows, writes=writes, shared=group[0].weight.data_ptr() in shared)
        for index, layer in enumerate(group):
            products[id(layer)] = product
            layer.forward = Prepacked(layer, product, index)
    return products


def restore(model: nn.Module) -> Callable[[], None]:
    """Let a model's layers compute as torch has them; call what is returned to undo it."""
    replaced = [(vars(each), vars(each).pop("forward")) for each in model.modules() if is_prepacked(each)]

    def undo() -> None:
        for attributes, forward in replaced:
            attributes["forward"] = forward

    return undo


def is_prepacked(layer: nn.Module) -> bool:
    """Whether a layer reads such a copy."""
    return isinstance(vars(layer).get("forward"), Prepacked)


def most_rows(products: Mapping[int, Product]) -> int:
    """The most rows of a pass that reads such copies; 0 without any."""
    return max((each.rows.stop - 1 for each in products.values() if each.rows), default=0)


def described(products: Mapping[int, Product]) -> str:
    """For people: whose products they are, and in which passes."""
    most = most_rows(products)
    if not most:
        return "torch"
    fewest = min(each.rows.start for each in products.values() if each.rows)
    below = "" if most == _NO_END.stop - 1 else f" up to {most} rows"
    return "oneDNN" + (f" from {fewest} rows on" if fewest >= _TIMED_ROWS[0] else "") + below


def gaining_rows(model: nn.Module) -> range:
    """The rows of passes that gain, by timing the layers' commonest product; empty if none do.

    Where this thread computes alone, its own time is the clock, so that what
    else the machine does doesn't count.
    """
    weights = [_weight(each) for each in model.modules() if _qualifies(each)]
    if not weights:
        return range(0)
    numbers = Counter[torch.Size]()
    for each in weights:
        numbers[each.shape] += each.numel()
    shape, _ = numbers.most_common(1)[0]
    weight = next(each for each in weights if each.shape == shape)
    weight = weight[: max(1, _MOST_TIMED // weight.shape[1])]
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    packed = _packed(weight)
    timed = dict.fromkeys(_TIMED_ROWS, (math.inf, math.inf))
    for _ in range(_ROUNDS):  # What slows the machine for a moment then slows one run of a size, not all.
        for rows, (own, other) in timed.items():
            took = _times(weight, packed, rows, clock)
            timed[rows] = min(own, took[0]), min(other, took[1])
    return rows_that_gain(timed)


def rows_that_gain(timed: Mapping[int, tuple[float, float]]) -> range:
    """Where the second time of each number of rows is clearly below the first: the longest run of those timed.

    One that begins with the fewest begins at one row, and one that ends with the most has no end.
    """
    sizes, best, run = sorted(timed), list[int](), list[int]()
    for rows in sizes:
        own, packed = timed[rows]
        run = [*run, rows] if packed <= _GAINS * own else []
        best = max(best, run, key=len)
    if not best:
        return range(0)
    return range(1 if best[0] == sizes[0] else best[0], _NO_END.stop if best[-1] == sizes[-1] else best[-1] + 1)


def _times(weight: torch.Tensor, packed: torch.Tensor, rows: int, clock: Clock) -> tuple[float, float]:
    """Seconds of a pass of so many rows through a weight, by torch's own product and by oneDNN's."""
    inputs = torch.ones(rows, weight.shape[1])
    with torch.inference_mode():
        started = clock()
        linear(inputs, weight)
        between = clock()
        _multiply(inputs, packed, None)
        return between - started, clock() - between


def rows_of(inputs: torch.Tensor) -> int:
    """How many rows a layer is given: ``[…, in]``."""
    return inputs.numel() // inputs.shape[-1]


def _packed(weight: torch.Tensor) -> torch.Tensor:
    copy: torch.Tensor = _kernels._reorder_linear_weight(weight.contiguous(), _USUAL_ROWS)  # noqa: SLF001 - there is no public way
    return copy


def _multiply(inputs: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """A product of one of a few sizes: oneDNN prepares itself for each, for a millisecond and half a megabyte."""
    rows = rows_of(inputs)
    fillers = rounded_up(rows) - rows
    given = pad(inputs.reshape(rows, -1), (0, 0, 0, fillers)) if fillers else inputs
    outputs: torch.Tensor = _kernels._linear_pointwise(given, packed, bias, "none", [], "")  # noqa: SLF001 - as above
    return outputs[:rows].view(*inputs.shape[:-1], -1) if fillers else outputs


def _groups(model: nn.Module, *, writes: bool) -> Iterator[list[Any]]:
    """The layers that qualify; of what writes those side by side together, of all others the narrow ones left out."""
    grouped: set[int] = set()
    for name, module in model.named_modules() if writes else ():
        for names in _SIDE_BY_SIDE if name.rpartition(".")[2] not in _APART else ():
            layers: list[Any] = [getattr(module, name, None) for name in names]
            if all(type(each) is nn.Linear and _qualifies(each) for each in layers) and _fit(layers):
                grouped.update(map(id, layers))
                yield layers
    others: list[Any] = [each for each in model.modules() if id(each) not in grouped and _qualifies(each)]
    yield from ([each] for each in others if writes or min(each.weight.shape) >= _NARROWEST)


def _fit(layers: Sequence[Any]) -> bool:
    """Whether layers have equally many inputs, and all of them a bias or none."""
    return len({(each.in_features, each.bias is None) for each in layers}) == 1


def _qualifies(module: Any) -> bool:
    """Whether a module is a plain linear layer of float32 on a CPU; a quantised one only looks like that."""
    if type(module) not in {nn.Linear, Conv1D} or "forward" in vars(module):  # Somebody else's, who would miss it.
        return False
    weight = module.weight
    plain = type(weight) is nn.Parameter and type(weight.data) is torch.Tensor
    return plain and weight.dtype == torch.float32 and weight.device.type == "cpu" and weight.numel() > 0


def _weight(layer: Any) -> torch.Tensor:
    """``[out, in]``."""
    weight: torch.Tensor = layer.weight.detach()
    return weight if type(layer) is nn.Linear else weight.t()
