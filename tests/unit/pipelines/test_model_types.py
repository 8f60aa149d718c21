"""Each model type that may be padded is proven here; a type that isn't proven is grouped by exact shapes."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from pipemill_worker.pipelines.grouping import PADDABLE_DECODERS, PADDABLE_ENCODERS
from pipemill_worker.pipelines.packing import STACKS
from pipemill_worker.pipelines.rules import Sharing
from tests.unit.pipelines.tiny import (
    assert_same,
    byte_tokenizer,
    padding_runner_of,
    run_batched,
    runner_of,
    sentence,
    tiny_pipeline,
)


def check(task: str, pipe: Any) -> None:
    """Ten texts from one word to fifty run in one padded batch, and answer as they do alone."""
    rng = random.Random(2)
    jobs: list[tuple[Any, dict[str, Any]]] = [(sentence(rng, 1, 9), {}) for _ in range(9)]
    jobs.append((sentence(rng, 50, 50), {}))
    runner = padding_runner_of(task, pipe)
    run = run_batched(runner, jobs)
    for answer, (text, parameters) in zip(run.answers, jobs, strict=True):
        assert_same(answer, pipe(text, **parameters))
    assert run.batches == [10]
    assert runner.describe()["sharing"] == "padded"


@pytest.mark.parametrize("model_type", sorted(PADDABLE_ENCODERS))
def test_encoder_classifiers_do_not_mind_padding(model_type: str) -> None:
    """A padded batch of an encoder's classifier gives each text the scores it gets alone."""
    check("text-classification", tiny_pipeline("text-classification", model_type))


@pytest.mark.parametrize("model_type", sorted(PADDABLE_ENCODERS - {"mbart"}))
def test_encoder_features_do_not_mind_padding(model_type: str) -> None:
    """A padded batch of an encoder gives each text the hidden states it gets alone, and as many of them."""
    check("feature-extraction", tiny_pipeline("feature-extraction", model_type))


@pytest.mark.parametrize("model_type", sorted(PADDABLE_DECODERS))
def test_decoder_classifiers_do_not_mind_padding(model_type: str) -> None:
    """With a padding token that model and tokenizer agree on, a decoder's classifier takes texts of any length."""
    tokenizer = byte_tokenizer(pad_token="<pad>", padding_side="right")  # noqa: S106 - no password
    check("text-classification", tiny_pipeline("text-classification", model_type, tokenizer))


@pytest.mark.parametrize("model_type", sorted(PADDABLE_DECODERS))
def test_decoder_features_do_not_mind_padding(model_type: str) -> None:
    """A padded batch of a decoder gives each text the hidden states it gets alone."""
    tokenizer = byte_tokenizer(pad_token="<pad>", padding_side="right")  # noqa: S106 - no password
    check("feature-extraction", tiny_pipeline("feature-extraction", model_type, tokenizer))


@pytest.mark.parametrize("model_type", sorted(STACKS))
@pytest.mark.parametrize("task", ["text-classification", "feature-extraction", "token-classification"])
def test_packed_encoders_answer_as_alone(task: str, model_type: str) -> None:
    """Ten texts from one word to fifty, laid end to end, answer as they do alone."""
    rng = random.Random(3)
    jobs: list[tuple[Any, dict[str, Any]]] = [(sentence(rng, 1, 9), {}) for _ in range(9)]
    jobs.append((sentence(rng, 50, 50), {}))
    pipe = tiny_pipeline(task, model_type)
    direct = [pipe(text, **parameters) for text, parameters in jobs]
    runner = runner_of(task, pipe)
    run = run_batched(runner, jobs)
    assert runner.sharing is Sharing.PACKED
    assert run.batches == [10]
    for answer, expected in zip(run.answers, direct, strict=True):
        assert_same(answer, expected)


@pytest.mark.parametrize("model_type", ["convbert", "nystromformer"])
def test_unproven_types_share_by_exact_shape_only(model_type: str) -> None:
    """A type that isn't proven batches texts of equal length only, and answers as alone."""
    rng = random.Random(4)
    pipe = tiny_pipeline("text-classification", model_type)
    runner = runner_of("text-classification", pipe)
    jobs: list[tuple[Any, dict[str, Any]]] = [(sentence(rng, 1, 4), {}) for _ in range(16)]
    run = run_batched(runner, jobs)
    for answer, (text, _) in zip(run.answers, jobs, strict=True):
        assert_same(answer, pipe(text))
    assert len(run.batches) == len({len(text.split()) for text, _ in jobs})
    assert runner.describe()["sharing"] == "exact"


def test_padding_would_disturb_an_unproven_type() -> None:
    """The control of the tests above: ConvBERT's features move when a longer neighbour pads them."""
    pipe = tiny_pipeline("feature-extraction", "convbert")
    runner = runner_of("feature-extraction", pipe)
    runner._rule = replace(runner._rule, sharing=Sharing.PADDED, pad_token_id=pipe.tokenizer.pad_token_id)
    run = run_batched(runner, [("river", {}), ("river stone cloud winter music garden", {})])
    assert run.batches == [2]
    with pytest.raises(AssertionError):
        assert_same(run.answers[0], pipe("river"))
