"""Which items may share a forward pass without changing an answer.

Safe for every model: items whose tensors have exactly the same shapes. Padding to a common length is left to model
types for which tests prove it harmless: with an attention mask, on the right. Not all encoders are: ConvBERT convolves
over the padding, FNet has no mask, BigBird attends otherwise when a neighbour is long.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch

from pipemill_worker.pipelines.rules import TASK_RULES, Sharing, TaskRule
from pipemill_worker.pipelines.settings import LoadedPipeline

#: Model types whose rows are proven independent of padding on the right: encoders, and encoder-decoders.
PADDABLE_ENCODERS: Final = frozenset(
    {
        "albert",
        "bart",
        "bert",
        "camembert",
        "data2vec-text",
        "deberta",
        "deberta-v2",
        "distilbert",
        "electra",
        "ernie",
        "esm",
        "eurobert",
        "gte",
        "jina_embeddings_v3",
        "mbart",
        "mobilebert",
        "modernbert",
        "mpnet",
        "nomic_bert",
        "roberta",
        "roberta-prelayernorm",
        "roformer",
        "ultrabert",
        "xlm-roberta",
        "xlm-roberta-xl",
    }
)

#: As above for decoder-only models: a token sees none to its right. Their classifiers look for the last real token.
PADDABLE_DECODERS: Final = frozenset(
    {"gemma", "gemma2", "gpt2", "gpt_neo", "gpt_neox", "llama", "mistral", "opt", "phi", "qwen2", "qwen3"}
)

#: Encoder-decoders that write a text, whose encoders are proven so: the decoder doesn't see the padding.
PADDABLE_WRITERS: Final = frozenset({"bart", "m2m_100", "marian", "mbart", "mt5", "pegasus", "t5", "umt5"})

#: The tensors that may be padded, one token a column; an item with others shares by exact shape.
TOKEN_TENSORS: Final = frozenset({"attention_mask", "input_ids", "token_type_ids"})

#: Kinds of rotary positions whose angles change when a row is longer than the model was trained for.
_BY_LENGTH: Final = frozenset({"dynamic", "longrope"})

_CLASSIFIERS: Final = frozenset({"rerank", "text-classification", "zero-shot-classification"})


@dataclass(frozen=True, kw_only=True, slots=True)
class SharingRule:
    """A pipeline's rule, decided once when it is loaded."""

    sharing: Sharing
    #: What fills ``input_ids`` up; meaningless unless padded.
    pad_token_id: int = 0
    #: A token of which all rows must have equally many, because the model's head picks rows by it.
    counted_token_id: int | None = None
    #: Values that never reach the model; items that share a batch may differ in them.
    per_item: frozenset[str] = frozenset()
    #: Values that reach it as a list, one a row.
    listed: frozenset[str] = frozenset()

    def narrowed(self) -> SharingRule:
        """The next stricter rule: no padding; then no sharing."""
        return replace(self, sharing=Sharing.EXACT if self.sharing is Sharing.PADDED else Sharing.SOLO)


def sharing_rule(task: str, pipe: LoadedPipeline) -> SharingRule:
    """How the items of this pipeline may share a forward pass."""
    rule = TASK_RULES[task]
    own = SharingRule(sharing=rule.sharing, per_item=rule.per_item, listed=rule.listed)
    if rule.sharing is not Sharing.PADDED:
        return own
    config = pipe.model.config
    classifies = task in _CLASSIFIERS
    if classifies and _pad_of(config) is None and config.model_type not in PADDABLE_ENCODERS:
        # Without one, decoder-only classifiers refuse two rows, even of equal length.
        return replace(own, sharing=Sharing.SOLO)
    counted = config.eos_token_id if classifies and config.is_encoder_decoder else None
    if not isinstance(counted, int):
        counted = None
    if not _may_pad(rule, pipe, classifies=classifies, counted=counted):
        return replace(own, sharing=Sharing.EXACT, counted_token_id=counted)
    return replace(own, pad_token_id=pipe.tokenizer.pad_token_id, counted_token_id=counted)


def _may_pad(rule: TaskRule, pipe: LoadedPipeline, *, classifies: bool, counted: int | None) -> bool:
    tokenizer, config = pipe.tokenizer, pipe.model.config
    pad = tokenizer.pad_token_id
    if config.model_type not in (PADDABLE_WRITERS if rule.generates else PADDABLE_ENCODERS | PADDABLE_DECODERS):
        return False
    if pad is None or tokenizer.padding_side != "right" or pad == counted:
        return False
    if _turns_by_length(config):
        return False
    if pad >= pipe.model.get_input_embeddings().weight.shape[0]:  # It was added, but the model not resized.
        return False
    return not classifies or config.model_type in PADDABLE_ENCODERS or _pad_of(config) == pad


def _turns_by_length(config: Any) -> bool:
    """Whether rotary positions turn by angles that depend on the longest row of a batch."""
    settings = getattr(config, "rope_parameters", None) or {}
    kinds = [each.get("rope_type") for each in (settings, *settings.values()) if isinstance(each, Mapping)]
    return not _BY_LENGTH.isdisjoint(kinds)


def _pad_of(config: Any) -> int | None:
    pad: int | None = getattr(config.get_text_config(), "pad_token_id", None)
    return pad


def group_key(inputs: Mapping[str, Any], forward: Mapping[str, Any], rule: SharingRule) -> Hashable | None:
    """The key of an item's model inputs: items with equal keys may share a forward pass, ``None`` shares with none."""
    if rule.sharing is Sharing.SOLO:
        return None
    padded = rule.sharing is Sharing.PADDED and "attention_mask" in inputs
    free = rule.per_item | rule.listed
    parts: list[Hashable] = []
    try:
        parts += [
            name if name in free else (name, _signature(name, inputs[name], padded=padded)) for name in sorted(inputs)
        ]
        if rule.counted_token_id is not None:
            parts.append(int((inputs["input_ids"] == rule.counted_token_id).sum()))
        if forward:
            parts.append(_frozen(forward))
    except _Unshareable:
        return None
    return tuple(parts)


class _Unshareable(Exception):
    pass


def _signature(name: str, value: Any, *, padded: bool) -> Hashable:
    if not isinstance(value, torch.Tensor):
        return _frozen(value)
    if value.shape[:1] != (1,):
        raise _Unshareable
    if padded and name in TOKEN_TENSORS and value.dim() == 2:  # noqa: PLR2004 - of the shape [1, tokens]
        return value.dtype
    return (value.dtype, tuple(value.shape))


def _frozen(value: Any) -> Hashable:
    """A hashable that is equal for equal values only."""
    if isinstance(value, Mapping):
        return tuple((key, _frozen(value[key])) for key in sorted(value))
    if isinstance(value, list | tuple):
        return (type(value), tuple(_frozen(element) for element in value))
    if value is None or isinstance(value, str | bytes | int | float | bool | enum.Enum | type):
        return (type(value), value)  # The type too: True equals 1, and 1 equals 1.0.
    if isinstance(value, torch.Tensor):  # The labels of a zero-shot task, tokenized: their contents count.
        contents = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        return (value.dtype, tuple(value.shape), hashlib.sha256(contents).digest())
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return (value.dtype.str, value.shape, hashlib.sha256(value.tobytes()).digest())
    raise _Unshareable
