"""What is done once instead of for every job: the same answers, without the work."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers import BatchEncoding

from pipemill_worker.pipelines.shortcuts import Remembered, quicken, reading
from tests.unit.pipelines.tiny import tiny_pipeline


class Counting:
    """Counts how often it is asked."""

    asked = 0

    @property
    def labels(self) -> list[str]:
        self.asked += 1
        return ["good"]


def test_what_was_asked_is_remembered() -> None:
    """A second answer is the first one; what isn't there isn't."""
    of = Counting()
    remembered = Remembered(of)
    assert remembered.labels is remembered.labels
    assert of.asked == 1
    with pytest.raises(AttributeError, match="problem_type"):
        _ = remembered.problem_type


def test_a_model_is_read_without_its_own_lookups() -> None:
    """It is of its class, has its weights, and its configuration says the same; the model itself stays as it is."""
    model = tiny_pipeline("text-classification").model
    config = model.config
    read = reading(model)
    assert type(read) is type(model)
    assert read.classifier is model.classifier
    assert read.config.id2label == config.id2label
    assert isinstance(read.config, Remembered)
    assert model.config is config
    assert reading(None) is None


@pytest.fixture(scope="module")
def tokenizers() -> tuple[Any, Any]:
    """A fast tokenizer, and a quickened one."""
    plain: Any = tiny_pipeline("text-classification").tokenizer
    quick = copy.deepcopy(plain)
    quicken(quick)
    return plain, quick


@pytest.mark.parametrize(
    ("texts", "options"),
    [
        (("a good day",), {}),
        (("a good day", "and a night"), {"return_offsets_mapping": True, "return_special_tokens_mask": True}),
        (("",), {"add_special_tokens": False}),
        (("a [MASK] day", ""), {"split_special_tokens": True, "return_length": True}),
        (("a [MASK] day",), {"split_special_tokens": False, "return_token_type_ids": False}),
        ((["a", "good", "day"],), {"is_split_into_words": True}),
        (("a good day " * 9,), {"truncation": True, "max_length": 8}),
        (("a good day " * 9,), {"truncation": True, "max_length": 8, "return_overflowing_tokens": True}),
        (("a good day",), {"padding": "max_length", "max_length": 30}),
        ((["a good day", "a good night"],), {"padding": True}),
        ((["a good day"],), {}),
    ],
    ids=[
        "text",
        "pair",
        "empty",
        "split",
        "whole",
        "words",
        "cut",
        "overflowing",
        "padded",
        "several",
        "one in a list",
    ],
)
def test_a_quick_tokenizer_gives_the_same(tokenizers: tuple[Any, Any], texts: Any, options: dict[str, Any]) -> None:
    """The same names, numbers, types and shapes, from one text, a pair and several."""
    plain, quick = (each(*texts, return_tensors="pt", **options) for each in tokenizers)
    assert isinstance(quick, BatchEncoding)
    assert list(plain) == list(quick)
    for name, numbers in plain.items():
        assert numbers.dtype is quick[name].dtype is torch.int64
        assert torch.equal(numbers, quick[name])
    assert quick.encodings is not None


def test_a_tokenizer_of_several_languages_is_told_which_before_each_text(tokenizers: tuple[Any, Any]) -> None:
    """What a tokenizer does before a text, it does before a text without options, too."""
    plain = copy.deepcopy(tokenizers[0])
    kind, told = type(plain), []

    class Told(kind):  # type: ignore[misc, valid-type]  # a class that only a run knows
        def _switch_to_input_mode(self) -> None:
            told.append(True)

    plain.__class__ = Told
    quicken(plain)
    plain("a good day", return_tensors="pt")
    assert told == [True]


def test_without_tensors_nothing_changes(tokenizers: tuple[Any, Any]) -> None:
    """Plain lists stay plain lists."""
    plain, quick = (each("a good day") for each in tokenizers)
    assert plain == quick


@pytest.mark.parametrize("own_way", ["__call__", "_encode_plus"])
def test_a_tokenizer_of_its_own_kind_stays_as_it_is(own_way: str) -> None:
    """One that encodes otherwise is left alone; a quickened one is still of its kind, and so called."""
    plain: Any = tiny_pipeline("text-classification").tokenizer
    kind = type(plain)

    own = copy.deepcopy(plain)
    own.__class__ = kind_of_its_own = type("Own", (kind,), {own_way: lambda *texts, **options: (texts, options)})
    quicken(own)
    assert type(own) is kind_of_its_own
    quicken(plain)
    assert type(plain) is not kind
    assert isinstance(plain, kind)
    assert type(plain).__name__ == kind.__name__
    quicken(None)
