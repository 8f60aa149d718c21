"""What transformers' ``generate`` makes of a prompt before it writes the first token, taken from itself."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from transformers.cache_utils import DynamicLayer, EncoderDecoderCache

#: What every pass of a prompt may be given.
_PLAIN: Final = frozenset({"attention_mask", "logits_to_keep", "past_key_values", "position_ids", "use_cache"})
#: And what only the first one reads: images that stand among the prompt's tokens.
_SEEN_FIRST: Final = frozenset({"image_sizes", "pixel_attention_mask", "pixel_values"})
#: What passes of an encoder-decoder's decoder may be given.
_DECODING: Final = frozenset({"attention_mask", "encoder_outputs", "logits_to_keep", "past_key_values", "use_cache"})
#: Models that see images in their first pass, and go on from keys and values alone.
_SEEING: Final = frozenset({"idefics3", "llava", "smolvlm"})


#: Tasks of encoder-decoders that read a text and write one.
_READING: Final = frozenset({"summarization", "text2text-generation", "translation"})


def continues(task: str, config: Any) -> bool:
    """Whether a task's prompts may be continued together, by a model of this configuration."""
    if task in _READING:
        return bool(config.is_encoder_decoder)
    if task == "image-text-to-text":
        return config.model_type in _SEEING
    return task == "text-generation" and not config.is_encoder_decoder


class Source(dict[str, Any]):
    """What an encoder is to read, by its inputs' names. In a draft it stands for what the encoder makes of it."""

    @property
    def tokens(self) -> int:
        """How many there are; 0 if it isn't a text."""
        ids = self.get("input_ids")
        return 0 if ids is None else int(ids.shape[1])


@dataclass(slots=True, eq=False)
class Draft:
    """A prompt, ready to be continued: [rows, tokens], a row for each answer that is wanted, or for each beam.

    An encoder-decoder's prompt is what its decoder begins with, and its ``source`` what the encoder reads.
    """

    ids: torch.Tensor
    processors: Any
    criteria: Any
    config: Any
    model_kwargs: dict[str, Any]
    #: What an encoder is to read; ``None`` for models without one.
    source: Source | None = None
    #: Tokens of what it reads.
    source_tokens: int = 0

    @property
    def most_tokens(self) -> int:
        """The most tokens that a row can have at its end, the prompt's included."""
        return int(self.config.max_length)

    @property
    def beams(self) -> int:
        """How many beams are searched; 1 is none."""
        return int(self.config.num_beams)

    @property
    def sees(self) -> bool:
        """Whether there is more to read than tokens: equal tokens then don't say that prompts are equal."""
        return self.source is None and not self.model_kwargs.keys() <= _PLAIN

    def may_join(self) -> bool:
        """Whether its rows can be written beside others: one token a pass, and no memory but keys and values."""
        config, given = self.config, self.model_kwargs
        layers = _layers(given.get("past_key_values"))
        plain_cache = layers is not None and all(type(layer) is DynamicLayer for layer in layers)
        silent = not config.return_dict_in_generate and not config.guidance_scale and not config.max_time
        searches = self.beams == 1 or not (config.do_sample or config.low_memory)  # Beams draw from torch's own chance.
        whole = self._begins_plainly() if self.source is None else self._reads_plainly(self.source)
        return plain_cache and silent and searches and bool(config.use_cache) and whole

    def release(self) -> None:
        """Let go of what only the first pass needs."""
        self.model_kwargs, self.source = {}, None

    def _begins_plainly(self) -> bool:
        given = self.model_kwargs
        return given.get("attention_mask") is None and given.keys() <= _PLAIN | _SEEN_FIRST and self._counts_from_zero()

    def _reads_plainly(self, source: Source) -> bool:
        return self.model_kwargs.keys() <= _DECODING and source.tokens > 0

    def _counts_from_zero(self) -> bool:
        positions = self.model_kwargs.get("position_ids")
        if positions is None or positions.dim() != self.ids.dim():  # Some have places of their own for images.
            return False
        return bool(torch.equal(positions, torch.arange(self.ids.shape[1]).expand_as(positions)))


def _layers(cache: Any) -> list[Any] | None:
    """A cache's layers, an encoder-decoder's of both kinds; ``None`` for what is none."""
    if isinstance(cache, EncoderDecoderCache):
        return [*cache.self_attention_cache.layers, *cache.cross_attention_cache.layers]
    return None if cache is None else list(cache.layers)


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
            draft = Draft(input_ids, logits_processor, stopping_criteria, generation_config, model_kwargs)
            if isinstance(source := model_kwargs.get("encoder_outputs"), Source):
                draft.source, draft.source_tokens = source, source.tokens
            raise _Drafted(draft)
        return self.written

    _beam_search = _sample

    def get_encoder(self, *arguments: Any, **named: Any) -> Any:
        return _Listening(super().get_encoder(*arguments, **named))  # type: ignore[misc]  # the class it is mixed into has it

    def _supports_mm_encoder_outputs(self) -> bool:
        return False  # Images are looked at in the first pass, by the thread that owns the device.

    def _assisted_decoding(self, *_: Any, **__: Any) -> torch.Tensor:
        raise _Drafted(None)


class _Listening:
    """Stands for an encoder: gives back what it is given to read, which the thread that owns the device will."""

    def __init__(self, encoder: Any) -> None:
        self._encoder = encoder

    def __call__(self, **inputs: Any) -> Source:
        return Source(inputs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)


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
