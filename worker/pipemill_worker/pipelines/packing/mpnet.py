"""MPNet, whose attention adds a bias by distance and isn't one that transformers lets others replace."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch

from pipemill_worker.pipelines.packing.rows import current


def adapt(model: Any) -> Callable[[], None]:
    """Let the attention of an MPNet's layers see each row of a packed pass alone; call what is returned to undo it.

    The bias depends on the distance of two tokens only, so that of the longest row holds that of all others.
    """
    base = model.base_model
    encoder = base.encoder
    attentions = [layer.attention.attn for layer in encoder.layer]
    encoder.compute_position_bias = partial(_bias, encoder.compute_position_bias)
    for attention in attentions:
        attention.forward = partial(_attend, attention, attention.forward)
    without_mask = base.register_forward_pre_hook(_without_mask, with_kwargs=True)

    def undo() -> None:
        without_mask.remove()
        del encoder.compute_position_bias
        for attention in attentions:
            del attention.forward

    return undo


def _without_mask(_: Any, arguments: Any, named: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The model would widen it to ``[rows, 1, tokens, tokens]`` for nothing."""
    return arguments, dict(named) if current.rows is None else {**named, "attention_mask": None}


def _bias(plain: Callable[..., torch.Tensor], hidden_states: torch.Tensor, *arguments: Any) -> torch.Tensor:
    rows = current.rows
    return plain(hidden_states if rows is None else hidden_states[:, : max(rows.lengths)], *arguments)


def _attend(
    attention: Any,
    plain: Callable[..., Any],
    hidden_states: torch.Tensor,
    attention_mask: Any = None,
    position_bias: Any = None,
    **options: Any,
) -> Any:
    """What the attention itself computes, in its order and precision, for rows of each length together."""
    rows = current.rows
    if rows is None:
        return plain(hidden_states, attention_mask, position_bias, **options)
    heads, size = attention.num_attention_heads, attention.attention_head_size
    projected = (
        rows.runs(project(hidden_states[0]).unflatten(-1, (heads, size)).transpose(0, 1))
        for project in (attention.q, attention.k, attention.v)
    )
    outputs = []
    for query, key, value in zip(*projected, strict=True):
        length = query.shape[2]
        scores = torch.matmul(query, key.transpose(-1, -2)).div_(math.sqrt(size))
        scores += position_bias[:, :, :length, :length]
        outputs.append(torch.matmul(scores.softmax(-1), value).transpose(1, 2).flatten(0, 1))
    return (attention.o(rows.join(outputs).flatten(1)).unsqueeze(0),)
