"""Texts from encoder-decoder models: equal to ``generate`` and ``decode`` by hand, shaped as transformers 4 did."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from tokenizers import decoders

from tests.unit.pipelines.own.models import own_pipeline, together, writer

TEXTS = ["river stone cloud", "winter", "music garden letter window bridge market silver forest"]

GREEDY: dict[str, Any] = {"num_beams": 1, "do_sample": False, "max_new_tokens": 8}

#: What T5's configuration holds: settings and prefixes by task.
BY_TASK = {
    "summarization": {"prefix": "garden ", "num_beams": 1, "max_length": 6},
    "translation_en_to_de": {"prefix": "winter ", "num_beams": 1, "max_length": 5},
    "translation_en_to_fr": {"prefix": "summer ", "num_beams": 1, "max_length": 7},
}


def by_hand(pipe: Any, text: str, **settings: Any) -> list[str]:
    """The texts that tokenizer and model give without a pipeline."""
    ids = pipe.tokenizer(text, return_tensors="pt")
    ids.pop("token_type_ids")
    with torch.no_grad():
        written = pipe.model.generate(**ids, **settings)
    return [pipe.tokenizer.decode(row, skip_special_tokens=True) for row in written]


@pytest.mark.parametrize(
    ("task", "key"),
    [
        ("summarization", "summary_text"),
        ("translation", "translation_text"),
        ("text2text-generation", "generated_text"),
    ],
)
def test_answers_have_the_shapes_of_transformers_4(task: str, key: str) -> None:
    """A text gives a list of one dict; a list one dict a text; several sequences a list of dicts a text."""
    pipe = writer(task)
    (first,) = by_hand(pipe, TEXTS[0], **GREEDY)
    assert pipe(TEXTS[0], **GREEDY) == [{key: first}]
    assert pipe(TEXTS, **GREEDY) == [{key: by_hand(pipe, text, **GREEDY)[0]} for text in TEXTS]
    several = {"num_beams": 3, "num_return_sequences": 2, "max_new_tokens": 5}
    assert pipe(TEXTS, **several) == [[{key: each} for each in by_hand(pipe, text, **several)] for text in TEXTS]


def test_four_beams_and_256_tokens_are_the_default() -> None:
    """Where neither caller nor model says otherwise, the settings are those of transformers 4's last release."""
    settings = writer()._prepare_generate_kwargs({})
    assert (settings["num_beams"], settings["max_new_tokens"]) == (4, 256)


@pytest.mark.parametrize("settings", [GREEDY, {"num_beams": 3, "max_new_tokens": 8}])
def test_rows_of_a_batch_are_those_of_single_runs(settings: dict[str, Any]) -> None:
    """Padding the inputs to a common length changes no text."""
    pipe = writer()
    items = [pipe.preprocess(text) for text in TEXTS]
    answers = [pipe.postprocess(outputs) for outputs in together(pipe, items, **settings)]
    assert answers == [pipe(text, **settings) for text in TEXTS]


def test_a_task_s_own_settings_hold() -> None:
    """The configuration's prefix and settings for the task are used, and give way to the caller's."""
    pipe = writer("summarization", task_specific_params=BY_TASK)
    expected = by_hand(pipe, f"garden {TEXTS[0]}", num_beams=1, max_length=6)
    assert pipe(TEXTS[0]) == [{"summary_text": expected[0]}]
    longer = by_hand(pipe, f"garden {TEXTS[0]}", num_beams=1, max_new_tokens=9)
    assert pipe(TEXTS[0], max_new_tokens=9) == [{"summary_text": longer[0]}]
    assert "max_length" not in pipe._prepare_generate_kwargs({"max_new_tokens": 9})


def test_settings_given_when_built_hold() -> None:
    """What the builder sets is beneath the caller's settings and above the model's for the task."""
    pipe = writer("summarization", task_specific_params=BY_TASK)
    pipe = type(pipe)(model=pipe.model, tokenizer=pipe.tokenizer, task="summarization", device="cpu", num_beams=2)
    assert pipe._prepare_generate_kwargs({})["num_beams"] == 2
    assert pipe._prepare_generate_kwargs({"num_beams": 3})["num_beams"] == 3


def test_the_configuration_s_prefix_comes_before_the_text() -> None:
    """A model whose configuration names a prefix gets it before each text."""
    pipe = writer(prefix="stone ")
    assert pipe(TEXTS[0], **GREEDY) == [{"generated_text": by_hand(pipe, f"stone {TEXTS[0]}", **GREEDY)[0]}]


def test_truncation_only_when_asked_for() -> None:
    """A long text keeps its tokens, unless ``truncation`` cuts it to what the tokenizer names."""
    pipe = writer()
    pipe.tokenizer.model_max_length = 6
    text = " ".join(["river"] * 10)
    assert pipe.preprocess(text)["input_ids"].shape == (1, 12)
    assert pipe.preprocess(text, truncation=True)["input_ids"].shape == (1, 6)


def test_clean_up_is_passed_on() -> None:
    """``clean_up_tokenization_spaces`` joins punctuation with the word before it."""
    pipe = writer()
    pipe.tokenizer.backend_tokenizer.decoder = decoders.WordPiece(cleanup=False)
    ids = pipe.tokenizer("river , stone .", return_tensors="pt")["input_ids"]
    outputs = {"output_ids": ids.unsqueeze(0)}
    assert pipe.postprocess(outputs) == [{"generated_text": "river , stone ."}]
    assert pipe.postprocess(outputs, clean_up_tokenization_spaces=True) == [{"generated_text": "river, stone."}]


def test_stop_strings_end_the_text() -> None:
    """``stop_strings`` reach ``generate`` together with the tokenizer that it needs for them."""
    pipe = writer()
    free = by_hand(pipe, TEXTS[2], **GREEDY)[0]
    word = free.split()[0]
    stopped = pipe(TEXTS[2], stop_strings=[word], **GREEDY)[0]["generated_text"]
    assert len(stopped) < len(free)
    assert word in stopped


def test_what_is_no_text_is_refused() -> None:
    """A number where a text belongs is the caller's mistake."""
    with pytest.raises(ValueError, match="give a text"):
        writer()(7)


def test_pairs_of_languages_choose_prefix_and_settings() -> None:
    """T5's configuration has settings for each pair; ``src_lang`` and ``tgt_lang`` find them."""
    pipe = writer("translation", task_specific_params=BY_TASK)
    expected = by_hand(pipe, f"winter {TEXTS[0]}", num_beams=1, max_length=5)
    assert pipe(TEXTS[0], src_lang="en", tgt_lang="de") == [{"translation_text": expected[0]}]
    plain = by_hand(pipe, TEXTS[0], **GREEDY)
    assert pipe(TEXTS[0], **GREEDY) == [{"translation_text": plain[0]}]
    with pytest.raises(ValueError, match="translation_en_to_fr"):
        pipe(TEXTS[0], src_lang="en", tgt_lang="xx")


def test_models_of_one_pair_ignore_languages() -> None:
    """A model without languages (Marian) translates as ever."""
    pipe = writer("translation")
    assert pipe(TEXTS[0], src_lang="en", tgt_lang="de", **GREEDY) == pipe(TEXTS[0], **GREEDY)


def mbart_tokenizer() -> Any:
    """The tokenizer of mBART with a handful of words."""
    words = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁river", -1.0), ("▁stone", -1.0)]
    kind: Any = transformers.MBartTokenizer
    return kind(vocab=[*words, ("▁", -3.0), *((letter, -5.0) for letter in "abcdefghijklmnopqrstuvwxyz")])


def test_multilingual_models_mark_the_languages() -> None:
    """The source's mark is in mBART's input, and the target's is written first."""
    pipe = own_pipeline("translation", "mbart", mbart_tokenizer())
    languages = {"src_lang": "en_XX", "tgt_lang": "de_DE"}
    german, english = pipe.tokenizer.convert_tokens_to_ids(["de_DE", "en_XX"])
    inputs = pipe.preprocess("river stone", **languages)
    assert inputs["input_ids"][0, -1] == english
    assert pipe.forward(dict(inputs), **GREEDY)["output_ids"][0, 0, 1] == german
    (answer,) = pipe(["river stone"], **languages, **GREEDY)
    assert list(answer) == ["translation_text"]


@pytest.mark.parametrize("languages", [{}, {"src_lang": "en_XX"}, {"src_lang": "en_XX", "tgt_lang": "a"}])
def test_multilingual_models_need_languages_they_know(languages: dict[str, str]) -> None:
    """Without both languages, or with an unknown one, the model would write nonsense: it is refused."""
    pipe = own_pipeline("translation", "mbart", mbart_tokenizer())
    with pytest.raises(ValueError, match=r"src_lang and tgt_lang|no language 'a'"):
        pipe("river", **languages)
