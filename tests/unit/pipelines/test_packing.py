"""Packed encoders: no padding in the layers, and the same answers."""

from __future__ import annotations

import itertools
import random
import sys
from typing import Any

import pytest
import torch

from pipemill_worker.pipelines.packing import STACKS, Packing, can_pack
from pipemill_worker.pipelines.packing.rows import current, rows_to_pack
from pipemill_worker.pipelines.prepacked import is_prepacked, prepack
from tests.unit.pipelines.tiny import run_batched, runner_of, tiny_pipeline, wordpiece_tokenizer

#: Lengths of the rows of a batch, in tokens.
LENGTHS = (3, 17, 1, 40, 8, 17)


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


def alone(model: Any, inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """The features of each row of a batch in a pass of its own, without padding."""
    lengths = inputs["attention_mask"].sum(1).tolist()
    return [
        features(model, {name: value[row : row + 1, :length] for name, value in inputs.items()})[0]
        for row, length in enumerate(lengths)
    ]


def model_of(model_type: str, **options: Any) -> Any:
    """A tiny encoder."""
    return tiny_pipeline("feature-extraction", model_type, wordpiece_tokenizer(), **options).model


def watched(model: Any) -> list[tuple[int, ...]]:
    """Rows and tokens of the passes that the model's layers will run."""
    seen: list[tuple[int, ...]] = []
    first, _ = STACKS[model.config.model_type].ends(model.base_model)

    def note(_: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        seen.append(tuple((arguments or (named["hidden_states"],))[0].shape[:2]))

    first.register_forward_pre_hook(note, with_kwargs=True)
    return seen


def additions(model: Any) -> list[Any]:
    """What hangs on the modules beside what their classes give them: hooks, and functions in place of theirs."""
    names = ("_forward_hooks", "_forward_pre_hooks")
    functions = {"compute_position_bias", "forward"}
    return [[*(list(vars(each)[name]) for name in names), functions & vars(each).keys()] for each in model.modules()]


@pytest.mark.parametrize("model_type", STACKS)
def test_packed_rows_are_what_they_are_alone(model_type: str) -> None:
    """Each row of a packed batch has the features of the row alone; padding has none, and the layers don't see it."""
    model = model_of(model_type)
    inputs = batch()
    expected = alone(model, inputs)
    Packing(model)
    seen = watched(model)
    packed = features(model, inputs)
    assert seen == [(1, sum(LENGTHS))]
    for row, (length, features_alone) in enumerate(zip(LENGTHS, expected, strict=True)):
        assert (packed[row, :length] - features_alone).abs().max() < 1e-5
        assert not packed[row, length:].any()


@pytest.mark.parametrize("model_type", STACKS)
def test_fillers_round_a_pass_and_change_nothing(model_type: str) -> None:
    """86 tokens become 88, of which the answers know nothing; larger passes than those that gain stay as they are."""
    model = model_of(model_type)
    inputs = batch()
    expected = alone(model, inputs)
    packing = Packing(model, most_filled=sum(LENGTHS))
    seen = watched(model)
    packed = features(model, inputs)
    for row, (length, features_alone) in enumerate(zip(LENGTHS, expected, strict=True)):
        assert (packed[row, :length] - features_alone).abs().max() < 1e-5
        assert not packed[row, length:].any()
    packing.undo()
    Packing(model, most_filled=sum(LENGTHS) - 1)
    larger = watched(model)
    features(model, inputs)
    assert (seen[0], larger) == ((1, 88), [(1, 86)])


@pytest.mark.parametrize("model_type", ["bert", "distilbert", "mpnet"])
def test_fillers_are_no_first_tokens(model_type: str) -> None:
    """A classification whose last layer is computed for first tokens only answers the same."""
    model = tiny_pipeline("text-classification", model_type, wordpiece_tokenizer()).model
    expected = logits(model, batch())
    prepack(model, range(1, sys.maxsize))
    Packing(model, most_filled=sys.maxsize)
    assert (logits(model, batch()) - expected).abs().max() < 1e-5


@pytest.mark.parametrize("model_type", ["modernbert", "ultrabert"])
def test_a_window_holds_within_each_row(model_type: str) -> None:
    """Layers that see only near tokens do so in rows of many windows, too, and never see beyond a row's end."""
    model = model_of(model_type)
    inputs = batch((200, 7, 64, 65, 129, 2))
    expected = alone(model, inputs)
    Packing(model)
    packed = features(model, inputs)
    for row, features_alone in enumerate(expected):
        assert (packed[row, : len(features_alone)] - features_alone).abs().max() < 1e-5


def test_only_ragged_passes_are_packed() -> None:
    """Equal rows and a row alone run as they are, and so does all once packing is undone."""
    model = model_of("bert")
    packing = Packing(model)
    seen = watched(model)
    for lengths in (LENGTHS, (5, 5), (6,)):
        features(model, batch(lengths))
    packing.undo()
    features(model, batch())
    assert seen == [(1, sum(LENGTHS)), (2, 5), (1, 6), (len(LENGTHS), max(LENGTHS))]


@pytest.mark.parametrize("model_type", ["bert", "modernbert", "mpnet"])
def test_left_padding_is_packed_too(model_type: str) -> None:
    """Where a row's tokens stand in the batch doesn't matter to the layers."""
    model = model_of(model_type)
    inputs = {name: value.flip(1) for name, value in batch().items()}
    positions = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)
    if model_type == "mpnet":
        positions = positions + 2  # It counts from behind the padding's id.
    expected = features(model, {**inputs, "position_ids": positions})
    Packing(model)
    seen = watched(model)
    packed = features(model, {**inputs, "position_ids": positions})
    real = inputs["attention_mask"].bool()
    assert seen == [(1, sum(LENGTHS))]
    assert (packed[real] - expected[real]).abs().max() < 1e-5


def test_padding_of_the_inputs_own_keeps_its_features() -> None:
    """What a tokenizer padded is part of the inputs: its features are the direct call's, in a batch and alone."""
    pipe = tiny_pipeline("feature-extraction")
    runner = runner_of("feature-extraction", pipe)
    texts = ["river", "river stone cloud winter", "music garden"]
    options = {"tokenize_kwargs": {"padding": "max_length", "max_length": 12}}
    run = run_batched(runner, [(text, options) for text in texts])
    assert run.batches == [3]
    direct = [*texts, texts[0]]
    answers = [*run.answers, *run_batched(runner, [(texts[0], options)]).answers]
    for text, answer in zip(direct, answers, strict=True):
        assert (torch.tensor(answer) - torch.tensor(pipe(text, **options))).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("model_type", "asked", "by_config"),
    [
        *itertools.product(("bert", "modernbert", "mpnet"), ("output_hidden_states", "output_attentions"), [False]),
        *itertools.product(("bert", "modernbert", "mpnet"), ["output_hidden_states"], [True]),
        ("mpnet", "output_attentions", True),  # The others refuse it, unless their attention isn't torch's.
    ],
)
def test_what_layers_give_on_the_way_is_not_packed(model_type: str, asked: str, by_config: bool) -> None:  # noqa: FBT001  # one of two ways
    """A pass that is asked for each layer's outputs runs padded, and gives them as it did."""
    model = model_of(model_type)
    inputs: dict[str, Any] = batch()
    if by_config:
        setattr(model.config, asked, True)
    else:
        inputs[asked] = True
    with torch.inference_mode():
        expected = model(**inputs)
        Packing(model)
        seen = watched(model)
        given = model(**inputs)
    assert seen == [(len(LENGTHS), max(LENGTHS))]
    assert list(given) == list(expected)
    for mine, theirs in zip(given.to_tuple(), expected.to_tuple(), strict=True):
        layers = zip(mine, theirs, strict=True) if isinstance(theirs, tuple) else [(mine, theirs)]
        assert all(torch.equal(one, other) for one, other in layers)


@pytest.mark.parametrize("model_type", ["roberta", "modernbert", "mpnet"])
def test_what_is_undone_is_as_before(model_type: str) -> None:
    """A model that was packed and isn't any more answers as it did, bit for bit, and nothing hangs on it."""
    model = model_of(model_type)
    before, attention = features(model, batch()), model.config._attn_implementation
    hung = additions(model)
    packing = Packing(model)
    assert additions(model) != hung
    packing.undo()
    assert additions(model) == hung
    assert torch.equal(features(model, batch()), before)
    assert model.config._attn_implementation == attention


def attended(model: Any) -> list[tuple[int, ...]]:
    """Rows and tokens that the last layer of each pass goes on with once they have attended."""
    seen: list[tuple[int, ...]] = []
    stack = STACKS[model.config.model_type]
    last = model.base_model.get_submodule(stack.layers).layer[-1].get_submodule(stack.attended)
    last.register_forward_hook(lambda _, __, output: seen.append(tuple(output.shape[:2])))
    return seen


def queries(model: Any) -> list[tuple[int, ...]]:
    """From which rows and tokens the last layer of each pass looks, where its stack says what makes its queries."""
    seen: list[tuple[int, ...]] = []
    stack = STACKS[model.config.model_type]
    if stack.query:
        last = model.base_model.get_submodule(stack.layers).layer[-1].get_submodule(stack.query)
        last.register_forward_hook(lambda _, inputs, __: seen.append(tuple(inputs[0].shape[:2])))
    return seen


def logits(model: Any, inputs: dict[str, torch.Tensor], **asked: bool) -> torch.Tensor:
    """The scores of each row."""
    with torch.inference_mode():
        scores: torch.Tensor = model(**inputs, **asked).logits
    return scores


@pytest.mark.parametrize("model_type", [name for name, stack in STACKS.items() if stack.attended])
def test_a_classification_finishes_first_tokens_only(model_type: str) -> None:
    """The last layer ends with each row's first token; scores are those of the model as it was, together and alone."""
    model = tiny_pipeline("text-classification", model_type, wordpiece_tokenizer()).model
    wide = {name: torch.nn.functional.pad(value, (0, 3)) for name, value in batch((4, 6)).items()}
    batches = [batch(), batch((5, 5)), batch((6,)), wide]
    expected = [logits(model, inputs) for inputs in batches]
    Packing(model)
    seen, looked = attended(model), queries(model)
    for inputs, scores in zip(batches, expected, strict=True):
        assert (logits(model, inputs) - scores).abs().max() < 1e-5
    assert seen == [(1, len(LENGTHS)), (2, 1), (1, 1), (2, 1)]
    assert looked == (seen if STACKS[model_type].query else [])


@pytest.mark.parametrize("model_type", [name for name, stack in STACKS.items() if stack.sources])
def test_keys_and_values_are_left_out_where_only_first_tokens_look(model_type: str) -> None:
    """In a packed pass, the last layer's hidden states stand for both; alone, and undone, they are made."""
    model = tiny_pipeline("text-classification", model_type, wordpiece_tokenizer()).model
    packing = Packing(model)
    stack = STACKS[model_type]
    layers = model.base_model.get_submodule(stack.layers).layer
    made: list[bool] = []
    for layer in (layers[0], layers[-1]):
        for name in stack.sources or ():
            source = layer.get_submodule(name)
            source.register_forward_hook(lambda _, given, output: made.append(output is not given[0]))
    logits(model, batch())
    logits(model, batch((6,)))
    packing.undo()
    logits(model, batch())
    assert made == [True, True, False, False] + [True] * 8


def test_a_second_layout_of_weights_is_left_out_and_put_back() -> None:
    """Keys and values that are computed by oneDNN are left out like others, and then computed by it again."""
    model = tiny_pipeline("text-classification").model
    inputs = batch()
    expected = logits(model, inputs)
    prepack(model, range(1, sys.maxsize))
    before = additions(model)
    packing = Packing(model)
    made: list[bool] = []
    key = model.base_model.encoder.layer[-1].attention.self.key
    hook = key.register_forward_hook(lambda _, given, output: made.append(output is not given[0]))
    assert (logits(model, inputs) - expected).abs().max() < 1e-5
    assert made == [False]
    hook.remove()
    packing.undo()
    assert additions(model) == before
    assert is_prepacked(key)


def test_keys_are_made_where_they_are_no_plain_product() -> None:
    """Where somebody else computes keys or values (an adapter, a hook of accelerate), nothing is left out."""
    own, wrapped = (tiny_pipeline("text-classification").model for _ in range(2))
    attention = own.base_model.encoder.layer[-1].attention.self

    class Twice(torch.nn.Linear):
        def forward(self, given: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(given)

    attention.key.__class__ = Twice
    attention = wrapped.base_model.encoder.layer[-1].attention.self
    plain = attention.value.forward
    attention.value.forward = lambda given: 3 * plain(given)
    for model in (own, wrapped):
        expected = logits(model, batch())
        packing = Packing(model)
        assert (logits(model, batch()) - expected).abs().max() < 1e-5
        packing.undo()
        assert torch.equal(logits(model, batch()), expected)


def test_first_tokens_are_found_behind_padding_on_the_left() -> None:
    """A row's first token is its own, wherever the row stands in the batch."""
    model = tiny_pipeline("text-classification").model
    inputs = {name: value.flip(1) for name, value in batch().items()}
    inputs["position_ids"] = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)
    expected = [
        logits(model, {name: value[row : row + 1, -length:] for name, value in inputs.items()})
        for row, length in enumerate(LENGTHS)
    ]
    Packing(model)
    assert (logits(model, inputs) - torch.cat(expected)).abs().max() < 1e-5


def test_other_heads_and_hand_made_passes_get_every_token() -> None:
    """Where each token is read, or each layer's output is asked for, or we are told so, no token is left out."""
    tokens = tiny_pipeline("token-classification").model
    told = tiny_pipeline("text-classification").model
    asked = tiny_pipeline("text-classification").model
    Packing(tokens)
    Packing(told, every_token=True)
    Packing(asked)
    seen = [attended(model) for model in (tokens, told, asked)]
    logits(tokens, batch())
    logits(told, batch())
    logits(asked, batch(), output_hidden_states=True)
    everything = [(1, sum(LENGTHS))]
    assert seen == [everything, everything, [(len(LENGTHS), max(LENGTHS))]]


def test_mpnets_bias_is_that_of_the_longest_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """A packed pass computes the bias by distance for its longest row, not for all its tokens."""
    model = model_of("mpnet")
    sizes = []
    plain = model.encoder.compute_position_bias

    def compute(hidden_states: torch.Tensor) -> torch.Tensor:
        sizes.append(hidden_states.shape[1])
        bias: torch.Tensor = plain(hidden_states)
        return bias

    monkeypatch.setattr(model.encoder, "compute_position_bias", compute)
    Packing(model)
    features(model, batch())
    assert sizes == [max(LENGTHS)]


@pytest.mark.parametrize("model_type", ["bert", "mpnet"])
def test_a_pass_that_fails_leaves_nothing_behind(model_type: str) -> None:
    """After an error in a packed pass, the next pass of the thread is packed by its own mask."""
    model = model_of(model_type)
    expected = features(model, batch((4, 9)))
    Packing(model)
    broken = {name: value.clone() for name, value in batch().items()}
    broken["input_ids"][0, 0] = 10**6
    with pytest.raises(IndexError):
        features(model, broken)
    assert current.rows is None
    assert (features(model, batch((4, 9)))[0, :4] - expected[0, :4]).abs().max() < 1e-5
    assert features(model, batch((6,))).shape == (1, 6, 32)


@pytest.mark.parametrize(
    ("model_type", "packs"),
    [("bert", True), ("modernbert", True), ("mpnet", True), ("deberta-v2", False), ("gpt2", False)],
)
def test_only_what_is_proven_is_packed(model_type: str, packs: bool) -> None:  # noqa: FBT001  # an expected value
    """What attends in a way of its own, and decoders, are left to padding."""
    assert (
        can_pack("feature-extraction", tiny_pipeline("feature-extraction", model_type, wordpiece_tokenizer())) is packs
    )


def test_other_attention_is_left_alone() -> None:
    """A model loaded with another attention than its usual one keeps it."""
    pipe = tiny_pipeline("feature-extraction")
    pipe.model.set_attn_implementation("eager")
    assert not can_pack("feature-extraction", pipe)


def test_a_model_on_several_devices_is_left_alone() -> None:
    """A model that is spread over devices isn't packed: where its rows stand is known on one."""
    pipe = tiny_pipeline("feature-extraction")
    pipe.model.hf_device_map = {"embeddings": "cpu", "encoder": "disk"}
    assert not can_pack("feature-extraction", pipe)
    pipe.model.hf_device_map = {"": "cpu"}
    assert can_pack("feature-extraction", pipe)


def test_a_head_over_the_vocabulary_is_left_to_padding() -> None:
    """Where the most work is behind the layers, padding must stay bounded."""
    assert not can_pack("fill-mask", tiny_pipeline("fill-mask"))


@pytest.mark.parametrize("model_type", ["bert", "eurobert", "modernbert", "mpnet"])
def test_random_batches(model_type: str) -> None:
    """Any mixture of lengths packs to the features that padding gives."""
    rng = random.Random(2)
    model = model_of(model_type)
    packing = Packing(model)
    for _ in range(12):
        inputs = batch(tuple(rng.randint(1, 60) for _ in range(rng.randint(1, 9))))
        if model_type == "bert":
            inputs["token_type_ids"] = inputs["attention_mask"] * rng.randint(0, 1)
        packed = features(model, inputs)
        packing.undo()
        real = inputs["attention_mask"].bool()
        assert (packed[real] - features(model, inputs)[real]).abs().max() < 1e-5
        packing = Packing(model)


@pytest.mark.parametrize(
    "mask",
    [
        None,
        torch.ones(2, 1, 3, 3),
        torch.ones(2, 3, dtype=torch.long),
        torch.tensor([[1, 1, 0], [1, 0, 0]]),
        torch.tensor([[1, 1, 1], [0, 0, 0]]),
    ],
    ids=["none", "by pairs", "no padding", "padding in all", "an empty row"],
)
def test_what_is_not_packed(mask: torch.Tensor | None) -> None:
    """A pass without a mask of tokens, without padding, with padding in each row or with an empty row isn't packed."""
    assert rows_to_pack(mask) is None


def test_padding_comes_and_goes() -> None:
    """What is packed and unpacked again is as before, with zeros for the padding."""
    rows = rows_to_pack(torch.tensor([[1, 1, 0], [1, 1, 1]]))
    assert rows is not None
    padded = torch.arange(12.0).view(2, 3, 2)
    packed = rows.pack(padded)
    assert packed.tolist() == [[[0, 1], [2, 3], [6, 7], [8, 9], [10, 11]]]
    assert rows.unpack(packed).tolist() == [[[0, 1], [2, 3], [0, 0]], [[6, 7], [8, 9], [10, 11]]]
    assert rows.pack_positions(padded[:1]).tolist() == [[[0, 1], [2, 3], [0, 1], [2, 3], [4, 5]]]
    assert rows.pack_positions(padded).tolist() == packed.tolist()
    assert rows.bounds.tolist() == [0, 2, 5]
