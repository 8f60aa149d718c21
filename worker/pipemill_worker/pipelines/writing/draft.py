"""What transformers' ``generate`` makes of a prompt before it writes the first token, taken from itself."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from transformers.cache_utils import DynamicLayer

#: What every pass of a prompt may be given.
_PLAIN: Final = frozenset({"attention_mask", "logits_to_keep", "past_key_values", "position_ids", "use_cache"})
#: And what only the first one reads: images that stand among the prompt's tokens.
_SEEN_FIRST: Final = frozenset({"image_sizes", "pixel_attention_mask", "pixel_values"})
#: Models that see images in their first pass, and go on from keys and values alone.
_SEEING: Final = frozenset({"idefics3", "llava", "smolvlm"})


def continues(task: str, config: Any) -> bool:
    """Whether a task's prompts may be continued together, by a model of this configuration."""
    if task == "image-text-to-text":
        return config.model_type in _SEEING
    return task == "text-generation" and not config.is_encoder_decoder


@dataclass(slots=True, eq=False)
class Draft:
    """A prompt, ready to be continued: [rows, tokens], as many rows as answers are wanted."""

    ids: torch.Tensor
    processors: Any
    criteria: Any
    config: Any
    model_kwargs: dict[str, Any]

    @property
    def most_tokens(self) -> int:
        """The most tokens that a row can have at its end, the prompt's included."""
        return int(self.config.max_length)

    @property
    def sees(self) -> bool:
        """Whether there is more to read than tokens: equal tokens then don't say that prompts are equal."""
        return not self.model_kwargs.keys() <= _PLAIN

    def may_join(self) -> bool:
        """Whether its rows can be written beside others: one token a pass, and no memory but keys and values."""
        config, given = self.config, self.model_kwargs
        cache = given.get("past_key_values")
        plain_cache = cache is not None and all(type(layer) is DynamicLayer for layer in cache.layers)
        whole = given.get("attention_mask") is None and given.keys() <= _PLAIN | _SEEN_FIRST
        silent = not config.return_dict_in_generate and not config.guidance_scale and not config.max_time
        return plain_cache and whole and silent and bool(config.use_cache) and self._counts_from_zero()

    def _counts_from_zero(self) -> bool:
        positions = self.model_kwargs.get("position_ids")
        if positions is None or positions.dim() != self.ids.dim():  # Some have places of their own for images.
            return False
        return bool(torch.equal(positions, torch.arange(self.ids.shape[1]).expand_as(positions)))


class _Drafted(Exception):
    def __init__(self, draft: Draft | None) -> None:
        super().__init__()
        self.draft = draft


class _Drafting:
    """Mixed in front of a model's class: ends ``generate`` where its loop would begin."""

    #: What the loop is to return; ``None`` while drafting.
    written: torch.Tensor | None

    def _sample(  # noqa: PLR0913, PLR0917 - transformers' signature
        self,
        input_ids: torch.Tensor,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: Any,
        synced_gpus: bool = False,  # noqa: ARG002, FBT001, FBT002 - as above
        streamer: Any = None,  # noqa: ARG002 - as above
        **model_kwargs: Any,
    ) -> torch.Tensor:
        model_kwargs.pop("tokenizer", None)  # It was for what stops at a text.
        if self.written is None:
            raise _Drafted(Draft(input_ids, logits_processor, stopping_criteria, generation_config, model_kwargs))
        return self.written

    def _supports_mm_encoder_outputs(self) -> bool:
        return False  # Images are looked at in the first pass, by the thread that owns the device.

    def _beam_search(self, *_: Any, **__: Any) -> torch.Tensor:
        raise _Drafted(None)

    _assisted_decoding = _beam_search


@functools.cache
def _drafting_class(model_class: Any) -> Any:
    return type(f"Drafting{model_class.__name__}", (_Drafting, model_class), {"forward": _signed(model_class.forward)})


def _signed(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A model's ``forward`` that knows its signature: ``generate`` asks for it seven times, a quarter of its start."""

    @functools.wraps(forward)
    def signed(*arguments: Any, **named: Any) -> Any:
        return forward(*arguments, **named)

    signed.__dict__["__signature__"] = inspect.signature(forward)
    return signed


def _class_of(model: Any) -> Any:
    return type(model)


class Drafter:
    """One thread's way through a pipeline's ``forward``, up to its model's loop and on from behind it."""

    def __init__(self, pipe: Any) -> None:
        model: Any = object.__new__(_drafting_class(_class_of(pipe.model)))
        model.__dict__.update(pipe.model.__dict__, written=None)
        model.__dict__.pop("generate", None)  # What watches each token of a pass has no part in this.
        self._model = model
        self._pipe: Any = copy.copy(pipe)
        self._pipe.model = model

    def draft(self, model_inputs: Mapping[str, Any], parameters: Mapping[str, Any]) -> Draft | None:
        """What ``generate`` would start from; ``None`` for ways to write that aren't one token after the other.

        Raises
        ------
        ValueError, TypeError
            When ``generate`` refuses the parameters.

        """
        try:
            self._pipe.forward(dict(model_inputs), **parameters)
        except _Drafted as drafted:
            return drafted.draft
        return None

    def outputs(self, model_inputs: Mapping[str, Any], parameters: Mapping[str, Any], written: torch.Tensor) -> Any:
        """What the pipeline's ``forward`` gives when its model writes these rows: [rows, tokens]."""
        self._model.__dict__["written"] = written
        try:
            return self._pipe.forward(dict(model_inputs), **parameters)
        finally:
            self._model.__dict__["written"] = None
