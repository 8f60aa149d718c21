"""Prompts continued together, over the trained generator that ships with the worker: ties don't decide there."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import takewhile
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipemill.catalogue.model import QueueSettings
from pipemill.errors import InvalidInput
from pipemill_worker.pipelines import load_runner
from pipemill_worker.pipelines.runner import TransformersRunner
from pipemill_worker.pipelines.writing.items import PipelineWriter
from pipemill_worker.pipelines.writing.reading import PADDED, in_common, read_together
from pipemill_worker.pipelines.writing.slab import Room, Slab, capacity_for
from pipemill_worker.seams import JOINS, Item

TEXT = "the food was good and I will come again because service is slow but the price is fine really"
WORDS = TEXT.split()

#: Ways to write, of which each needs something of its own: processors, chance, what stops it, how many rows.
WAYS: tuple[Mapping[str, Any], ...] = (
    {"do_sample": False},
    {"do_sample": False, "repetition_penalty": 1.3},
    {"do_sample": False, "no_repeat_ngram_size": 2, "min_new_tokens": 2},
    {"do_sample": False, "stop_sequence": "."},
    {"do_sample": False, "return_full_text": False},
    {"seed": 1},
    {"do_sample": True, "seed": 2, "temperature": 0.7},
    {"do_sample": True, "seed": 3, "temperature": 0.7},
    {"do_sample": True, "seed": 4, "top_k": 5, "temperature": 1.4},
    {"do_sample": True, "seed": 5, "top_p": 0.8, "repetition_penalty": 1.2},
    {"do_sample": True, "seed": 6, "num_return_sequences": 3},
    {"do_sample": False, "num_beams": 3},
    {"do_sample": False, "num_beams": 4, "num_return_sequences": 2, "length_penalty": 2.0},
    {"do_sample": False, "num_beams": 2, "early_stopping": True, "no_repeat_ngram_size": 2},
    {"do_sample": False, "num_beams": 3, "early_stopping": "never", "stop_sequence": "."},
)


@cache
def runner() -> TransformersRunner:
    """The demo's generator, warmed up."""
    settings = QueueSettings.model_validate(
        {"task": "text-generation", "model": "builtin:generator", "device": "cpu"}, context={"folder": None}
    )
    made = load_runner("generator", settings, threads=1)
    assert isinstance(made, TransformersRunner)
    made.warm_up()
    return made


@pytest.fixture
def writer() -> Iterator[PipelineWriter]:
    """Its writer, left as it was."""
    made = runner().writer
    assert made is not None
    yield made
    made.clear()


def prompts(count: int) -> list[tuple[str, dict[str, Any]]]:
    """Prompts of all lengths and ways to write."""
    rng = random.Random(count)
    made = []
    for number in range(count):
        text = " ".join(rng.choices(WORDS, k=rng.randint(1, 14)))
        made.append((text, {"max_new_tokens": rng.choice([2, 3, 9, 25]), **WAYS[number % len(WAYS)]}))
    return made


def direct(text: str, parameters: Mapping[str, Any]) -> Any:
    """What the pipeline itself answers."""
    own = dict(parameters)
    if (seed := own.pop("seed", None)) is not None:
        torch.manual_seed(seed)
    pipe: Any = runner().pipe
    return pipe(text, **own)


def item_of(text: str, parameters: Mapping[str, Any]) -> tuple[Any, Item]:
    """A job, prepared, and its one item."""
    prepared = runner().prepare(text, parameters)
    (item,) = prepared.items
    return prepared, item


def written(writer: PipelineWriter, items: Sequence[Item], arrive: int) -> dict[int, Any]:
    """The outputs of items of which ``arrive`` come with every step, by their place."""
    places = {id(item): place for place, item in enumerate(items)}
    waiting, outputs = list(items), dict[int, Any]()
    while waiting or writer.busy:
        for _ in range(arrive):
            if waiting and writer.offer(waiting[0]):
                del waiting[0]
        outputs.update((places[id(item)], output) for item, output in writer.step())
    return outputs


@pytest.mark.parametrize("arrive", [1, 5, 100])
def test_every_prompt_is_answered_as_alone(writer: PipelineWriter, arrive: int) -> None:
    """Whatever joins and leaves beside it, each job's answer is that of its own direct call, with its own seed."""
    jobs = prompts(60)
    prepared, items = zip(*(item_of(*job) for job in jobs), strict=True)
    assert {item.group for item in items} == {JOINS}
    outputs = written(writer, items, arrive)
    for place, job in enumerate(jobs):
        assert runner().finish(prepared[place], [outputs[place]]) == direct(*job)


def test_beams_that_draw_are_searched_apart() -> None:
    """They draw from torch's own chance, which isn't theirs alone beside others."""
    _, item = item_of("the food was", {"max_new_tokens": 4, "num_beams": 2, "do_sample": True})
    assert item.group != JOINS


def test_prompts_that_leave_disturb_nobody(writer: PipelineWriter) -> None:
    """Of eight prompts three are stopped in the middle; the five others are answered as alone."""
    jobs = [(" ".join(WORDS[: 1 + number]), {"max_new_tokens": 12, "do_sample": False}) for number in range(8)]
    prepared, items = zip(*(item_of(*job) for job in jobs), strict=True)
    assert all(writer.offer(item) for item in items)
    for _ in range(4):
        assert writer.step() == []
    writer.leave([items[place] for place in (0, 4, 7)])
    outputs: dict[int, Any] = {}
    while writer.busy:
        outputs.update((id(item), output) for item, output in writer.step())
    assert outputs.keys() == {id(items[place]) for place in (1, 2, 3, 5, 6)}
    for place in (1, 2, 3, 5, 6):
        assert runner().finish(prepared[place], [outputs[id(items[place])]]) == direct(*jobs[place])


def test_no_more_join_than_memory_holds() -> None:
    """Tokens are set aside for all that a prompt may write; who finds no room waits, and is answered as alone."""
    model, threads = runner().pipe.model, runner()._threads
    small = PipelineWriter(model, lambda: threads.stages, max_rows=64, max_tokens=100)
    jobs = [(" ".join(WORDS[:5]), {"max_new_tokens": 20, "do_sample": False}) for _ in range(7)]
    prepared, items = zip(*(item_of(*job) for job in jobs), strict=True)
    at_once = sum(small.offer(item) for item in items)
    assert 1 < at_once < 7
    small.clear()
    outputs = written(small, items, 7)
    assert [runner().finish(each, [outputs[place]]) for place, each in enumerate(prepared)] == [
        direct(*job) for job in jobs
    ]


def test_a_beginning_that_another_has_is_not_read_again(writer: PipelineWriter) -> None:
    """A prompt that begins as one that is being written is read from where they differ, and answered as alone."""
    beginning = " ".join(WORDS)
    jobs = [(f"{beginning} {end}", {"max_new_tokens": 12, "do_sample": False}) for end in ("and", "so I", "", "but we")]
    prepared, items = zip(*(item_of(*job) for job in jobs), strict=True)
    outputs: dict[int, Any] = {}
    assert writer.offer(items[0])
    outputs.update((id(item), output) for item, output in writer.step())
    read: list[int] = []
    hook = runner().pipe.model.register_forward_pre_hook(
        lambda _, __, named: read.append(named["input_ids"].shape[1]), with_kwargs=True
    )
    assert all(writer.offer(item) for item in items[1:])
    while writer.busy:
        outputs.update((id(item), output) for item, output in writer.step())
    hook.remove()
    assert max(read) < 8 < items[0].payload.length
    for job, each, item in zip(jobs, prepared, items, strict=True):
        assert runner().finish(each, [outputs[id(item)]]) == direct(*job)


@given(st.lists(st.integers(0, 2), max_size=9), st.lists(st.integers(0, 2), max_size=9))
def test_what_two_texts_have_in_common_at_their_beginnings(one: list[int], other: list[int]) -> None:
    """As counted one token after the other."""
    counted = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))))
    assert in_common(torch.tensor(one), torch.tensor(other)) == counted


def test_rows_are_bounded_beside_others_only() -> None:
    """A job of more answers than a pass may have rows is written alone, and the others before or after it."""
    model, threads = runner().pipe.model, runner()._threads
    narrow = PipelineWriter(model, lambda: threads.stages, max_rows=2, max_tokens=10_000)
    ways = [{"do_sample": False}, {"do_sample": True, "seed": 1, "num_return_sequences": 3}, {"do_sample": False}]
    jobs = [("the food was", {"max_new_tokens": 5, **way}) for way in ways]
    prepared, items = zip(*(item_of(*job) for job in jobs), strict=True)
    assert [narrow.offer(item) for item in items] == [True, False, True]
    narrow.clear()
    outputs = written(narrow, items, 3)
    assert [runner().finish(each, [outputs[place]]) for place, each in enumerate(prepared)] == [
        direct(*job) for job in jobs
    ]


def test_a_prompt_that_never_fits_is_refused_at_the_door() -> None:
    """Who wants more than all memory for keys and values is told so, and what to ask for."""
    model, threads = runner().pipe.model, runner()._threads
    small = PipelineWriter(model, lambda: threads.stages, max_rows=64, max_tokens=30)
    _, item = item_of("the food was", {"max_new_tokens": 50})
    with pytest.raises(InvalidInput, match=r"don't fit into the 30 tokens that are kept.* lower max_new_tokens"):
        small.takes(item.payload.inputs, item.payload.forward)


def test_a_long_prompt_is_read_in_parts(writer: PipelineWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a long prompt is read, others go on at every step; both are answered as alone."""
    monkeypatch.setattr("pipemill_worker.pipelines.writing.reading.READ_AT_ONCE", 8)
    jobs = [
        ("the food", {"max_new_tokens": 12, "do_sample": False}),
        (" ".join(3 * WORDS), {"max_new_tokens": 5, "do_sample": False}),
    ]
    prepared, items = zip(*(item_of(*job) for job in jobs), strict=True)
    assert items[1].payload.length > 3 * 8
    outputs = written(writer, items, 2)
    assert [runner().finish(each, [outputs[place]]) for place, each in enumerate(prepared)] == [
        direct(*job) for job in jobs
    ]


def test_a_slab_moves_its_last_row_into_the_gap() -> None:
    """Rows stay side by side: who is dropped is replaced by the last, with its own keys, values and length."""
    from transformers.cache_utils import DynamicCache  # noqa: PLC0415 - only here

    slab = Slab(Room(1_000))
    for row, length in enumerate((2, 5, 3)):
        cache: Any = DynamicCache()
        cache.update(torch.full((1, 1, length, 2), float(row)), torch.full((1, 1, length, 2), -float(row)), 0)
        assert slab.add(cache) == row
    assert slab.drop(0) == 2
    assert slab.lengths == [3, 5]
    keys, values = slab.cache.layers[0].keys, slab.cache.layers[0].values
    assert keys[0, 0, :3].eq(2).all()
    assert values[0, 0, :3].eq(-2).all()
    assert keys[1, 0, :5].eq(1).all()


@settings(deadline=None)
@given(st.integers(1, 64), st.integers(1, 5_000), st.integers(0, 6), st.integers(0, 6), st.integers(0, 100_000))
def test_a_slab_has_room_and_keeps_its_bound(
    rows: int, tokens: int, had_rows: int, had_tokens: int, spare: int
) -> None:
    """It has room for what is needed, and never for more than memory allows, whatever it had before."""
    most = rows * tokens + spare
    found = capacity_for(rows, tokens, (8 << had_rows, 128 << had_tokens), most)
    assert found[0] >= rows
    assert found[1] >= tokens
    assert found[0] * found[1] <= most


def test_prompts_of_like_lengths_are_read_together() -> None:
    """The first and the nearest, while padding stays small; one that was read in part is read by itself."""
    lengths = [10, 40, 12, None, 11, 9]
    assert read_together(lengths, 256) == [0, 4, 5, 2]
    assert read_together(lengths, 25) == [0, 4]
    assert read_together([None, *lengths[1:]], 256) == [0]
    assert read_together([10, None, 10], 256) == [0, 2]
    assert read_together(lengths, 9) == [0]


@given(
    st.lists(st.one_of(st.none(), st.integers(1, 300)), min_size=1, max_size=40),
    st.integers(1, 256),
)
def test_what_is_read_together_is_bounded(lengths: list[int | None], most: int) -> None:
    """Never more than fits between two steps, nor half as much again as there is to read."""
    chosen = read_together(lengths, most)
    assert chosen[0] == 0
    assert len({*chosen}) == len(chosen)
    if len(chosen) > 1:
        read = [own for index in chosen if (own := lengths[index]) is not None]
        assert len(read) == len(chosen)
        assert len(read) * max(read) <= min(most, PADDED * sum(read))


def test_a_quantised_generator_keeps_its_weights() -> None:
    """Its layers say that they are of float32, and aren't."""
    settings = QueueSettings(task="text-generation", model="builtin:generator", device="cpu", quantisation="int8")
    assert load_runner("q", settings).writer is not None
