"""A generation asks at each token whether somebody waits for it, and says that it gets on."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch

from pipemill_worker.pipelines.underway import Underway
from pipemill_worker.seams import Item
from tests.unit.pipelines.tiny import byte_tokenizer, runner_of, tiny_pipeline

#: As many tokens as a generation is to write.
TOKENS = 40
GREEDY = {"max_new_tokens": TOKENS, "min_new_tokens": TOKENS, "do_sample": False, "return_full_text": False}


@pytest.fixture
def pipe() -> Any:
    """A tiny decoder whose rows may share a batch."""
    return tiny_pipeline("text-generation", "llama", byte_tokenizer())


def stop_after(pipe: Any, steps: int, *items: Item) -> list[int]:
    """Let somebody cancel these items' jobs in the middle; the list grows with each step of the model."""
    calls: list[int] = []
    forward = pipe.model.forward

    def counting(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == steps:
            for item in items:
                item.over = True
        return forward(*arguments, **options)

    pipe.model.forward = counting
    return calls


@pytest.mark.parametrize("more", [{}, {"num_beams": 3}, {"num_beams": 2, "num_return_sequences": 2}])
def test_a_generation_nobody_waits_for_ends_at_the_next_token(pipe: Any, more: dict[str, Any]) -> None:
    """Cancelled after five tokens, it writes no more than the one it is at."""
    runner = runner_of("text-generation", pipe)
    prepared = runner.prepare("river", {**GREEDY, **more})
    calls = stop_after(pipe, 5, *prepared.items)
    runner.forward(prepared.items)
    assert len(calls) == 5


def test_neighbours_of_a_cancelled_job_are_answered_as_alone(pipe: Any) -> None:
    """Of three prompts in a batch of equal settings, the one that is cancelled ends alone."""
    runner = runner_of("text-generation", pipe)
    runner.writer = None
    prompts = ["river", "stone", "cloud"]
    expected = [pipe(prompt, **GREEDY) for prompt in prompts]
    jobs = [runner.prepare(prompt, GREEDY) for prompt in prompts]
    items = [item for job in jobs for item in job.items]
    assert len({item.group for item in items} - {None}) == 1
    calls = stop_after(pipe, 5, items[1])
    outputs = runner.forward(items)
    assert len(calls) >= TOKENS
    answers = [runner.finish(jobs[index], [outputs[index]]) for index in (0, 2)]
    assert answers == [expected[0], expected[2]]


def test_each_token_is_a_sign_of_life(pipe: Any) -> None:
    """Its time is later than the pass's start."""
    runner = runner_of("text-generation", pipe)
    prepared = runner.prepare("river", GREEDY)
    seen: list[float] = []
    forward = pipe.model.forward

    def looking(*arguments: Any, **options: Any) -> Any:
        seen.append(prepared.items[0].alive_at)
        return forward(*arguments, **options)

    pipe.model.forward = looking
    before = time.monotonic()
    runner.forward(prepared.items)
    assert seen[0] >= before
    assert seen == sorted(seen)
    assert seen[-1] > seen[0]


@pytest.mark.parametrize(
    ("by_row", "rows", "expected"),
    [
        (True, 4, [True, True, False, False]),
        (True, 2, [True, False]),
        (True, 3, [False] * 3),
        (False, 4, [False] * 4),
    ],
)
def test_only_rows_that_are_an_items_own_end(by_row: bool, rows: int, expected: list[bool]) -> None:  # noqa: FBT001  # a case
    """Each item has as many rows as every other; where it is unclear whose a row is, none ends before all may."""
    underway = Underway()
    items = [Item(None, 1, None, over=True), Item(None, 1, None)]
    with underway.holding(items, by_row=by_row):
        assert underway(torch.zeros(rows, 7, dtype=torch.long), None).tolist() == expected
        items[1].over = True
        assert underway(torch.zeros(rows, 7, dtype=torch.long), None).tolist() == [True] * rows
    assert underway(torch.zeros(rows, 7, dtype=torch.long), None).tolist() == [False] * rows
