"""What transformers does anew for every job and every token, done once: its answers stay what they are."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from typing import Any, Final, cast

import numpy as np
import torch
from transformers import BatchEncoding, PreTrainedTokenizerFast
from transformers.tokenization_utils_base import TruncationStrategy
from transformers.utils.generic import PaddingStrategy


class Remembered:
    """An object's attributes, each asked for once.

    A model's configuration looks through its layers' own for every name: 7 µs for the label of one token.
    """

    def __init__(self, of: Any) -> None:
        self.__dict__["_of"] = of

    def __getattr__(self, name: str) -> Any:
        value = self.__dict__[name] = getattr(self.__dict__["_of"], name)
        return value


def reading(model: Any) -> Any:
    """The same model for those who only read its configuration."""
    if not isinstance(model, torch.nn.Module):
        return model
    shared: Any = copy.copy(model)
    shared.config = Remembered(model.config)
    return shared


#: What a tokenizer may be asked for beside a lone text's numbers, all of which its own ``_convert_encoding`` takes.
_RETURNED: Final = (
    "return_token_type_ids",
    "return_attention_mask",
    "return_special_tokens_mask",
    "return_offsets_mapping",
    "return_length",
)
#: What it is told by the call itself; anything else that is set makes the text one for transformers' own way.
_TOLD: Final = frozenset(
    {
        *_RETURNED,
        "add_special_tokens",
        "max_length",
        "pad_to_multiple_of",
        "padding_side",
        "padding_strategy",
        "split_special_tokens",
        "stride",
        "truncation_strategy",
        "verbose",
    }
)
#: How a pipeline calls its tokenizer where a job says nothing of it.
_NO_OPTIONS: Final = {"return_tensors": "pt"}
#: What a tokenizer of several languages does before each text.
_SWITCH: Final = "_switch_to_input_mode"


class _LoneText:
    """Mixed in front of a fast tokenizer's class: encodes one text without the way that many together take.

    transformers makes a batch of it, takes that apart again, and walks through all numbers, in Python, only to learn
    whether there are any: 196 µs for a sentence of 12 tokens, 122 so, of which the encoding is 43 (Zen 3). Without
    options there is nothing to resolve, either: some 20 less.
    """

    # What the class has that it is mixed into.
    split_special_tokens: bool
    set_truncation_and_padding: Any
    _tokenizer: Any
    _convert_encoding: Any
    _eventual_warn_about_too_long_sequence: Any

    def __call__(self, text: Any = None, *others: Any, **options: Any) -> Any:
        if isinstance(text, str) and not others and options == _NO_OPTIONS and not hasattr(type(self), _SWITCH):
            return self._encode_plus(text, **options)
        plain: Any = super().__call__  # type: ignore[misc]  # the class it is mixed into has it
        return plain(text, *others, **options)

    def _encode_plus(self, text: Any, text_pair: Any = None, return_tensors: Any = None, **options: Any) -> Any:
        if return_tensors != "pt" or not isinstance(text, str) or not _is_plain(text_pair, options):
            plain: Any = super()._encode_plus  # type: ignore[misc]  # the class it is mixed into has it
            return plain(text, text_pair, return_tensors=return_tensors, **options)
        self.set_truncation_and_padding(
            padding_strategy=options.get("padding_strategy", PaddingStrategy.DO_NOT_PAD),
            truncation_strategy=options.get("truncation_strategy", TruncationStrategy.DO_NOT_TRUNCATE),
            max_length=options.get("max_length"),
            stride=options.get("stride", 0),
            pad_to_multiple_of=options.get("pad_to_multiple_of"),
            padding_side=options.get("padding_side"),
        )
        given = options.get("split_special_tokens")
        splits = self.split_special_tokens if given is None else given
        if self._tokenizer.encode_special_tokens != splits:
            self._tokenizer.encode_special_tokens = splits
        encoded = self._tokenizer.encode(
            text, text_pair or None, add_special_tokens=options.get("add_special_tokens", True)
        )
        numbers, encodings = self._convert_encoding(encoded, **{name: options.get(name) for name in _RETURNED})
        self._eventual_warn_about_too_long_sequence(
            encoded.ids, options.get("max_length"), options.get("verbose", True)
        )
        tensors = {name: torch.from_numpy(np.array(each, np.int64)) for name, each in numbers.items()}
        return BatchEncoding(tensors, encodings)


def _is_plain(text_pair: Any, options: Mapping[str, Any]) -> bool:
    """Whether a text stands alone or beside another, and nothing is asked for that isn't known here."""
    if text_pair is not None and not isinstance(text_pair, str):
        return False
    return not any(value for name, value in options.items() if name not in _TOLD)


def quicken(tokenizer: Any) -> None:
    """Let a tokenizer make its tensors faster, if it is of the kind that all of the fast ones are."""
    kind, common = cast("Any", type(tokenizer)), cast("Any", PreTrainedTokenizerFast)
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        return
    if kind.__call__ is common.__call__ and kind._encode_plus is common._encode_plus:  # noqa: SLF001 - there is no public way
        tokenizer.__class__ = _lone_text_class(kind)


@functools.cache
def _lone_text_class(kind: type[Any]) -> type[Any]:
    return type(kind.__name__, (_LoneText, kind), {"__module__": kind.__module__})
