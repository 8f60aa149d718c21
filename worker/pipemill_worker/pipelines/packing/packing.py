"""A model whose passes run without padding, and whether it can be one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from pipemill_worker.pipelines.packing import attention
from pipemill_worker.pipelines.packing.firsts import hook_last
from pipemill_worker.pipelines.packing.rows import current, rows_to_pack
from pipemill_worker.pipelines.packing.stacks import STACKS
from pipemill_worker.pipelines.settings import LoadedPipeline

#: The name under which transformers knows the attention.
NAME: Final = "pipemill_packed"

#: What may be asked for beside the last layer's output; it would come out packed.
_ASKED: Final = ("output_attentions", "output_hidden_states")


def can_pack(task: str, pipe: LoadedPipeline) -> bool:
    """Whether the pipeline's model is one whose layers can be packed, for a task and on a device where that pays.

    ``fill-mask`` has much of its work behind the layers, for each place of the vocabulary, padding included.
    """
    config = pipe.model.config
    stack = STACKS.get(config.model_type)
    if stack is None or task == "fill-mask" or getattr(config, "is_decoder", False):
        return False
    if config._attn_implementation != stack.attention:  # noqa: SLF001 - there is no public way
        return False
    if len({*(getattr(pipe.model, "hf_device_map", None) or {}).values()}) > 1:  # Its rows are known on one device.
        return False
    on_cpu: bool = pipe.device.type == "cpu"
    if stack.adapt is not None:
        return on_cpu
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return attention.kernel_for(pipe.device, pipe.model.dtype, head_size) is not None


class Packing:
    """A model's encoder, packed from now on until ``undo``.

    Where nothing but each row's first token is read of the last layer (a classification), the layer computes nothing of
    the others; not with ``every_token``. Up to ``most_filled`` tokens, fillers round a pass to one of a few sizes.
    """

    def __init__(self, model: Any, *, every_token: bool = False, most_filled: int = 0) -> None:
        base = model.base_model
        stack = STACKS[model.config.model_type]
        first, last = stack.ends(base)
        reading = None if every_token else stack.last_read(model)
        begin = partial(_begin, first_only=reading is not None, most_filled=most_filled)
        self._undo = [
            base.register_forward_pre_hook(begin, with_kwargs=True).remove,
            first.register_forward_pre_hook(_pack, with_kwargs=True).remove,
            last.register_forward_hook(_unpack).remove,
            base.register_forward_hook(_end, always_call=True).remove,
        ]
        rotary = getattr(base, stack.rotary, None) if stack.rotary else None
        if rotary is not None:
            self._undo.append(rotary.register_forward_hook(_pack_positions).remove)
        if reading is not None:
            self._undo += hook_last(reading, stack)
        self._undo.append((stack.adapt or _replace_attention)(model))

    def undo(self) -> None:
        """Leave the model as it was."""
        for undo in self._undo:
            undo()


def _replace_attention(model: Any) -> Callable[[], None]:
    """Let a model call our attention; call what is returned to undo it."""
    AttentionInterface.register(NAME, attention.attend)
    AttentionMaskInterface.register(NAME, attention.mask)
    before = model.config._attn_implementation  # noqa: SLF001 - there is no public way
    model.set_attn_implementation(NAME)
    return partial(model.set_attn_implementation, before)


def _begin(base: Any, _: Any, named: Mapping[str, Any], *, first_only: bool, most_filled: int) -> None:
    given = {name: named.get(name) for name in _ASKED}
    asked = any(getattr(base.config, name, False) if value is None else value for name, value in given.items())
    current.rows = None if asked else rows_to_pack(named.get("attention_mask"), most_filled)
    current.first_only = first_only and not asked


def _end(*_: Any) -> None:
    current.rows = current.looking = None
    current.first_only = False


def _pack(_: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The hidden states, which come first, without padding."""
    rows = current.rows
    if rows is None:
        return arguments, named
    if arguments:
        return (rows.pack(arguments[0]), *arguments[1:]), named
    return arguments, {**named, "hidden_states": rows.pack(named["hidden_states"])}


def _pack_positions(_: Any, __: Any, tables: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    rows = current.rows
    return tables if rows is None else tuple(rows.pack_positions(table) for table in tables)


def _unpack(_: Any, __: Any, outputs: Any) -> Any:
    """The hidden states, which come first, padded as they came; or each row's first token."""
    rows = current.rows
    if rows is None:
        return outputs
    unpack = _unpack_first if current.first_only else rows.unpack
    if isinstance(outputs, torch.Tensor):
        return unpack(outputs)
    if isinstance(outputs, tuple):
        return (unpack(outputs[0]), *outputs[1:])
    outputs["last_hidden_state"] = unpack(outputs["last_hidden_state"])
    return outputs


def _unpack_first(packed: torch.Tensor) -> torch.Tensor:
    """``[1, rows, …]`` to ``[rows, 1, …]``."""
    return packed.transpose(0, 1)
