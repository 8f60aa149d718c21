"""Encoder-decoders' texts, written together: each as alone, whatever the model makes of places."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any, Final

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention
from transformers.cache_utils import Cache, EncoderDecoderCache

from pipemill.catalogue.model import BatchSettings
from pipemill.errors import ModelLoadError
from pipemill_worker.pipelines.runner import TransformersRunner
from pipemill_worker.pipelines.writing.beams import followed
from pipemill_worker.pipelines.writing.items import PipelineWriter
from pipemill_worker.pipelines.writing.places import Places
from pipemill_worker.pipelines.writing.proof import proven_places
from pipemill_worker.pipelines.writing.sharing import Groups
from pipemill_worker.pipelines.writing.slab import Read, Room, Slab
from pipemill_worker.pipelines.writing.sources import SourceSlab
from pipemill_worker.seams import JOINS, Item
from tests.unit.pipelines.own.models import own_pipeline
from tests.unit.pipelines.test_streams import told
from tests.unit.pipelines.tiny import PAD, SEP, Settings, runner_of, sentence, unchecked

_SIDES: Final = {
    f"{side}_{name}": value
    for side in ("encoder", "decoder")
    for name, value in (("layers", 2), ("attention_heads", 4), ("ffn_dim", 37))
}
#: Decoders that look places up in a table.
_BART: Final[dict[str, Any]] = {**_SIDES, "d_model": 32, "init_std": 0.3, "decoder_start_token_id": SEP}
#: Decoders that weigh scores by distances.
_T5: Final[dict[str, Any]] = {
    "d_model": 32,
    "d_kv": 8,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "d_ff": 37,
    "initializer_factor": 3.0,
    "decoder_start_token_id": PAD,
}
#: Model types that make something different of places, read otherwise, or attend without torch's own kernel.
KINDS: Final[Mapping[str, dict[str, Any]]] = {
    "bart": _BART,
    "bigbird_pegasus": _BART,
    "blenderbot": _BART,
    "longt5": _T5,
    "m2m_100": _BART,
    "marian": _BART,
    "mbart": _BART,
    "mt5": _T5,
    "mvp": _BART,
    "pegasus": _BART,
    "t5": _T5 | {"feed_forward_proj": "gated-gelu"},
    "umt5": _T5,
}
WAYS: Final[tuple[Mapping[str, Any], ...]] = (
    {"num_beams": 1},
    {},
    {"num_beams": 2},
    {"num_beams": 4, "num_return_sequences": 2},
    {"num_beams": 1, "do_sample": True, "seed": 3},
    {"num_beams": 3, "no_repeat_ngram_size": 2},
    {"num_beams": 1, "repetition_penalty": 1.5},
    {"num_beams": 4, "length_penalty": 2.0},
    {"num_beams": 4, "early_stopping": True},
    {"num_beams": 1, "num_return_sequences": 2, "do_sample": True, "seed": 5},
    {"num_beams": 3, "early_stopping": "never", "min_new_tokens": 4},
)


@cache
def runner(kind: str) -> TransformersRunner:
    """A random model's."""
    return runner_of("text2text-generation", own_pipeline("text2text-generation", kind, **KINDS[kind]))


def prompts(count: int) -> list[tuple[str, dict[str, Any]]]:
    """Texts of all lengths, and ways to write."""
    rng = random.Random(count)
    return [
        (sentence(rng, 1, 20), {"max_new_tokens": rng.choice([5, 6, 9, 25]), **WAYS[number % len(WAYS)]})
        for number in range(count)
    ]


def direct(kind: str, text: str, parameters: Mapping[str, Any]) -> Any:
    """What the pipeline itself answers."""
    own = dict(parameters)
    if (seed := own.pop("seed", None)) is not None:
        torch.manual_seed(seed)
    pipe: Any = runner(kind).pipe
    return pipe(text, **own)


def item_of(kind: str, text: str, parameters: Mapping[str, Any]) -> tuple[Any, Item]:
    """A job, prepared, and its one item."""
    prepared = runner(kind).prepare(text, parameters)
    (item,) = prepared.items
    assert item.group == JOINS
    return prepared, item


def check(kind: str, writer: PipelineWriter, jobs: list[tuple[str, dict[str, Any]]], arrive: int) -> None:
    """Each is answered as alone, when so many arrive with every step."""
    prepared, items = zip(*(item_of(kind, *job) for job in jobs), strict=True)
    waiting, outputs = list(items), dict[int, Any]()
    while waiting or writer.busy:
        for _ in range(arrive):
            if waiting and writer.offer(waiting[0]):
                del waiting[0]
        outputs.update((id(item), output) for item, output in writer.step())
    answers = [runner(kind).finish(each, [outputs[id(item)]]) for each, item in zip(prepared, items, strict=True)]
    assert answers == [direct(kind, *job) for job in jobs]


def writer_of(kind: str) -> PipelineWriter:
    """A runner's own."""
    writer = runner(kind).writer
    assert isinstance(writer, PipelineWriter)
    return writer


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_text_is_answered_as_alone(kind: str) -> None:
    """Whatever joins and leaves beside it, by whatever way, with beams and without."""
    check(kind, writer_of(kind), prompts(33), 2)


@pytest.mark.parametrize("arrive", [1, 100])
def test_however_they_arrive(arrive: int) -> None:
    """One by one, and all at once, when sources are read together."""
    check("bart", writer_of("bart"), prompts(44), arrive)


def test_sources_of_like_lengths_are_read_together() -> None:
    """One pass of the encoder for several texts; one by one where padding isn't proven to be harmless."""
    for kind, most in (("bart", 12), ("longt5", 1)):
        passes: list[int] = []
        encoder = runner(kind).pipe.model.get_encoder()
        hook = encoder.register_forward_pre_hook(
            lambda _, __, named, passes=passes: passes.append(len(named["input_ids"])), with_kwargs=True
        )
        items = [item_of(kind, "river stone cloud", {"max_new_tokens": 2, "num_beams": 1})[1] for _ in range(12)]
        writer_of(kind).write_all(items)
        hook.remove()
        assert max(passes) == most
        assert sum(passes) == len(items)


def test_no_encoder_runs_while_a_job_is_prepared() -> None:
    """Jobs are prepared by many threads; the model belongs to the one that owns the device."""
    encoder = runner("bart").pipe.model.get_encoder()
    passes: list[int] = []
    hook = encoder.register_forward_pre_hook(lambda *_: passes.append(1))
    prepared, item = item_of("bart", "river stone", {"max_new_tokens": 3})
    assert passes == []
    outputs = writer_of("bart").write_all([item])
    assert passes == [1]
    runner("bart").finish(prepared, outputs)
    assert passes == [1]
    hook.remove()


def test_texts_that_leave_disturb_nobody() -> None:
    """Of eight three are stopped in the middle; the five others are answered as alone."""
    jobs = [(sentence(random.Random(n), 1, 20), {"max_new_tokens": 12, "num_beams": 1 + n % 3}) for n in range(8)]
    prepared, items = zip(*(item_of("marian", *job) for job in jobs), strict=True)
    writer = writer_of("marian")
    assert all(writer.offer(item) for item in items)
    outputs: dict[int, Any] = {}
    for _ in range(4):
        outputs.update((id(item), output) for item, output in writer.step())
    gone = (0, 4, 7)
    writer.leave([items[place] for place in gone])
    while writer.busy:
        outputs.update((id(item), output) for item, output in writer.step())
    for place in {*range(8)}.difference(gone):
        answer = runner("marian").finish(prepared[place], [outputs[id(items[place])]])
        assert answer == direct("marian", *jobs[place])


def test_memory_holds_sources_and_texts_together() -> None:
    """No more join than fit with all that they may write and read, and room is never beyond its bound.

    Who needs more than all of it is left to batches of equal parameters.
    """
    model, threads = runner("bart").pipe.model, runner("bart")._threads
    found = proven_places(model)
    assert found is not None
    places, token_bytes = found
    writer = PipelineWriter(model, lambda: threads.stages, max_rows=64, max_tokens=300, places=places)
    jobs = [(sentence(random.Random(n), 1, 30), {"max_new_tokens": 15, "num_beams": 1 + n % 2}) for n in range(20)]
    prepared, items = zip(*(item_of("bart", *job) for job in jobs), strict=True)
    waiting, outputs, at_once, peak = list(items), dict[int, Any](), 0, 0
    while waiting or writer.busy:
        while waiting and writer.offer(waiting[0]):
            del waiting[0]
        at_once = max(at_once, len(writer._courses))
        outputs.update((id(item), output) for item, output in writer.step())
        peak = max(peak, getattr(writer._writer, "kept_bytes"))  # noqa: B009 - of the writer behind the protocol
    assert 1 < at_once < 20
    assert 0 < peak <= 300 * token_bytes
    for job, each, item in zip(jobs, prepared, items, strict=True):
        assert runner("bart").finish(each, [outputs[id(item)]]) == direct("bart", *job)
    _, huge = item_of("bart", "river", {"max_new_tokens": 100, "num_beams": 4})
    assert not writer.takes(huge.payload.inputs, huge.payload.forward)


def test_a_model_that_makes_otherwise_of_places_keeps_to_groups(caplog: pytest.LogCaptureFixture) -> None:
    """Where rows don't come out as alone, the runner writes in groups of equal parameters, and says so."""
    with caplog.at_level(logging.INFO):
        pipe = own_pipeline("text2text-generation", "led", **_BART, attention_window=4)
        assert runner_of("text2text-generation", pipe).writer is None
    assert "LEDForConditionalGeneration isn't written token by token (other numbers)" in caplog.messages


def test_a_model_whose_sources_can_not_be_shared_keeps_one_for_each_row(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is written together all the same, looks as it did, and the log says so."""
    monkeypatch.setattr(Groups, "holds", lambda *_: False)
    model = own_pipeline("text2text-generation", "bart", **_BART).model
    with caplog.at_level(logging.INFO):
        found = proven_places(model)
    assert found is not None
    assert not found[0].shared
    assert model.config._attn_implementation == "sdpa"
    assert any("looks at sources row by row" in message for message in caplog.messages)


def test_a_decoder_of_another_build_keeps_to_groups(caplog: pytest.LogCaptureFixture) -> None:
    """What can't be tried isn't taken."""
    model = own_pipeline("text2text-generation", "bart", **_BART).model
    del model.model.decoder.embed_positions
    with caplog.at_level(logging.INFO):
        assert proven_places(model) is None
    assert any("isn't written token by token (AttributeError: " in message for message in caplog.messages)


def test_other_engines_are_refused() -> None:
    """They write on from a prompt."""
    pipe = own_pipeline("text2text-generation", "bart", **_BART)
    settings = replace(Settings(task="text2text-generation", batch=BatchSettings()), engine="vllm")
    with pytest.raises(ModelLoadError, match="engine vllm is for models that write on from a prompt"):
        TransformersRunner("q", pipe, settings, validate=unchecked)


def test_places_are_stood_in_for_in_steps_only() -> None:
    """Between steps, the model counts places itself, as for a job that is written alone."""
    decoder = own_pipeline("text2text-generation", "bart", **_BART).model.get_decoder()
    ids = torch.tensor([[5], [6]])
    before = decoder.embed_positions(ids, 3)
    places = Places(decoder)
    assert torch.equal(decoder.embed_positions(ids, 3), before)
    with places.at([3, 7], [5, 6]):
        own = decoder.embed_positions(ids, 9)
    assert own.shape == (2, 1, 32)
    assert torch.equal(own[0], before[0])
    assert not torch.equal(own[1], before[1])
    assert torch.equal(decoder.embed_positions(ids, 3), before)


@given(st.lists(st.integers(0, 7), min_size=8, max_size=8))
def test_each_beam_is_given_a_row_of_its_own(parents: list[int]) -> None:
    """Each row ends up with what its beam goes on from; no row is copied from after it was written to."""
    rows, copies = followed(parents)
    assert sorted(rows) == list(range(8))
    held = list(range(8))
    for row, into in copies:
        held[into] = held[row]
    assert [held[row] for row in rows] == parents
    assert len(copies) == 8 - len({*parents})


def test_slabs_share_their_room() -> None:
    """One that needs more than is left takes back what another has and doesn't use, and what that holds stays."""
    room = Room(100)
    first, second = Slab(room), Slab(room)
    text = torch.arange(20.0).reshape(1, 1, 10, 2)
    first.add(Cache(layers=[Read(text, -text)]))
    assert first.size > 50
    longer = torch.ones(1, 1, 60, 2)
    second.add(Cache(layers=[Read(longer, longer)]))
    assert first.size + second.size <= 100
    assert torch.equal(first.cache.layers[0].keys[:1, :, :10], text)
    assert torch.equal(first.cache.layers[0].values[:1, :, :10], -text)


@pytest.mark.parametrize("kind", ["bart", "t5"])
def test_a_text_is_told_as_it_is_written(kind: str) -> None:
    """Without beams, token by token, and the pieces are the answer; its account says the same, and what it took."""
    jobs = [(sentence(random.Random(n), 1, 20), {"max_new_tokens": 4 + n, "num_beams": 1}) for n in range(9)]
    made = [item_of(kind, *job) for job in jobs]
    pieces, outputs = told(runner(kind), made)
    assert any(pieces)
    for job, (prepared, item), piece, output in zip(jobs, made, pieces, outputs, strict=True):
        (answer,) = direct(kind, *job)
        account = runner(kind).account(prepared, [output], followed=True)
        assert piece == account.text == answer["generated_text"]
        assert account.usage is not None
        assert account.usage.prompt_tokens == item.payload.length
        assert account.usage.finish_reason == (
            "length" if account.usage.completion_tokens == job[1]["max_new_tokens"] else "stop"
        )


def test_beams_are_told_in_one_piece() -> None:
    """Nothing is sure of a search before its end."""
    made = [item_of("bart", "river stone", {"max_new_tokens": 9, "num_beams": 3})]
    pieces, outputs = told(runner("bart"), made)
    assert pieces == [""]
    (answer,) = direct("bart", "river stone", {"max_new_tokens": 9, "num_beams": 3})
    assert runner("bart").account(made[0][0], outputs, followed=True).text == answer["generated_text"]


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 5)), max_size=12), st.booleans())
def test_every_row_keeps_its_source(steps: list[tuple[int, int]], shared: bool) -> None:  # noqa: FBT001 - drawn
    """Whatever joins with so many rows and leaves in whatever order, each row looks at what its prompt has read."""
    slab = SourceSlab(10_000, Places(torch.nn.Identity(), shared=shared))
    prompts: list[tuple[float, list[int]]] = []
    for number, (rows, leaves) in enumerate(steps, 1):
        mark = torch.full((1, 1, 1 + number % 3, 1), float(number))
        cache = EncoderDecoderCache(*(Cache(layers=[Read(mark, mark)]) for _ in range(2)))
        places: list[int] = []
        for _ in range(rows):
            places.append(slab.add(cache, beside=places[0] if places else None))
        prompts.append((float(number), places))
        if leaves < len(prompts):
            _, gone = prompts.pop(leaves)
            while gone:
                place = gone.pop()
                moved = slab.drop(place)
                for _, others in [*prompts, (0.0, gone)]:
                    others[:] = [place if each == moved else each for each in others]
        sources = slab._sources
        assert sources.rows == (len(prompts) if shared else slab.rows)
        for own, places in prompts:
            for place in places:
                assert slab._own.cache.layers[0].keys[place, 0, 0, 0] == own
                assert sources.cache.layers[0].keys[slab._of[place], 0, 0, 0] == own


def test_beams_look_at_their_source_together() -> None:
    """Rows of differing prompts, gathered by what they look at and put back: as looking each at its own."""
    sources = [1, 0, 1, 2, 1]
    keys, queries = torch.randn(3, 2, 4, 8), torch.randn(5, 2, 1, 8)
    groups = Groups(sources, [keys])
    assert groups.holds(keys)
    assert not groups.holds(keys.clone())
    attended = scaled_dot_product_attention(groups.gather(queries), keys, keys).transpose(1, 2)
    alone = scaled_dot_product_attention(queries, keys[sources], keys[sources]).transpose(1, 2)
    torch.testing.assert_close(groups.scatter(attended), alone)
