"""A last layer of which only each row's first token is read: it looks from there only, and computes no other.

Queries, what they find, and all behind that are made of first tokens only. Keys and values would be needed of all
tokens, were they made: instead, each query is turned by what makes keys, so that it looks at the hidden states as they
are, and what it finds among those is turned into a value. That is two products for each row, not for each token.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from pipemill_worker.pipelines.packing.rows import Looking, Rows, current
from pipemill_worker.pipelines.packing.stacks import Stack
from pipemill_worker.pipelines.prepacked import is_prepacked


def hook_last(layer: nn.Module, stack: Stack) -> list[Callable[[], None]]:
    """Let a layer compute first tokens only, in passes of which no others are read; calls that undo it."""
    attended = layer.get_submodule(stack.attended)
    if not stack.query:
        return [attended.register_forward_hook(lambda _, __, found: _kept(found)).remove]
    query, sources = layer.get_submodule(stack.query), _sources(layer, stack)
    undo = [_leave_out(source) for source in sources]
    return [
        query.register_forward_pre_hook(partial(_make_of_firsts, sources)).remove,
        query.register_forward_hook(_spread).remove,
        attended.register_forward_pre_hook(lambda _, given: tuple(map(_kept, given))).remove,
        *undo,
    ]


def _sources(layer: nn.Module, stack: Stack) -> tuple[nn.Linear, ...]:
    """What makes keys and values and may be left out: plain products that give as many numbers as they take."""
    sources = [layer.get_submodule(name) for name in stack.sources or ()]
    plain = [
        source
        for source in sources
        if type(source) is nn.Linear
        and source.in_features == source.out_features
        and ("forward" not in vars(source) or is_prepacked(source))  # Somebody else's, who would miss it.
    ]
    return tuple(plain) if len(plain) == len(sources) else ()


def _leave_out(source: nn.Linear) -> Callable[[], None]:
    """Let a product give what it takes, in passes that leave it out; call what is returned to undo it."""
    attributes = vars(source)
    before = attributes.copy()
    attributes["forward"] = partial(_left_out, source, source.forward)

    def undo() -> None:
        del attributes["forward"]
        if "forward" in before:
            attributes["forward"] = before["forward"]

    return undo


def _left_out(
    source: nn.Linear, own: Callable[[torch.Tensor], torch.Tensor], hidden_states: torch.Tensor
) -> torch.Tensor:
    looking = current.looking
    return hidden_states if looking is not None and source in looking.left_out else own(hidden_states)


def _kept(hidden_states: torch.Tensor) -> torch.Tensor:
    """Each row's first token: ``[rows, 1, size]``, or packed ``[1, rows, size]``, in the order of the batch."""
    if not current.first_only:
        return hidden_states
    rows = current.rows
    return hidden_states[:, :1] if rows is None else hidden_states.index_select(1, rows.firsts)


def _make_of_firsts(
    sources: tuple[nn.Linear, ...], _: Any, given: tuple[torch.Tensor, ...]
) -> tuple[torch.Tensor, ...]:
    """What queries are made of."""
    if not current.first_only:
        return given
    hidden_states, rows = given[0], current.rows
    shape = (hidden_states.shape[0], hidden_states.shape[1])
    current.looking = Looking(shape, () if rows is None else sources)
    return (hidden_states[:, :1] if rows is None else hidden_states.index_select(1, rows.begins),)


def _spread(_: Any, __: Any, queries: torch.Tensor) -> torch.Tensor:
    """The queries at their places, as the layer expects them; elsewhere nothing was computed, and nothing is read."""
    if current.looking is None:
        return queries
    return _spread_out(queries, current.looking.shape)


def _spread_out(of_firsts: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """What was computed of first tokens, in the order in which they are packed, at their places among all."""
    rows = current.rows
    among_all = of_firsts.new_empty(*shape, *of_firsts.shape[2:])
    if rows is None:
        among_all[:, :1] = of_firsts
    else:
        among_all[:, rows.begins] = of_firsts
    return among_all


def look_from_firsts(  # noqa: PLR0913, PLR0917 - what an attention is given
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    looking: Looking,
    scaling: float | None,
) -> torch.Tensor:
    """What each row's first token finds, at its place; as an attention gives it: ``[rows, tokens, heads, size]``."""
    rows = current.rows
    if rows is None:
        found = _padded(query, key, value, attention_mask, scaling)
    elif looking.left_out:
        found = _in_hidden_states(query, key, rows, looking.left_out, scaling)
    else:
        found = _packed(query, key, value, rows, scaling)
    return _spread_out(found, looking.shape)


def _padded(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None,
) -> torch.Tensor:
    """What first tokens find: ``[rows, 1, heads, size]``."""
    seen = None if attention_mask is None else attention_mask[:, :, :1]
    return _attend(query[:, :, :1], key, value, seen, scaling).transpose(1, 2)


def _packed(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rows: Rows, scaling: float | None
) -> torch.Tensor:
    """What first tokens find, row by row: packed ``[1, rows, heads, size]``."""
    runs = zip(rows.runs(query[0]), rows.runs(key[0]), rows.runs(value[0]), strict=True)
    return torch.cat([_attend(run[0][:, :, :1], *run[1:], None, scaling)[:, :, 0] for run in runs]).unsqueeze(0)


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, seen: torch.Tensor | None, scaling: float | None
) -> torch.Tensor:
    shared = query.shape[1] != key.shape[1]
    return scaled_dot_product_attention(query, key, value, attn_mask=seen, scale=scaling, enable_gqa=shared)


def _in_hidden_states(
    query: torch.Tensor,
    hidden_states: torch.Tensor,
    rows: Rows,
    left_out: tuple[nn.Linear, ...],
    scaling: float | None,
) -> torch.Tensor:
    """What each row's first token finds where keys and values were left out: packed ``[1, rows, heads, size]``.

    ``query`` is ``[1, heads, tokens, size]``, and so are ``hidden_states``, as if they were keys. With q, k = Kx + b
    and v = Vx + c, a score q·k is (qK)·x, and q·b, the same for all that a query sees, changes no share; shares p sum
    to 1, so that Σpv is V(Σpx) + c.
    """
    key, value = left_out
    heads, size = query.shape[1], query.shape[3]
    turned = torch.bmm(query[0].index_select(1, rows.begins), key.weight.view(heads, size, -1))
    turned = turned.transpose(0, 1) * (size**-0.5 if scaling is None else scaling)
    runs = (run.squeeze(1) for run in rows.runs(hidden_states.transpose(1, 2).flatten(2)))
    found = [
        torch.bmm(torch.bmm(looks, tokens.transpose(1, 2)).softmax(-1), tokens)
        for looks, tokens in zip(torch.split(turned, [count for count, _ in rows.counts]), runs, strict=True)
    ]
    values = torch.bmm(torch.cat(found).transpose(0, 1), value.weight.view(heads, size, -1).transpose(1, 2))
    if value.bias is not None:
        values += value.bias.view(heads, 1, size)
    return values.transpose(0, 1).unsqueeze(0)
