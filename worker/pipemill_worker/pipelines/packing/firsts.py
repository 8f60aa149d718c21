"""A last layer of which only each row's first token is read: it looks from there only, and computes no other.

Keys and values are needed of all tokens; queries, what they find, and all behind that of the first ones.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from pipemill_worker.pipelines.packing.rows import current
from pipemill_worker.pipelines.packing.stacks import Stack


def hook_last(layer: nn.Module, stack: Stack) -> list[RemovableHandle]:
    """Let a layer compute first tokens only, in passes of which no others are read."""
    if not stack.query:
        return [layer.get_submodule(stack.attended).register_forward_hook(lambda _, __, found: _kept(found))]
    query = layer.get_submodule(stack.query)
    return [
        query.register_forward_pre_hook(_look_from_firsts),
        query.register_forward_hook(_spread),
        layer.get_submodule(stack.attended).register_forward_pre_hook(lambda _, given: tuple(map(_kept, given))),
    ]


def _kept(hidden_states: torch.Tensor) -> torch.Tensor:
    """Each row's first token: ``[rows, 1, size]``, or packed ``[1, rows, size]``, in the order of the batch."""
    if not current.first_only:
        return hidden_states
    rows = current.rows
    return hidden_states[:, :1] if rows is None else hidden_states.index_select(1, rows.firsts)


def _look_from_firsts(_: Any, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """What queries are made of."""
    if not current.first_only:
        return given
    hidden_states, rows = given[0], current.rows
    current.looking = (hidden_states.shape[0], hidden_states.shape[1])
    return (hidden_states[:, :1] if rows is None else hidden_states.index_select(1, rows.begins),)


def _spread(_: Any, __: Any, queries: torch.Tensor) -> torch.Tensor:
    """The queries at their places, as the layer expects them; elsewhere nothing was computed, and nothing is read."""
    if current.looking is None:
        return queries
    return spread(queries, current.looking)


def spread(of_firsts: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """What was computed of first tokens, in the order in which they are packed, at their places among all."""
    rows = current.rows
    among_all = of_firsts.new_empty(*shape, *of_firsts.shape[2:])
    if rows is None:
        among_all[:, :1] = of_firsts
    else:
        among_all[:, rows.begins] = of_firsts
    return among_all
