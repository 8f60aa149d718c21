"""Many items' model inputs to one batch, and one batch's outputs to many items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch.nn.utils.rnn import pad_sequence

from pipemill_worker.pipelines.grouping import PER_ITEM

#: Rank of ``[rows, tokens, …]``; what has fewer dimensions has no row per token, so no padding to cut.
_PER_TOKEN_RANK: Final = 3


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Payload:
    """What a forward pass needs of one item."""

    #: What ``preprocess`` made of it: tensors of one row, and the item's own values.
    inputs: Mapping[str, Any]
    #: Tokens in the row, the tokenizer's own padding included.
    length: int
    #: Keyword arguments of the forward pass, equal within a group.
    forward: Mapping[str, Any]


def collate(payloads: Sequence[Payload], pad_token_id: int) -> dict[str, Any]:
    """One batch of items with equal group keys; their own values stay behind, ``None`` in their place."""
    first = payloads[0].inputs
    if len(payloads) == 1:
        return {name: None if name in PER_ITEM else value for name, value in first.items()}
    ragged = any(payload.length != payloads[0].length for payload in payloads)
    batch: dict[str, Any] = {}
    for name, value in first.items():
        if name in PER_ITEM:
            batch[name] = None
        elif not isinstance(value, torch.Tensor):
            batch[name] = value  # Equal in all items: it is part of the group key.
        elif ragged:
            rows = [payload.inputs[name][0] for payload in payloads]
            fill = pad_token_id if name == "input_ids" else 0
            batch[name] = pad_sequence(rows, batch_first=True, padding_value=fill)
        else:
            batch[name] = torch.cat([payload.inputs[name] for payload in payloads])
    return batch


def unbatch(outputs: Any, payloads: Sequence[Payload], *, named: bool) -> list[Any]:
    """Each item's outputs, as if it had run alone: its row without padding, beside its own inputs.

    ``named``: the task reads ``logits``; otherwise (feature-extraction) the first output, whatever its name.
    """
    scores: torch.Tensor = outputs["logits"] if named else outputs[0]
    if scores.shape[0] != len(payloads):
        raise RuntimeError(
            f"the model gave {scores.shape[0]} rows for {len(payloads)} items: it can't share batches; run it alone"
        )
    rows: list[torch.Tensor] = list(torch.split(scores, 1)) if len(payloads) > 1 else [scores]
    if scores.dim() >= _PER_TOKEN_RANK and scores.shape[1] == max(payload.length for payload in payloads):
        rows = [row[:, : payload.length] for row, payload in zip(rows, payloads, strict=True)]
    if named:
        return [{**payload.inputs, "logits": row} for row, payload in zip(rows, payloads, strict=True)]
    return [(row,) for row in rows]
