"""Each model type that may be padded is proven here; a type that isn't proven is grouped by exact shapes."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from typing import Any

import pytest
from transformers.models.auto.modeling_auto import MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES as QUESTION_ANSWERERS

from pipemill_worker.pipelines.grouping import PADDABLE_DECODERS, PADDABLE_ENCODERS
from pipemill_worker.pipelines.own import OWN_PIPELINES
from pipemill_worker.pipelines.packing import STACKS
from pipemill_worker.pipelines.rules import Sharing
from tests.unit.pipelines.own.models import own_pipeline
from tests.unit.pipelines.tiny import (
    LABELS,
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


@pytest.mark.parametrize("rope_type", ["dynamic", "longrope"])
def test_positions_that_turn_by_length_are_not_padded(rope_type: str) -> None:
    """Where a long neighbour changes the angles of rotary positions, texts of equal length only share a pass."""
    pipe = tiny_pipeline("feature-extraction", "gte")
    assert runner_of("feature-extraction", pipe).sharing is Sharing.PACKED
    pipe = tiny_pipeline("feature-extraction", "gte")
    pipe.model.config.rope_parameters["rope_type"] = rope_type
    assert runner_of("feature-extraction", pipe).sharing is Sharing.EXACT


def job_of(task: str, rng: random.Random, text: str) -> tuple[Any, dict[str, Any]]:
    """A job about a text."""
    if task == "question-answering":
        return {"question": sentence(rng, 1, 4), "context": text}, {}
    if task == "rerank":
        return {"query": "river stone", "documents": [text, sentence(rng, 1, 9)]}, {}
    return text, {"candidate_labels": LABELS[:2]} if task == "zero-shot-classification" else {}


@pytest.mark.parametrize(
    ("task", "model_type"),
    [
        *itertools.product(("feature-extraction", "text-classification", "token-classification"), sorted(STACKS)),
        *itertools.product(["question-answering"], sorted(STACKS.keys() & QUESTION_ANSWERERS.keys())),
        # The heads of these are those of the tasks above.
        *itertools.product(
            ("rerank", "sentence-embedding", "zero-shot-classification"), ("distilbert", "modernbert", "mpnet")
        ),
    ],
)
def test_packed_encoders_answer_as_alone(task: str, model_type: str) -> None:
    """Ten jobs from one word to fifty, laid end to end, answer as they do alone."""
    rng = random.Random(3)
    jobs = [job_of(task, rng, sentence(rng, *words)) for words in [(1, 9)] * 9 + [(50, 50)]]
    if task in OWN_PIPELINES:
        pipe = own_pipeline(task, model_type, **({"num_labels": 1} if task == "rerank" else {}))
    else:
        pipe = tiny_pipeline(task, model_type)
    direct = [pipe(inputs, **parameters) for inputs, parameters in jobs]
    runner = runner_of(task, pipe)
    run = run_batched(runner, jobs, most=20)
    assert runner.sharing is Sharing.PACKED
    assert run.batches == [20 if task in {"rerank", "zero-shot-classification"} else 10]
    for answer, expected in zip(run.answers, direct, strict=True):
        assert_same(answer, expected, 1e-5)


def test_what_is_packed_may_be_padded() -> None:
    """Each type that is packed is proven to be paddable: passes that ask for each layer's outputs are padded."""
    assert STACKS.keys() <= PADDABLE_ENCODERS


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
