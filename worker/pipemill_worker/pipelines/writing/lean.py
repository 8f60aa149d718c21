"""One step of a decoder whose layers are Llama's, in as few operations as it takes.

A step of few rows is a few dozen small operations a layer, and the way to them costs as much as they do: transformers'
own step of one row took 18 ms for 11 ms of products, of eight rows 28 for 15 (6 layers of 384, Zen 3). Here rows have
no dimension for tokens, layers that look at the same inputs are one product, and queries and keys turn together. The
operations and their order are the model's own.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import torch
from torch import nn
from torch.nn.functional import embedding, rms_norm, scaled_dot_product_attention
from transformers.cache_utils import Cache

from pipemill_worker.pipelines.prepacked import Product
from pipemill_worker.pipelines.writing.slab import Read, Room, Slab

log = logging.getLogger("pipemill.worker")

#: Cosines and sines of places: ``[rows, 1, head size]`` each.
_Turns: TypeAlias = tuple[torch.Tensor, torch.Tensor]

#: Models whose layers are Llama's; with their windows, where they have any, they aren't.
MODEL_TYPES: Final = frozenset({"llama", "mistral", "qwen2", "qwen3"})
#: By how much logits may differ from the model's own, as a share of the largest.
TOLERANCE: Final = 1e-4
#: Rows of the comparison, and their lengths: with a mask and without.
_LENGTHS: Final = ((1,), (3, 3), (5, 2, 9))


class Lean:
    """The model's own step."""

    def __init__(self, model: Any, products: Mapping[int, Product]) -> None:
        base = model.model
        self._embedding, self._rotary = base.embed_tokens, base.rotary_emb
        self._layers = [_Layer(each, products) for each in base.layers]
        self._norm, self._head = _Norm(base.norm), products[id(model.lm_head)]

    def __call__(self, inputs: Mapping[str, Any], slab: Slab) -> torch.Tensor:
        """The logits of each row's next token, ``[rows, vocabulary]``, from a slab's own inputs."""
        hidden = embedding(inputs["input_ids"][:, 0], self._embedding.weight)
        turns = self._rotary(hidden, position_ids=inputs["position_ids"])
        for layer, kept in zip(self._layers, slab.cache.layers, strict=True):
            hidden = layer.step(hidden, turns, kept, inputs["attention_mask"])
        return self._head(self._norm(hidden))

    def read(self, texts: Sequence[torch.Tensor]) -> tuple[torch.Tensor, list[Any]]:
        """Read whole texts, laid end to end, each to itself.

        The logits of each one's next token, ``[texts, vocabulary]``, and each one's keys and values.
        """
        lengths = [len(each) for each in texts]
        ends = torch.tensor(lengths).cumsum(0) - 1
        hidden = embedding(torch.cat(list(texts)), self._embedding.weight)
        turns = self._rotary(hidden, position_ids=torch.cat([torch.arange(length) for length in lengths])[:, None])
        kept: list[list[Any]] = [[] for _ in texts]
        for layer in self._layers:
            hidden, *seen = layer.read(hidden, turns, lengths, ends if layer is self._layers[-1] else None)
            for own, *parts in zip(kept, *(torch.split(each, lengths, 2) for each in seen), strict=True):
                own.append(Read(*parts))
        return self._head(self._norm(hidden)), [Cache(layers=own) for own in kept]


class _Norm:
    """What transformers computes in seven operations."""

    def __init__(self, module: Any) -> None:
        self._weight, self._epsilon = module.weight.detach(), module.variance_epsilon

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        return rms_norm(hidden, self._weight.shape, self._weight, self._epsilon)


class _Layer:
    """One layer: ``[rows, size]`` to the same."""

    def __init__(self, layer: Any, products: Mapping[int, Product]) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self._before, self._between = _Norm(layer.input_layernorm), _Norm(layer.post_attention_layernorm)
        self._qkv, self._out = products[id(attention.q_proj)], products[id(attention.o_proj)]
        self._gate_up, self._down = products[id(mlp.gate_proj)], products[id(mlp.down_proj)]
        if len(self._qkv.sizes) == 1 or len(self._gate_up.sizes) == 1:
            raise ValueError("its products aren't side by side")
        self._head_size, self._scaling, self._activation = attention.head_dim, attention.scaling, mlp.act_fn
        self._queries, self._keys = (size // self._head_size for size in self._qkv.sizes[:2])
        self._norms = tuple(
            _Norm(getattr(attention, name)) for name in ("q_norm", "k_norm") if hasattr(attention, name)
        )

    def step(self, hidden: torch.Tensor, turns: _Turns, kept: Any, mask: torch.Tensor | None) -> torch.Tensor:
        """One token more in each row."""
        query, key, value = self._looking(hidden, turns)
        keys, values = kept.update(key[:, :, None], value[:, :, None])
        attended = self._attend(query[:, :, None], keys, values, attn_mask=mask)
        return self._behind(hidden, attended.flatten(1))

    def read(
        self, hidden: torch.Tensor, turns: _Turns, lengths: Sequence[int], ends: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """All tokens of texts that lie end to end, or what comes of those at the ``ends``; their keys and values."""
        looking = [each.transpose(0, 1).unsqueeze(0) for each in self._looking(hidden, turns)]
        texts = zip(*(torch.split(each, list(lengths), 2) for each in looking), strict=True)
        attended = torch.cat([self._attend(*text, is_causal=True).transpose(1, 2)[0].flatten(1) for text in texts])
        if ends is not None:
            hidden, attended = hidden[ends], attended[ends]
        return self._behind(hidden, attended), looking[1], looking[2]

    def _looking(self, hidden: torch.Tensor, turns: _Turns) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys and values: ``[rows, heads, head size]``."""
        products = self._qkv(self._before(hidden)).view(len(hidden), -1, self._head_size)
        turned = products[:, : self._queries + self._keys]
        if self._norms:
            parts = torch.split(turned, [self._queries, self._keys], dim=1)
            turned = torch.cat([norm(part) for norm, part in zip(self._norms, parts, strict=True)], dim=1)
        cos, sin = turns
        turned = turned * cos + _half_turned(turned) * sin
        return turned[:, : self._queries], turned[:, self._queries :], products[:, self._queries + self._keys :]

    def _attend(self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, **options: Any) -> torch.Tensor:
        shared = self._queries != self._keys
        return scaled_dot_product_attention(query, keys, values, scale=self._scaling, enable_gqa=shared, **options)

    def _behind(self, hidden: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        """What of the layer comes after the attention."""
        hidden = hidden + self._out(attended)
        gate, up = self._gate_up(self._between(hidden)).chunk(2, dim=-1)
        return hidden + self._down(self._activation(gate) * up)


def _half_turned(states: torch.Tensor) -> torch.Tensor:
    first, second = states.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


@torch.inference_mode()
def lean(model: nn.Module, products: Mapping[int, Product]) -> Lean | None:
    """A model's lean step; ``None`` if it isn't of a known type, or if its logits aren't the model's own."""
    if not products:
        return None
    config: Any = model.config
    windows = {*(getattr(config, "layer_types", None) or ())} - {"full_attention"}
    if config.model_type not in MODEL_TYPES or windows or _has_window(config) or config._attn_implementation != "sdpa":  # noqa: SLF001 - there is no public way
        return None
    try:
        made = Lean(model, products)
        if all(_agrees(model, made, lengths) for lengths in _LENGTHS) and _reads(model, made):
            return made
        why = "other numbers"
    except (AttributeError, KeyError, RuntimeError, ValueError) as error:  # A part is missing, or is of another shape.
        why = f"{type(error).__name__}: {error}"
    log.info("%s keeps transformers' own step (%s)", type(model).__name__, why, extra={"event": "step_not_lean"})
    return None


def _has_window(config: Any) -> bool:
    """Whether tokens see only so far, with a setting that some types have and mostly switch off."""
    return getattr(config, "sliding_window", None) is not None and getattr(config, "use_sliding_window", True)


def _agrees(model: Any, made: Lean, lengths: Sequence[int]) -> bool:
    """Whether both write the same behind texts of these lengths."""
    slabs = [Slab(Room(len(lengths) * (max(lengths) + 8))) for _ in range(2)]
    for text in _texts(model, lengths):
        kept = model(input_ids=text[None], use_cache=True, return_dict=True).past_key_values
        for slab in slabs:
            slab.add(kept)
    for text in _texts(model, [len(lengths)] * 3):  # One token for each row.
        theirs = model(**slabs[0].inputs(text.tolist()), use_cache=True, return_dict=True).logits[:, -1]
        if not _near(made(slabs[1].inputs(text.tolist()), slabs[1]), theirs):
            return False
        for slab in slabs:
            slab.step()
    return True


def _reads(model: Any, made: Lean) -> bool:
    """Whether both read texts to the same end."""
    texts = _texts(model, (4, 1, 4, 9))
    logits, caches = made.read(texts)
    for text, ours, cache in zip(texts, logits, caches, strict=True):
        outputs = model(input_ids=text[None], use_cache=True, return_dict=True)
        mine, theirs = (each.layers[-1] for each in (cache, outputs.past_key_values))
        pairs = ((ours, outputs.logits[0, -1]), (mine.keys, theirs.keys), (mine.values, theirs.values))
        if not all(_near(*pair) for pair in pairs):
            return False
    return True


def _texts(model: Any, lengths: Sequence[int]) -> list[torch.Tensor]:
    """Tokens of a fixed choice."""
    vocabulary = model.config.vocab_size
    return [
        torch.tensor([(7 * place + 11 * number + 5) % vocabulary for place in range(length)])
        for number, length in enumerate(lengths)
    ]


def _near(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    return bool((ours - theirs).abs().max() <= TOLERANCE * theirs.abs().max())
