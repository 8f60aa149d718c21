"""The promise, through a real broker and a real worker: what a job is answered is what the direct call answers."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from tests.e2e.mill import Mill
from tests.e2e.rig import report_on
from tests.helpers import until
from tests.unit.pipelines.test_exactness import PARAMETERS
from tests.unit.pipelines.tiny import assert_same, sentence

#: Jobs of each task: a hundred of each parameter set.
COUNT = 300


def texts(task: str) -> list[str]:
    """Sentences of 1 to 40 words; for fill-mask one of them is masked."""
    rng = random.Random(task)
    found = []
    for _ in range(COUNT):
        words = sentence(rng).split()
        if task == "fill-mask":
            words[rng.randrange(len(words))] = "[MASK]"
        found.append(" ".join(words))
    return found


def batch_sizes(mill: Mill, queue: str) -> Counter[int]:
    """Forward passes of the queue's lane so far, by their size."""
    (lane,) = report_on(mill.client, queue).lanes.values()
    return Counter({int(size): count for size, count in lane["batch_sizes"].items()})


def items(sizes: Counter[int]) -> int:
    """The items of these forward passes."""
    return sum(size * count for size, count in sizes.items())


@pytest.mark.parametrize("task", PARAMETERS)
def test_jobs_in_shared_batches_get_the_direct_calls_answers(task: str, mill: Mill) -> None:
    """Three hundred jobs of mixed lengths and three parameter sets share batches, and each gets its own answer."""
    before = batch_sizes(mill, task)
    inputs = texts(task)
    jobs = [mill.client.submit(task, text, PARAMETERS[task][index % 3]) for index, text in enumerate(inputs)]
    results = mill.client.results(jobs, timeout=120)
    pipe = mill.pipeline(task)
    for index, (text, result) in enumerate(zip(inputs, results, strict=True)):
        assert_same(result.get(), pipe(text, **PARAMETERS[task][index % 3]))
    until(lambda: items(batch_sizes(mill, task) - before) >= COUNT, "the worker reports all its forward passes")
    sizes = batch_sizes(mill, task) - before
    mean = items(sizes) / sizes.total()
    print(f"{task}: {items(sizes)} items in {sizes.total()} forward passes, {mean:.1f} each, at most {max(sizes)}")  # noqa: T201  # for people
    assert mean > 1


def test_generated_texts_are_the_direct_calls(mill: Mill) -> None:
    """The built-in generator, asked for the likeliest tokens, writes what the direct call writes."""
    from pipemill_worker.pipelines.loading import BUILTIN_MODELS  # noqa: PLC0415  # loads torch

    prompts = ["The film is", "A warm, funny", "He said that the", "Nothing"]
    asked: list[dict[str, Any]] = [
        {"do_sample": False, "max_new_tokens": 12},
        {"do_sample": False, "max_new_tokens": 5, "return_full_text": False},
    ]
    jobs = [mill.client.submit("generator", prompt, asked[index % 2]) for index, prompt in enumerate(prompts)]
    pipe = mill.pipeline("text-generation", BUILTIN_MODELS / "generator")
    for index, (prompt, result) in enumerate(zip(prompts, mill.client.results(jobs, timeout=60), strict=True)):
        assert result.get() == pipe(prompt, **asked[index % 2])
