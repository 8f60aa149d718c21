"""Encoders without padding: the rows of a batch are laid end to end, and each attends to itself only.

A batch of mixed lengths is mostly padding: on a CPU, 32 rows in order of arrival took 2.6 times as long as one by one.
Here the layers of the encoder see only real tokens, ``[1, tokens, size]``; embeddings before them and heads behind them
stay as they are, ``[rows, longest, size]``. It goes through transformers' attention interface, so that the layers' own
code runs.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from pipemill_worker.pipelines.settings import LoadedPipeline

#: By model type, the module that holds the layers. All have absolute positions, which are added before it.
STACKS: Final[Mapping[str, str]] = {
    "bert": "encoder",
    "camembert": "encoder",
    "distilbert": "transformer",
    "electra": "encoder",
    "ernie": "encoder",
    "roberta": "encoder",
    "xlm-roberta": "encoder",
}

#: The name under which transformers knows the attention.
_NAME: Final = "pipemill_packed"


class _Packed(threading.local):
    """What the pass that this thread runs has packed."""

    def __init__(self) -> None:
        #: Where each row begins among all tokens, and where the last one ends; ``None`` outside of a packed pass.
        self.bounds: Sequence[int] | None = None
        #: The pass's mask, [rows, tokens], as the model got it.
        self.mask: torch.Tensor | None = None


_packed: Final = _Packed()


def _attend(  # noqa: PLR0913, PLR0917 - transformers' signature
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of each row to itself; without a packed pass, torch's own as transformers calls it."""
    bounds = _packed.bounds
    if bounds is None:
        plain: Any = sdpa_attention_forward  # Its hints don't fit its callers.
        return plain(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options)  # type: ignore[no-any-return]  # as above
    rows = [
        scaled_dot_product_attention(
            query[:, :, start:end], key[:, :, start:end], value[:, :, start:end], scale=scaling
        )
        for start, end in pairwise(bounds)
    ]
    return torch.cat(rows, dim=2).transpose(1, 2).contiguous(), None


def _mask(*arguments: Any, **options: Any) -> Any:
    """No mask for a pass that will be packed; else transformers' own."""
    return None if _packed.mask is not None else sdpa_mask(*arguments, **options)


def can_pack(task: str, pipe: LoadedPipeline) -> bool:
    """Whether the pipeline's model is one whose layers can be packed, for a task and on a device where that pays.

    ``fill-mask`` has much of its work behind the layers, for each place of the vocabulary, padding included.
    A GPU would be given a kernel for each row and layer; there, padding is the faster.
    """
    config = pipe.model.config
    return (
        task != "fill-mask"
        and pipe.device.type == "cpu"
        and config.model_type in STACKS
        and not getattr(config, "is_decoder", False)
        and config._attn_implementation == "sdpa"  # noqa: SLF001 - there is no public way
    )


class Packing:
    """A model's encoder, packed from now on until ``undo``."""

    def __init__(self, model: Any) -> None:
        AttentionInterface.register(_NAME, _attend)
        AttentionMaskInterface.register(_NAME, _mask)
        self._model = model
        self._stack = getattr(model.base_model, STACKS[model.config.model_type])
        self._layers = self._stack.forward
        self._before = model.config._attn_implementation  # noqa: SLF001 - there is no public way
        model.set_attn_implementation(_NAME)
        self._stack.forward = self._run
        self._hooks = [
            model.base_model.register_forward_pre_hook(self._begin, with_kwargs=True),
            model.base_model.register_forward_hook(self._end, always_call=True),
        ]

    def undo(self) -> None:
        """Leave the model as it was."""
        for hook in self._hooks:
            hook.remove()
        del self._stack.forward
        self._model.set_attn_implementation(self._before)

    @staticmethod
    def _begin(_: Any, __: Any, named: Mapping[str, Any]) -> None:
        mask = named.get("attention_mask")
        ragged = isinstance(mask, torch.Tensor) and mask.dim() == 2 and not bool(mask.all())  # noqa: PLR2004 - [rows, tokens]
        _packed.mask = mask if ragged else None

    @staticmethod
    def _end(*_: Any) -> None:
        _packed.mask = None

    def _run(self, hidden_states: torch.Tensor, attention_mask: Any = None, **options: Any) -> Any:
        """The layers, over the real tokens if the pass has others."""
        mask = _packed.mask
        if mask is None:
            return self._layers(hidden_states, attention_mask=attention_mask, **options)
        rows, length, size = hidden_states.shape
        real = mask.flatten().nonzero().squeeze(1)
        _packed.bounds = [0, *mask.sum(1).cumsum(0).tolist()]
        try:
            tokens = hidden_states.reshape(rows * length, size).index_select(0, real).unsqueeze(0)
            outputs = self._layers(tokens, attention_mask=None, **options)
        finally:
            _packed.bounds = None
        padded = hidden_states.new_zeros(rows * length, size)
        padded[real] = outputs.last_hidden_state[0]
        outputs["last_hidden_state"] = padded.view(rows, length, size)
        return outputs
