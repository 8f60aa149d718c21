"""What transformers does anew for every job and every token, done once: its answers stay what they are."""

from __future__ import annotations

import copy
import functools
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast


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


class _LoneText:
    """Mixed in front of a fast tokenizer's class: makes tensors of one text's numbers without looking at each.

    transformers walks through all of them, in Python, only to learn whether there are any.
    """

    def _encode_plus(self, text: Any, *others: Any, return_tensors: Any = None, **options: Any) -> Any:
        plain: Any = super()._encode_plus  # type: ignore[misc]  # the class it is mixed into has it
        if return_tensors != "pt" or not isinstance(text, str) or options.get("return_overflowing_tokens"):
            return plain(text, *others, return_tensors=return_tensors, **options)
        encoding = plain(text, *others, **options)
        for name, numbers in encoding.items():
            encoding[name] = torch.from_numpy(np.array([numbers], np.int64))
        return encoding


def quicken(tokenizer: Any) -> None:
    """Let a tokenizer make its tensors faster, if it is of the kind that all of the fast ones are."""
    kind: Any = type(tokenizer)
    if isinstance(tokenizer, PreTrainedTokenizerFast) and kind._encode_plus is PreTrainedTokenizerFast._encode_plus:  # noqa: SLF001 - there is no public way
        tokenizer.__class__ = _lone_text_class(kind)


@functools.cache
def _lone_text_class(kind: type[Any]) -> type[Any]:
    return type(kind.__name__, (_LoneText, kind), {"__module__": kind.__module__})
