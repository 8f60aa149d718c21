"""A prompt as ``generate`` would begin to continue it, and which prompts may be continued together."""

from __future__ import annotations

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
#: Models that hear a sound once, and write what they heard.
_HEARING: Final = frozenset({"whisper"})
#: What of a draft's processors keeps something that is asked for afterwards.
_REMEMBERING: Final = frozenset({"WhisperNoSpeechDetection"})
#: Tasks of encoder-decoders that read a text and write one.
READING: Final = frozenset({"summarization", "text2text-generation", "translation"})


def continues(task: str, config: Any) -> bool:
    """Whether a task's prompts may be continued together, by a model of this configuration."""
    if task == "automatic-speech-recognition":
        return config.model_type in _HEARING
    if task in READING:
        return bool(config.is_encoder_decoder)
    if task == "image-text-to-text":
        return config.model_type in _SEEING
    return task == "text-generation" and not config.is_encoder_decoder


class Source(dict[str, Any]):
    """What an encoder is to read, by its inputs' names. In a draft it stands for what the encoder makes of it."""


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
    #: Tokens of what it makes of that.
    source_tokens: int = 0
    #: What it made of it, if that is known already.
    encoded: Any = None

    @property
    def rows(self) -> int:
        """Rows that are written."""
        return int(self.ids.shape[0])

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
        forgets = not any(type(each).__name__ in _REMEMBERING for each in self.processors)
        # Whisper's generate has rows of its own making for several answers, and masks tokens of windows before.
        alike = self.rows == max(self.beams, config.num_return_sequences or 1)
        alike = alike and not getattr(config, "condition_on_prev_tokens", False)
        whole = self._begins_plainly() if self.source is None else given.keys() <= _DECODING and self.source_tokens > 0
        return plain_cache and silent and searches and forgets and alike and bool(config.use_cache) and whole

    def release(self) -> None:
        """Let go of what only the first pass needs."""
        self.model_kwargs, self.source, self.encoded = {}, None, None

    def _begins_plainly(self) -> bool:
        given = self.model_kwargs
        return given.get("attention_mask") is None and given.keys() <= _PLAIN | _SEEN_FIRST and self._counts_from_zero()

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
