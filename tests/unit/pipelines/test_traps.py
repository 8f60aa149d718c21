"""Where transformers' own batching, or a careless driver, gives other answers than a direct call."""

from __future__ import annotations

import copy
import json
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from pipemill.errors import InputTooLong, InvalidInput, InvalidParameter
from pipemill_worker.seams import Prepared
from tests.unit.pipelines.tiny import (
    LABELS,
    assert_same,
    byte_tokenizer,
    finish_batched,
    run_batched,
    runner_of,
    sentence,
    tiny_pipeline,
    wordpiece_tokenizer,
)


def answer_of(runner: Any, inputs: Any, **parameters: Any) -> Any:
    """The answer of one job that runs alone."""
    return run_batched(runner, [(inputs, parameters)]).answers[0]


def test_padding_rows_are_no_features() -> None:
    """A short text's features have as many rows as it has tokens, whatever it was padded to."""
    pipe = tiny_pipeline("feature-extraction")
    run = run_batched(runner_of("feature-extraction", pipe), [("river", {}), (sentence(random.Random(0), 40, 40), {})])
    assert run.batches == [2]
    assert [len(answer[0]) for answer in run.answers] == [3, 42]


def test_different_labels_share_a_batch() -> None:
    """Zero-shot jobs with labels, templates and numbers of labels of their own run in one forward pass."""
    pipe = tiny_pipeline("zero-shot-classification")
    jobs: list[tuple[str, dict[str, Any]]] = [
        ("river stone", {"candidate_labels": LABELS[:2]}),
        ("cloud", {"candidate_labels": LABELS[2:], "hypothesis_template": "is {}"}),
    ]
    run = run_batched(runner_of("zero-shot-classification", pipe), jobs)
    assert run.batches == [5]
    for answer, (text, parameters) in zip(run.answers, jobs, strict=True):
        assert_same(answer, pipe(text, **parameters))
        assert set(answer["labels"]) == set(parameters["candidate_labels"])


def test_without_a_pad_token_equal_lengths_share() -> None:
    """A tokenizer without a padding token batches texts of equal length, which upstream refuses altogether."""
    pipe = tiny_pipeline("feature-extraction", "gpt2", byte_tokenizer(padding_side="right"))
    jobs: list[tuple[Any, dict[str, Any]]] = [(text, {}) for text in ("one", "two", "three", "seven", "eight", "ten")]
    run = run_batched(runner_of("feature-extraction", pipe), jobs)
    assert sorted(run.batches) == [3, 3]
    for answer, (text, _) in zip(run.answers, jobs, strict=True):
        assert_same(answer, pipe(text))


@pytest.mark.parametrize(
    ("tokenizer_pad", "model_pad", "batches"),
    [
        ("<pad>", 1, [4]),
        ("<pad>", None, [1, 1, 1, 1]),
        (None, None, [1, 1, 1, 1]),
        (None, 1, [2, 2]),
        ("<|end|>", 1, [2, 2]),
    ],
)
def test_decoder_classifier_shares_as_its_pad_tokens_allow(
    tokenizer_pad: str | None, model_pad: int | None, batches: list[int]
) -> None:
    """GPT-2 pads if model and tokenizer agree on a token, shares equal lengths if only the model has one, else none."""
    tokenizer = byte_tokenizer(pad_token=tokenizer_pad, padding_side="right")
    pipe = tiny_pipeline("text-classification", "gpt2", tokenizer, pad_token_id=model_pad)
    texts = ["one", "two", "three", "seven"]
    run = run_batched(runner_of("text-classification", pipe), [(text, {}) for text in texts])
    assert run.batches == batches
    for answer, text in zip(run.answers, texts, strict=True):
        assert_same(answer, pipe(text))


def test_zero_shot_without_a_pad_token_runs_alone() -> None:
    """The pipeline gives such a tokenizer a padding token while it runs; no thread's copy changes another's rule."""
    pipe = tiny_pipeline("zero-shot-classification", "gpt2", byte_tokenizer(padding_side="right"))
    runner = runner_of("zero-shot-classification", pipe)
    parameters = {"candidate_labels": LABELS[:2]}
    run = run_batched(runner, [(text, parameters) for text in ("river", "stone")])
    assert run.batches == [1, 1, 1, 1]
    assert pipe.tokenizer.pad_token is None
    for answer, text in zip(run.answers, ("river", "stone"), strict=True):
        assert_same(answer, pipe(text, **parameters))


@pytest.mark.parametrize("model_type", ["bert", "gpt2"])
def test_left_padding_shares_by_exact_shape(model_type: str) -> None:
    """A tokenizer that pads on the left is never made to pad: positions would shift."""
    tokenizer = byte_tokenizer(pad_token="<pad>", padding_side="left", cls_token="<|end|>")  # noqa: S106 - no password
    pipe = tiny_pipeline("text-classification", model_type, tokenizer)
    texts = ["one", "two", "three", "seven"]
    run = run_batched(runner_of("text-classification", pipe), [(text, {}) for text in texts])
    assert run.batches == [2, 2]
    for answer, text in zip(run.answers, texts, strict=True):
        assert_same(answer, pipe(text))


def test_pad_token_outside_the_models_vocabulary_is_not_used() -> None:
    """A padding token added to the tokenizer only would be an index error for every batch; equal lengths share."""
    tokenizer = wordpiece_tokenizer()
    size = len(tokenizer)
    tokenizer.add_special_tokens({"pad_token": "[NEW]"})
    pipe = tiny_pipeline("feature-extraction", "bert", tokenizer, vocab_size=size, pad_token_id=0)
    run = run_batched(runner_of("feature-extraction", pipe), [("river", {}), ("stone", {}), ("river stone", {})])
    assert sorted(run.batches) == [1, 2]


def test_texts_with_more_end_tokens_stay_apart() -> None:
    """BART's classifier reads the last end token and needs as many in each row: a text that spells one runs apart."""
    pipe = tiny_pipeline("text-classification", "bart")
    texts = ["river", "stone cloud", "river [SEP] stone", "[SEP]"]
    run = run_batched(runner_of("text-classification", pipe), [(text, {}) for text in texts])
    assert run.batches == [2, 2]
    for answer, text in zip(run.answers, texts, strict=True):
        assert_same(answer, pipe(text))


def test_padding_that_reads_as_an_end_is_not_used() -> None:
    """Where padding and end token are one, padding would add ends to a row: equal lengths share."""
    pipe = tiny_pipeline("text-classification", "bart", wordpiece_tokenizer(pad_token="[SEP]"))  # noqa: S106 - no password
    texts = ["river", "stone", "stone cloud"]
    run = run_batched(runner_of("text-classification", pipe), [(text, {}) for text in texts])
    assert sorted(run.batches) == [1, 2]
    for answer, text in zip(run.answers, texts, strict=True):
        assert_same(answer, pipe(text))


def test_other_tensors_stay_apart() -> None:
    """Jobs whose tokenizers' outputs differ in kind (no special tokens, no mask) never mix up their keys."""
    pipe = tiny_pipeline("feature-extraction")
    jobs: list[tuple[Any, dict[str, Any]]] = [
        ("river", {}),
        ("river stone", {"tokenize_kwargs": {"return_attention_mask": False}}),
        ("cloud stone", {"tokenize_kwargs": {"return_attention_mask": False}}),
        ("cloud", {"tokenize_kwargs": {"return_attention_mask": False}}),
        ("river stone cloud", {}),
    ]
    run = run_batched(runner_of("feature-extraction", pipe), jobs)
    assert sorted(run.batches) == [1, 2, 2]
    for answer, (text, parameters) in zip(run.answers, jobs, strict=True):
        assert_same(answer, pipe(text, **copy.deepcopy(parameters)))


@pytest.mark.parametrize("task", ["token-classification", "zero-shot-classification", "feature-extraction"])
def test_forward_changes_nothing_it_was_given(task: str) -> None:
    """After a failed batch the same items run again, in other company, and give the same answers."""
    pipe = tiny_pipeline(task)
    runner = runner_of(task, pipe)
    parameters: dict[str, Any] = {"candidate_labels": LABELS} if task.startswith("zero") else {}
    if task == "feature-extraction":
        parameters = {"tokenize_kwargs": {"add_special_tokens": False}, "truncation": True}
    given = copy.deepcopy(parameters)
    prepared = [runner.prepare(text, parameters) for text in ("river stone", "cloud", "winter music garden")]
    first = finish_batched(runner, prepared)
    alone = finish_batched(runner, prepared, most=1)
    again = finish_batched(runner, prepared)
    assert first.answers == again.answers
    assert_same(alone.answers, first.answers)
    assert len(alone.batches) == sum(first.batches)
    assert parameters == given


def test_threads_do_not_share_a_tokenizer() -> None:
    """Four threads that truncate to different lengths get the token ids that each asked for."""
    pipe = tiny_pipeline("text-classification")
    runner = runner_of("text-classification", pipe)
    rng = random.Random(8)
    jobs = [(sentence(rng, 30, 60), {"truncation": True, "max_length": length}) for length in (5, 9, 14, 30) * 100]
    barrier = threading.Barrier(4)

    def prepare(part: int) -> list[Prepared]:
        barrier.wait()
        return [runner.prepare(*job) for job in jobs[part::4]]

    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(prepare, range(4)))
    for part, prepared in enumerate(parts):
        for job, (text, parameters) in zip(prepared, jobs[part::4], strict=True):
            expected = pipe.tokenizer(text, **parameters)["input_ids"]
            assert job.items[0].payload.inputs["input_ids"].tolist() == [expected]


def test_finish_runs_in_another_thread() -> None:
    """The thread that postprocesses decodes with a tokenizer of its own, and the answers stay the direct call's."""
    pipe = tiny_pipeline("fill-mask")
    runner = runner_of("fill-mask", pipe)
    prepared = runner.prepare("river [MASK] stone", {})
    outputs = runner.forward(prepared.items)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(runner.finish, prepared, outputs).result()
    assert_same(answer, pipe("river [MASK] stone"))


def test_too_long_a_text_fails_alone() -> None:
    """Seven hundred tokens for 512 positions are refused by name before they meet their neighbours, who succeed."""
    pipe = tiny_pipeline("text-classification")
    runner = runner_of("text-classification", pipe)
    long = sentence(random.Random(1), 698, 698)
    with pytest.raises(InputTooLong, match=r'700 tokens.*at most 512.*pass \{"truncation": true\}'):
        runner.prepare(long, {})
    run = run_batched(runner, [("river", {}), (long, {"truncation": True})])
    assert run.batches == [2]
    assert_same(run.answers[1], pipe(long, truncation=True))


def test_one_long_element_refuses_its_job() -> None:
    """A list with a text that is too long is refused whole, as the direct call would fail whole."""
    runner = runner_of("feature-extraction", tiny_pipeline("feature-extraction"))
    with pytest.raises(InputTooLong, match="700 tokens"):
        runner.prepare(["river", sentence(random.Random(1), 698, 698)], {})


def test_roberta_counts_positions_from_behind_its_padding() -> None:
    """RoBERTa's 514 positions take 512 tokens: one more is refused, and 512 give the direct call's answer."""
    tokenizer = wordpiece_tokenizer(model_max_length=10_000)
    pipe = tiny_pipeline("text-classification", "roberta", tokenizer, max_position_embeddings=514, pad_token_id=1)
    runner = runner_of("text-classification", pipe)
    assert runner.describe()["max_tokens"] == 512
    longest = sentence(random.Random(1), 510, 510)
    assert_same(answer_of(runner, longest), pipe(longest))
    with pytest.raises(InputTooLong, match=r'513 tokens.*\{"truncation": true, "max_length": 512\}'):
        runner.prepare(longest + " river", {})


@pytest.mark.parametrize(
    ("task", "mend"),
    [
        ("fill-mask", '{"tokenizer_kwargs": {"truncation": true, "max_length": 512}}'),
        ("feature-extraction", '{"tokenize_kwargs": {"truncation": true, "max_length": 512}}'),
        ("token-classification", "512: shorten or split the text"),
    ],
)
def test_too_long_names_the_tasks_own_parameter(task: str, mend: str) -> None:
    """The advice works for the task that gives it; where the tokenizer knows no length, it names one."""
    runner = runner_of(task, tiny_pipeline(task, "bert", wordpiece_tokenizer(model_max_length=10_000)))
    text = "[MASK] " + sentence(random.Random(1), 600, 600)
    with pytest.raises(InputTooLong) as caught:
        runner.prepare(text, {})
    assert mend in str(caught.value)
    if mend.startswith("{"):
        runner.prepare(text, json.loads(mend))


def test_lists_and_pairs_answer_as_the_direct_call() -> None:
    """A list of one, a list of many, a pair and a list of pairs keep the shapes that the pipeline gives each."""
    pipe = tiny_pipeline("text-classification")
    runner = runner_of("text-classification", pipe)
    pair = {"text": "river stone", "text_pair": "cloud"}
    for inputs in (["river"], ["river", "stone cloud"], pair, [pair], [pair, "river", {"text": "stone"}]):
        for parameters in ({}, {"top_k": 1}, {"top_k": None}):
            assert_same(answer_of(runner, inputs, **parameters), pipe(inputs, **parameters))


def test_half_precision_features_are_plain_numbers() -> None:
    """A bfloat16 model's features are plain floats, padded or not."""
    pipe = tiny_pipeline("feature-extraction")
    pipe.model.to(torch.bfloat16)
    run = run_batched(runner_of("feature-extraction", pipe), [("river", {}), ("stone cloud", {})])
    assert all(type(value) is float for answer in run.answers for row in answer[0] for value in row)
    assert_same(run.answers[1], pipe("stone cloud"), tolerance=0.1)


def test_forbidding_padding_leaves_exact_shapes() -> None:
    """A lane whose model is found to mind padding goes on with equal lengths."""
    runner = runner_of("text-classification", tiny_pipeline("text-classification"))
    assert runner.describe()["sharing"] == "packed"
    runner.share_less()
    assert runner.describe()["sharing"] == "padded"
    runner.share_less()
    run = run_batched(runner, [("river", {}), ("stone", {}), ("river stone", {})])
    assert sorted(run.batches) == [1, 2]
    assert runner.describe()["sharing"] == "exact"


def test_a_model_that_mixes_rows_is_named() -> None:
    """A model that gives fewer rows than items fails loudly instead of answering jobs with each other's rows."""
    pipe = tiny_pipeline("text-classification")
    runner = runner_of("text-classification", pipe)
    items = [item for text in ("river", "stone") for item in runner.prepare(text, {}).items]
    forward = pipe.model.forward

    def first_row_only(*arguments: Any, **options: Any) -> Any:
        outputs = forward(*arguments, **options)
        outputs["logits"] = outputs["logits"][:1]
        return outputs

    pipe.model.forward = first_row_only
    with pytest.raises(RuntimeError, match="1 rows for 2 items"):
        runner.forward(items)


@pytest.mark.parametrize(
    ("task", "inputs", "parameters", "error", "text"),
    [
        ("fill-mask", "river stone", {}, InvalidInput, r"no mask token in the text: put \[MASK\]"),
        ("text-classification", "a", {"function_to_apply": "magic"}, InvalidParameter, "MAGIC"),
        ("token-classification", "a", {"nonsense": 1}, InvalidParameter, "nonsense"),
        ("token-classification", "a", {"stride": 510}, InvalidParameter, "give at most 509"),
        ("token-classification", "a", {"stride": 8, "aggregation_strategy": "none"}, InvalidParameter, "stride"),
        ("text-classification", "a", {"truncation": "sideways"}, InvalidInput, "sideways"),
    ],
)
def test_what_the_pipeline_refuses_is_the_jobs_own_error(
    task: str, inputs: Any, parameters: dict[str, Any], error: type[Exception], text: str
) -> None:
    """What fails in planning or preprocessing is told to the job's owner, with what to change."""
    runner = runner_of(task, tiny_pipeline(task))
    with pytest.raises(error, match=text):
        runner.prepare(inputs, parameters)


@pytest.mark.parametrize("error", [Exception, type("PanicException", (BaseException,), {})])
def test_a_tokenizers_own_errors_are_the_jobs(monkeypatch: pytest.MonkeyPatch, error: type[BaseException]) -> None:
    """A tokenizer raises bare exceptions, and panics that would end the thread; here they end the job only."""
    pipe = tiny_pipeline("text-classification")
    runner = runner_of("text-classification", pipe)

    def preprocess(*_: Any, **__: Any) -> Any:
        raise error("assertion failed")

    monkeypatch.setattr(type(pipe), "preprocess", preprocess)
    with pytest.raises(InvalidInput, match="assertion failed"):
        runner.prepare("river", {})


def test_other_errors_of_a_pipeline_come_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """What isn't the job's fault keeps its type, for the engine to judge."""
    pipe = tiny_pipeline("text-classification")
    runner = runner_of("text-classification", pipe)

    def preprocess(*_: Any, **__: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(type(pipe), "preprocess", preprocess)
    with pytest.raises(MemoryError):
        runner.prepare("river", {})


def test_one_job_has_a_bounded_number_of_items() -> None:
    """Texts times labels are capped, so that one job can't fill the worker's memory."""
    runner = runner_of("zero-shot-classification", tiny_pipeline("zero-shot-classification"))
    with pytest.raises(InvalidInput, match="over 4096 forward passes"):
        runner.prepare(["river"] * 30, {"candidate_labels": [f"label {number}" for number in range(200)]})


def test_a_text_without_tokens_is_refused() -> None:
    """A text of which nothing is left for the model is the job's own error, not a failed batch."""
    runner = runner_of("feature-extraction", tiny_pipeline("feature-extraction"))
    with pytest.raises(InvalidInput, match="no tokens"):
        runner.prepare("   ", {"tokenize_kwargs": {"add_special_tokens": False}})


def test_postprocessing_may_compute_with_what_the_model_gave() -> None:
    """Pipelines that draw images decode them after the forward pass, by layers of the model."""
    pipe = tiny_pipeline("text-classification")
    layer = torch.nn.Linear(5, 1)

    def decoded(outputs: Any, **_: Any) -> Any:
        outputs["logits"].clamp_(min=-1.0)
        return layer(outputs["logits"]).tolist()

    pipe.postprocess = decoded
    assert_same(answer_of(runner_of("text-classification", pipe), "river")[0], pipe("river")[0])
