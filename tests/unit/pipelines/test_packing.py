"""Packed encoders: no padding in the layers, and the same answers."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from pipemill_worker.pipelines.packing import STACKS, Packing, can_pack
from tests.unit.pipelines.tiny import tiny_pipeline, wordpiece_tokenizer

#: Lengths of the rows of a batch, in tokens.
LENGTHS = (3, 17, 1, 40, 8)


def batch(lengths: tuple[int, ...] = LENGTHS) -> dict[str, torch.Tensor]:
    """Random token ids, padded on the right."""
    rng = torch.Generator().manual_seed(4)
    rows = [torch.randint(6, 30, (length,), generator=rng) for length in lengths]
    pad = torch.nn.utils.rnn.pad_sequence
    return {
        "input_ids": pad(rows, batch_first=True, padding_value=1),
        "attention_mask": pad([torch.ones_like(row) for row in rows], batch_first=True),
    }


def features(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """The encoder's last layer."""
    with torch.inference_mode():
        outputs: torch.Tensor = model.base_model(**inputs).last_hidden_state
    return outputs


def model_of(model_type: str) -> Any:
    """A tiny encoder."""
    return tiny_pipeline("feature-extraction", model_type, wordpiece_tokenizer()).model


@pytest.mark.parametrize("model_type", STACKS)
def test_packed_rows_are_what_they_are_alone(model_type: str) -> None:
    """Each row of a packed batch has the features of the row alone; padding has none."""
    model = model_of(model_type)
    inputs = batch()
    alone = [
        features(model, {name: value[row : row + 1, :length] for name, value in inputs.items()})[0]
        for row, length in enumerate(LENGTHS)
    ]
    Packing(model)
    packed = features(model, inputs)
    for row, (length, expected) in enumerate(zip(LENGTHS, alone, strict=True)):
        assert (packed[row, :length] - expected).abs().max() < 1e-5
        assert not packed[row, length:].any()


def test_the_layers_see_no_padding() -> None:
    """The layers run over as many tokens as the batch has, not over rows times the longest."""
    model = model_of("bert")
    seen = []
    model.base_model.encoder.layer[0].register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape[:2])))
    packing = Packing(model)
    features(model, batch())
    features(model, batch((5, 5)))
    packing.undo()
    features(model, batch())
    assert seen == [(1, sum(LENGTHS)), (2, 5), (len(LENGTHS), max(LENGTHS))]


def test_left_padding_is_packed_too() -> None:
    """Where a row's tokens stand in the batch doesn't matter to the layers."""
    model = model_of("bert")
    inputs = {name: value.flip(1) for name, value in batch().items()}
    positions = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)
    expected = features(model, {**inputs, "position_ids": positions})
    Packing(model)
    packed = features(model, {**inputs, "position_ids": positions})
    real = inputs["attention_mask"].bool()
    assert (packed[real] - expected[real]).abs().max() < 1e-5


def test_what_is_undone_is_as_before() -> None:
    """A model that was packed and isn't any more answers as it did, bit for bit."""
    model = model_of("roberta")
    before = features(model, batch())
    packing = Packing(model)
    packing.undo()
    assert torch.equal(features(model, batch()), before)
    assert model.config._attn_implementation == "sdpa"


def test_a_pass_that_fails_leaves_nothing_behind() -> None:
    """After an error in the layers, the next pass of the thread is packed by its own mask."""
    model = model_of("bert")
    expected = features(model, batch((4, 9)))
    Packing(model)
    broken = {name: value.clone() for name, value in batch().items()}
    broken["input_ids"][0, 0] = 10**6
    with pytest.raises(IndexError):
        features(model, broken)
    assert (features(model, batch((4, 9)))[0, :4] - expected[0, :4]).abs().max() < 1e-5
    single = batch((6,))
    assert features(model, single).shape == (1, 6, 32)


@pytest.mark.parametrize(
    ("model_type", "packs"),
    [("bert", True), ("distilbert", True), ("mpnet", False), ("albert", False), ("gpt2", False)],
)
def test_only_what_is_proven_is_packed(model_type: str, packs: bool) -> None:  # noqa: FBT001  # an expected value
    """Relative positions, shared layers and decoders are left to padding."""
    assert (
        can_pack("feature-extraction", tiny_pipeline("feature-extraction", model_type, wordpiece_tokenizer())) is packs
    )


def test_other_attention_is_left_alone() -> None:
    """A model loaded with another attention than torch's own keeps it."""
    pipe = tiny_pipeline("feature-extraction")
    pipe.model.set_attn_implementation("eager")
    assert not can_pack("feature-extraction", pipe)


def test_a_head_over_the_vocabulary_is_left_to_padding() -> None:
    """Where the most work is behind the layers, padding must stay bounded."""
    assert not can_pack("fill-mask", tiny_pipeline("fill-mask"))


def test_random_batches() -> None:
    """Any mixture of lengths, also with token types, packs to the same features."""
    rng = random.Random(2)
    model = model_of("bert")
    packing = Packing(model)
    for _ in range(20):
        inputs = batch(tuple(rng.randint(1, 60) for _ in range(rng.randint(1, 9))))
        inputs["token_type_ids"] = inputs["attention_mask"] * rng.randint(0, 1)
        packed = features(model, inputs)
        packing.undo()
        real = inputs["attention_mask"].bool()
        assert (packed[real] - features(model, inputs)[real]).abs().max() < 1e-5
        packing = Packing(model)
