"""Many items' model inputs to one batch, and one batch's outputs to many items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers.utils.generic import ModelOutput

from pipemill_worker.pipelines.grouping import SharingRule

#: Rank of ``[rows, tokens, …]``; what has fewer dimensions has no row per token, so no padding to cut.
_PER_TOKEN_RANK: Final = 3

_UNSHAREABLE: Final = "it can't share batches; run it alone"


#: Numbers of an image or a sound that cost about as much as a token: the 16 × 16 × 3 of a vision transformer's patch.
NUMBERS_PER_TOKEN: Final = 768


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Payload:
    """What a forward pass needs of one item."""

    #: What ``preprocess`` made of it: tensors of one row, and the item's own values.
    inputs: Mapping[str, Any]
    #: Tokens in the row, the tokenizer's own padding included; 0 where there are none.
    length: int
    #: Keyword arguments of the forward pass, equal within a group.
    forward: Mapping[str, Any]
    #: An input and parameters for ``preprocess`` on the device's thread, where a task's preprocessing runs the model.
    raw: tuple[Any, Mapping[str, Any]] | None = None
    #: All payloads of a job whose draws start from ``seed``; they run one after the other.
    bundle: tuple[Payload, ...] = ()
    seed: int | None = None
    #: Whether a direct call of this job would go through a data loader.
    loads: bool = False

    @property
    def parts(self) -> tuple[Payload, ...]:
        """Those of a bundle, or itself."""
        return self.bundle or (self,)


def cost_of(chunk: Mapping[str, Any], length: int) -> int:
    """What an item of so many tokens costs: with its images and sounds, as if they were tokens, too."""
    numbers = sum(
        value.numel() for value in chunk.values() if isinstance(value, torch.Tensor) and value.is_floating_point()
    )
    return max(1, length + numbers // NUMBERS_PER_TOKEN)


def collate(payloads: Sequence[Payload], rule: SharingRule) -> dict[str, Any]:
    """One batch of items with equal group keys; their own values stay behind, ``None`` in their place."""
    first = payloads[0].inputs
    if len(payloads) == 1:
        return {name: None if name in rule.per_item else value for name, value in first.items()}
    ragged = any(payload.length != payloads[0].length for payload in payloads)
    batch: dict[str, Any] = {}
    for name, value in first.items():
        if name in rule.per_item:
            batch[name] = None
        elif name in rule.listed:
            batch[name] = [payload.inputs[name] for payload in payloads]
        elif not isinstance(value, torch.Tensor):
            batch[name] = value  # Equal in all items: it is part of the group key.
        elif ragged:
            rows = [payload.inputs[name][0] for payload in payloads]
            fill = rule.pad_token_id if name == "input_ids" else 0
            batch[name] = pad_sequence(rows, batch_first=True, padding_value=fill)
        else:
            batch[name] = torch.cat([payload.inputs[name] for payload in payloads])
    return batch


def sent(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """A batch on its way to a CUDA device: copied from pinned memory, so that the copies overlap each other's set-up.

    The pipeline itself would copy one tensor after the other and wait for each. Elsewhere the batch stays as it is.
    """
    if device.type != "cuda":
        return batch
    return {
        name: value.pin_memory().to(device, non_blocking=True)
        if isinstance(value, torch.Tensor) and value.device.type == "cpu"
        else value
        for name, value in batch.items()
    }


def unbatch_one(outputs: Any, payloads: Sequence[Payload], name: str, *, per_token: bool) -> list[Any]:
    """Each item's row of the one output that its task reads, as if the item had run alone, beside its own inputs.

    ``name`` is the output's; ``""`` stands for the first, whatever it is called, and gives it without the inputs.
    ``per_token`` outputs lose the positions that padding has in them.
    """
    scores: torch.Tensor = outputs[name] if name else outputs[0]
    _check_rows(scores.shape[0], len(payloads))
    rows: list[torch.Tensor] = list(torch.split(scores, 1)) if len(payloads) > 1 else [scores]
    if per_token and scores.dim() >= _PER_TOKEN_RANK and scores.shape[1] == max(each.length for each in payloads):
        rows = [row[:, : payload.length] for row, payload in zip(rows, payloads, strict=True)]
    if name:
        return [{**payload.inputs, name: row} for row, payload in zip(rows, payloads, strict=True)]
    return [(row,) for row in rows]


def unbatch(outputs: Any, payloads: Sequence[Payload], rule: SharingRule) -> list[Any]:
    """Each item's outputs, all of them, as if it had run alone, its own values back in their places."""
    rows: list[Any] = []
    for index, payload in enumerate(payloads):
        row = {
            name: payload.inputs.get(name) if _is_own(name, payload, rule) else _row(value, index, len(payloads))
            for name, value in outputs.items()
            if name != "past_key_values"  # No pipeline reads it again.
        }
        if len(payloads) > 1:
            row |= {name: outputs[name][index] for name in rule.listed & row.keys()}
        if isinstance(outputs, ModelOutput):  # It drops what is None, and so lost the item's own values.
            row |= {name: payload.inputs[name] for name in rule.per_item & payload.inputs.keys()}
        rows.append(_like(outputs, row))
    return rows


def _is_own(name: str, payload: Payload, rule: SharingRule) -> bool:
    """Whether an output is an input that comes through: an item's own value, or one that is equal in its group."""
    given = payload.inputs.get(name)
    return name in rule.per_item or not (given is None or name in rule.listed or isinstance(given, torch.Tensor))


def _row(value: Any, index: int, count: int) -> Any:
    """One row of an output that has one for each item, however it nests them."""
    if value is None or count == 1:
        return value
    if isinstance(value, torch.Tensor):
        _check_rows(value.shape[0] if value.dim() else 0, count)
        return value[index : index + 1]
    if isinstance(value, Mapping):
        return _like(value, {name: _row(each, index, count) for name, each in value.items()})
    if isinstance(value, tuple):  # A tensor for each layer, each with its rows.
        return tuple(_row(each, index, count) for each in value)
    if isinstance(value, list):
        _check_rows(len(value), count)
        return value[index : index + 1]
    raise RuntimeError(f"the model gave a {type(value).__name__} for {count} items: {_UNSHAREABLE}")


def _like(outputs: Any, row: dict[str, Any]) -> Any:
    """A row of the class of the outputs: some postprocessing asks for fields that the model left empty."""
    if not isinstance(outputs, ModelOutput):
        return row
    kind: Any = type(outputs)
    empty: tuple[None, ...] = () if kind is ModelOutput else (None,)  # A first field may have no default.
    made = kind(*empty)
    for name, value in row.items():
        made[name] = value
    return made


def _check_rows(rows: int, count: int) -> None:
    if rows != count:
        raise RuntimeError(f"the model gave {rows} rows for {count} items: {_UNSHAREABLE}")
