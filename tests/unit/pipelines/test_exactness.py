"""The promise: whatever a job was batched with, its answer is the direct call's."""

from __future__ import annotations

import json
import random
from typing import Any, Final

import pytest

from tests.unit.pipelines.tiny import LABELS, assert_same, run_batched, runner_of, sentence, tiny_pipeline

#: Three parameter sets for each task; every job gets the next of them.
PARAMETERS: Final[dict[str, list[dict[str, Any]]]] = {
    "text-classification": [{}, {"top_k": None}, {"top_k": 2, "function_to_apply": "sigmoid"}],
    "token-classification": [
        {},
        {"aggregation_strategy": "simple", "ignore_labels": []},
        {"aggregation_strategy": "average"},
    ],
    "fill-mask": [{}, {"top_k": 2}, {"targets": ["river", "stone", "cloud"]}],
    "feature-extraction": [{}, {"truncation": True}, {"tokenize_kwargs": {"add_special_tokens": False}}],
    "zero-shot-classification": [
        {"candidate_labels": LABELS[:3]},
        {"candidate_labels": ", ".join(LABELS), "multi_label": True},
        {"candidate_labels": LABELS[3:], "hypothesis_template": "is this {}?"},
    ],
}


def job_inputs(task: str, rng: random.Random) -> Any:
    """A text for the task, now and then a list of texts, for classification now and then a pair."""

    def text() -> Any:
        words = sentence(rng).split()
        if task == "fill-mask":
            words[rng.randrange(len(words))] = "[MASK]"
        if task == "text-classification" and rng.random() < 0.3:
            return {"text": " ".join(words), "text_pair": sentence(rng, 1, 9)}
        return " ".join(words)

    return [text() for _ in range(rng.randint(1, 4))] if rng.random() < 0.2 else text()


@pytest.mark.parametrize("task", PARAMETERS)
def test_batched_answers_are_the_direct_calls(task: str) -> None:
    """Forty jobs of mixed lengths and parameters share batches, and each gets its direct call's answer as JSON."""
    rng = random.Random(11)
    pipe = tiny_pipeline(task)
    jobs = [(job_inputs(task, rng), PARAMETERS[task][number % 3]) for number in range(40)]
    run = run_batched(runner_of(task, pipe), jobs)
    for answer, (inputs, parameters) in zip(run.answers, jobs, strict=True):
        assert_same(answer, pipe(inputs, **json.loads(json.dumps(parameters))))
        assert json.loads(json.dumps(answer)) == answer
    assert len(run.batches) <= len(jobs) / 4
    assert max(run.batches) == 16


def test_strided_chunks_share_batches() -> None:
    """Long texts cut into overlapping chunks are joined as in the direct call, chunks of several jobs in a batch."""
    rng = random.Random(5)
    pipe = tiny_pipeline("token-classification")
    pipe.tokenizer.model_max_length = 24
    jobs = [
        (sentence(rng, 1, 90), {"aggregation_strategy": strategy, "stride": stride})
        for strategy, stride in (("simple", 4), ("first", 8), ("max", 4))
        for _ in range(10)
    ]
    run = run_batched(runner_of("token-classification", pipe), jobs)
    for answer, (inputs, parameters) in zip(run.answers, jobs, strict=True):
        assert_same(answer, pipe(inputs, **parameters))
    assert sum(run.batches) > len(jobs)
    assert max(run.batches) == 16


def test_words_share_batches() -> None:
    """Texts given as lists of words keep their offsets, alone and as lists of such texts."""
    rng = random.Random(6)
    pipe = tiny_pipeline("token-classification")
    parameters = {"is_split_into_words": True, "aggregation_strategy": "simple", "delimiter": "_"}
    jobs: list[tuple[Any, dict[str, Any]]] = [(sentence(rng).split(), parameters) for _ in range(8)]
    jobs.append(([sentence(rng).split(), sentence(rng).split()], parameters))
    run = run_batched(runner_of("token-classification", pipe), jobs)
    for answer, (inputs, _) in zip(run.answers, jobs, strict=True):
        assert_same(answer, pipe(inputs, **parameters))
    assert run.batches == [10]


def test_queue_parameters_are_a_jobs_defaults() -> None:
    """A job's own parameters win over its queue's, and the queue's stand where it gives none."""
    pipe = tiny_pipeline("text-classification")
    runner = runner_of("text-classification", pipe, top_k=2)
    run = run_batched(runner, [("river stone", {}), ("river stone", {"top_k": 4})])
    assert [len(answer) for answer in run.answers] == [2, 4]
