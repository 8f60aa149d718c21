"""How many tokens a model takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import transformers

from pipemill.errors import InputTooLong, InvalidInput, InvalidParameter
from pipemill_worker.pipelines.limits import MAX_ITEMS, MOST_UNTABLED, check_overlap, token_limit
from pipemill_worker.pipelines.own import OWN_PIPELINES, register
from tests.unit.pipelines.own.models import own_pipeline
from tests.unit.pipelines.tiny import byte_tokenizer, runner_of, tiny_model, tiny_pipeline, wordpiece_tokenizer


@pytest.mark.parametrize(
    ("model_type", "limit"),
    [
        ("bert", 64),
        ("distilbert", 64),
        ("electra", 64),
        ("albert", 64),
        ("roberta", 62),
        ("mpnet", 62),
        ("xlm-roberta", 62),
        ("bart", 64),
        ("roformer", 64),
        ("deberta-v2", None),
        ("modernbert", None),
    ],
)
def test_limit_of_encoders_is_what_they_run(model_type: str, limit: int | None) -> None:
    """A model runs on as many tokens as its limit says, and fails on one more; without a limit it runs on more."""
    model = tiny_model("feature-extraction", model_type, wordpiece_tokenizer(), max_position_embeddings=64)
    assert token_limit(model) == limit
    with torch.no_grad():
        model(input_ids=torch.full((1, limit or 80), 7))
        if limit is not None:
            with pytest.raises((IndexError, RuntimeError)):
                model(input_ids=torch.full((1, limit + 1), 7))


@pytest.mark.parametrize(
    ("model_type", "limit"), [("gpt2", 64), ("gpt_neo", 64), ("opt", 64), ("llama", None), ("gpt_neox", None)]
)
def test_limit_of_decoders_is_what_they_run(model_type: str, limit: int | None) -> None:
    """As above for decoders; rotary positions have no end."""
    model = tiny_model("text-generation", model_type, byte_tokenizer(), max_position_embeddings=64)
    assert token_limit(model) == limit
    with torch.no_grad():
        model(input_ids=torch.full((1, limit or 80), 7))
        if limit is not None:
            with pytest.raises((IndexError, RuntimeError)):
                model(input_ids=torch.full((1, limit + 1), 7))


def test_an_encoder_may_take_more_than_its_decoder_writes() -> None:
    """LED reads 256 tokens and writes 64: a text of 100 is summarised as by the direct call, one of 300 is refused."""
    sides: dict[str, Any] = {
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in (("layers", 1), ("attention_heads", 2), ("ffn_dim", 16))
    }
    tokenizer = byte_tokenizer(pad_token="<pad>")  # noqa: S106  # no secret
    config: Any = transformers.LEDConfig(
        vocab_size=len(tokenizer),
        d_model=16,
        max_encoder_position_embeddings=256,
        max_decoder_position_embeddings=64,
        attention_window=8,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.eos_token_id,
        **sides,
    )
    torch.manual_seed(7)
    build: Any = transformers.LEDForConditionalGeneration
    model = build(config).eval()
    register()
    pipeline: Any = transformers.pipeline
    pipe = pipeline("summarization", model=model, tokenizer=tokenizer, device="cpu")
    runner = runner_of("summarization", pipe)
    prepared = runner.prepare("river " * 17, {"max_new_tokens": 5})
    assert runner.finish(prepared, runner.forward(prepared.items)) == pipe("river " * 17, max_new_tokens=5)
    with pytest.raises(InputTooLong, match="at most 256"):
        runner.prepare("river " * 50, {"max_new_tokens": 5})
    with pytest.raises(InputTooLong, match="writes at most 64"):
        runner.prepare("river", {"max_new_tokens": 65})


def test_stride_must_leave_something_to_move_by() -> None:
    """An overlap of all of a chunk's tokens is refused; one less passes."""
    check_overlap("stride", 9, 10, 100)
    with pytest.raises(InvalidParameter, match="stride 10 is no less than the tokens of a chunk: give at most 9"):
        check_overlap("stride", 10, 10, 100)


def test_overlaps_are_bounded_before_a_tokenizer_makes_the_chunks() -> None:
    """So much overlap that a text would be cut into more parts than a job may have is refused unmade."""
    check_overlap("stride", 7, 10, 2 * MAX_ITEMS)
    with pytest.raises(InvalidParameter, match="give at most 7, or split the text"):
        check_overlap("stride", 8, 10, 2 * MAX_ITEMS)
    with pytest.raises(InvalidParameter, match="parts: split the text"):
        check_overlap("stride", 0, 10, 100 * MAX_ITEMS)


@pytest.mark.parametrize(
    ("task", "inputs", "parameters"),
    [
        ("token-classification", "r " * 50_000, {"stride": 500, "aggregation_strategy": "simple"}),
        (
            "token-classification",
            ["r" * 9] * 11_000,
            {"stride": 500, "aggregation_strategy": "simple", "is_split_into_words": True},
        ),
        ("question-answering", {"question": "river", "context": "r " * 50_000}, {"doc_stride": 375}),
    ],
)
def test_chunks_of_a_long_text_are_bounded(task: str, inputs: Any, parameters: dict[str, Any]) -> None:
    """A long text with much overlap ends as the job's own error, not as gigabytes of chunks."""
    build = own_pipeline if task in OWN_PIPELINES else tiny_pipeline
    runner = runner_of(task, build(task))
    with pytest.raises(InvalidParameter, match="too many overlapping parts"):
        runner.prepare(inputs, parameters)


def test_chunks_are_drawn_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job of too many or too large items is refused at the one too many; the rest is never made."""
    pipe = tiny_pipeline("zero-shot-classification")
    runner = runner_of("zero-shot-classification", pipe)
    drawn = []

    def preprocess(*_: Any, **__: Any) -> Iterator[dict[str, Any]]:
        for number in range(10**6):
            drawn.append(number)
            yield {"input_ids": torch.ones(1, 3, dtype=torch.long), "is_last": False}

    monkeypatch.setattr(type(pipe), "preprocess", preprocess)
    with pytest.raises(InvalidInput, match="over 4096 forward passes"):
        runner.prepare("river", {"candidate_labels": ["a"]})
    assert len(drawn) == MAX_ITEMS + 1
    monkeypatch.setattr("pipemill_worker.pipelines.limits.MAX_JOB_BYTES", 100)
    with pytest.raises(InvalidInput, match="over 100 bytes"):
        runner.prepare("river", {"candidate_labels": ["a"]})


def test_positions_without_an_end_are_bounded_all_the_same() -> None:
    """A rotary model takes more tokens than it was made for, but not any number: time and memory go by their square."""
    pipe = tiny_pipeline("text-generation", "llama", byte_tokenizer())
    runner = runner_of("text-generation", pipe)
    assert runner.prepare("r" * MOST_UNTABLED, {"max_new_tokens": 1}).items
    with pytest.raises(InputTooLong, match=f"has {MOST_UNTABLED + 1} tokens, the model takes at most {MOST_UNTABLED}"):
        runner.prepare("r" * (MOST_UNTABLED + 1), {"max_new_tokens": 1})


def test_a_max_length_within_the_prompt_is_told() -> None:
    """A bound that counts the prompt in and leaves nothing for the answer is the job's own error."""
    runner = runner_of("text-generation", tiny_pipeline("text-generation", "gpt2", byte_tokenizer()))
    with pytest.raises(InputTooLong, match="leaves none for the answer: pass max_new_tokens"):
        runner.prepare("a prompt of some length", {"max_length": 5})
