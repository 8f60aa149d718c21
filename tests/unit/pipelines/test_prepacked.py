"""A model's weights once more, as oneDNN reads them."""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from pipemill_worker.pipelines import memory, prepacked
from pipemill_worker.pipelines.prepacked import (
    Product,
    described,
    gaining_rows,
    prepack,
    restore,
    rows_that_gain,
)

#: Layers narrower than this are left to torch.
NARROWEST = prepacked._NARROWEST


@pytest.fixture(autouse=True)
def small_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let layers of any width count."""
    monkeypatch.setattr(prepacked, "_NARROWEST", 1)


class Attention(nn.Module):
    """Three layers that look at the same inputs, and one that doesn't."""

    def __init__(self, *, bias: bool, apart: bool = False) -> None:
        super().__init__()
        self.q_proj, self.k_proj = nn.Linear(24, 16, bias=bias), nn.Linear(24, 8, bias=bias and not apart)
        self.v_proj, self.o_proj = nn.Linear(24, 8, bias=bias), nn.Linear(32, 24)

    def forward(self, hidden: torch.Tensor, other: torch.Tensor | None = None) -> torch.Tensor:
        """Keys and values of others, if there are any."""
        seen = hidden if other is None else other
        return self.o_proj(torch.cat([self.q_proj(hidden), self.v_proj(seen), self.k_proj(seen)], dim=-1))  # type: ignore[no-any-return]  # a module's call


@pytest.mark.parametrize("rows", [0, 1, 5, 65])
def test_a_second_layout_of_weights_changes_nothing_but_rounding(rows: int) -> None:
    """In layers of both kinds, with and without bias, in passes of few rows and of many."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(24, 40), nn.Linear(40, 16, bias=False), Conv1D(8, 16))
    inputs = torch.randn(rows, 1, 24)
    with torch.inference_mode():
        before = model(inputs)
        assert len(prepack(model, range(1, 65), writes=True)) == 3
        assert [layer.weight.stride() for layer in model] == [(1, 40), (1, 16), (8, 1)]
        assert all("forward" in vars(layer) for layer in model)
        assert torch.allclose(model(inputs), before, atol=1e-6)


@pytest.mark.parametrize("rows", [1, 5, 65])
@pytest.mark.parametrize("bias", [True, False])
def test_layers_side_by_side_are_one_product(rows: int, bias: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """They share one, whether they are asked for the same inputs or, in any order, for others."""
    torch.manual_seed(0)
    model = Attention(bias=bias)
    inputs, others = torch.randn(2, rows, 24)
    with torch.inference_mode():
        before, crossed = model(inputs), model(inputs, others)
        products = prepack(model, range(1, 65), writes=True)
        assert len({id(each) for each in products.values()}) == 2
        assert products[id(model.q_proj)] is products[id(model.v_proj)]
        assert products[id(model.q_proj)].sizes == [16, 8, 8]
        for _ in range(2):
            assert torch.allclose(model(inputs), before, atol=1e-6)
            assert torch.allclose(model(inputs, others), crossed, atol=1e-6)


def test_products_of_one_pass_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three layers ask, one product answers; nothing is kept of the inputs behind the last."""
    model = Attention(bias=True)
    product = prepack(model, range(1, 65), writes=True)[id(model.q_proj)]
    calls: list[torch.Tensor] = []
    plain = Product.__call__

    def counted(self: Product, inputs: torch.Tensor) -> torch.Tensor:
        calls.append(inputs)
        return plain(self, inputs)

    monkeypatch.setattr(Product, "__call__", counted)
    with torch.inference_mode():
        model(torch.randn(3, 24))
    assert len(calls) == 2
    assert product._kept is None


def test_layers_of_different_kinds_stay_apart() -> None:
    """One with a bias and one without have a product each."""
    model = Attention(bias=True, apart=True)
    assert len({id(each) for each in prepack(model, range(1, 65), writes=True).values()}) == 4


def test_what_looks_at_a_source_stays_apart() -> None:
    """Queries come from what is written, keys and values from what was read: none computes for the others."""
    model = nn.Module()
    model.self_attn, model.encoder_attn = Attention(bias=True), Attention(bias=True)
    products = prepack(model, range(1, 65), writes=True)
    assert [len(products[id(each.q_proj)].sizes) for each in (model.self_attn, model.encoder_attn)] == [3, 1]


def test_weights_that_are_large_or_halves_have_one_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second one would take too much memory, or gains nothing."""
    assert prepack(nn.Linear(8, 8).bfloat16(), range(1, 65)) == {}
    monkeypatch.setattr("pipemill_worker.pipelines.prepacked.MOST_BYTES", 8 * 8 * 4 - 1)
    assert prepack(nn.Linear(32, 32), range(1, 65)) == {}


def test_weights_that_a_vocabulary_shares_stay_as_they_are() -> None:
    """Looking up rows of a transposed one would be slow."""
    model: Any = nn.ModuleDict({"embed": nn.Embedding(40, 8), "head": nn.Linear(8, 40, bias=False)})
    model["head"].weight = model["embed"].weight
    assert len(prepack(model, range(1, 65), writes=True)) == 1
    assert model["embed"].weight.stride() == (8, 1)


@pytest.mark.parametrize("rows", [1, 16, 35, 86, 300])
def test_an_encoders_layers_stay_apart_and_their_weights_as_they_are(rows: int) -> None:
    """Passes that aren't of one of the few sizes are filled up, and what fills them is left out again."""
    torch.manual_seed(0)
    model = Attention(bias=True)
    weights = [layer.weight.data_ptr() for layer in model.children()]
    inputs = torch.randn(1, rows, 24)
    with torch.inference_mode():
        before = model(inputs)
        assert len({id(each) for each in prepack(model, range(1, sys.maxsize)).values()}) == 4
        after = model(inputs)
    assert after.shape == before.shape
    assert torch.allclose(after, before, atol=1e-6)
    assert [layer.weight.data_ptr() for layer in model.children()] == weights


def test_layers_can_compute_as_torch_has_them_meanwhile() -> None:
    """Bit for bit, and then with the other layout again; a layer that somebody else has changed is left alone."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(24, 40), nn.Linear(40, 16))
    own = model[1].forward
    model[1].forward = lambda inputs: 2 * own(inputs)
    inputs = torch.randn(5, 24)
    with torch.inference_mode():
        before = model(inputs)
        assert list(prepack(model, range(1, 65))) == [id(model[0])]
        forwards = [vars(layer)["forward"] for layer in model]
        undo = restore(model)
        assert torch.equal(model(inputs), before)
        assert "forward" not in vars(model[0])
        undo()
    assert [vars(layer)["forward"] for layer in model] == forwards


@pytest.mark.parametrize(
    ("timed", "expected"),
    [
        ({}, range(0)),
        ({8: (1.0, 0.97)}, range(0)),
        ({8: (1.0, 0.4), 16: (2.0, 1.0), 32: (4.0, 3.9)}, range(1, 17)),
        ({16: (2.0, 1.0), 8: (1.0, 0.5)}, range(1, sys.maxsize)),
        ({8: (1.0, 1.0), 16: (2.0, 1.0), 32: (4.0, 2.0)}, range(16, sys.maxsize)),
        ({8: (1.0, 0.5), 16: (2.0, 2.0), 32: (4.0, 2.0), 64: (8.0, 2.0), 128: (9.0, 9.0)}, range(32, 65)),
    ],
)
def test_a_layout_is_for_passes_that_gain(timed: dict[int, tuple[float, float]], expected: range) -> None:
    """By a twentieth at least: the longest run of those that were timed, open where it ends with the last of them."""
    assert rows_that_gain(timed) == expected


@pytest.mark.parametrize(("own", "packed", "rows"), [(3.0, 1.0, range(1, sys.maxsize)), (1.0, 3.0, range(0))])
def test_the_commonest_product_is_timed(
    own: float, packed: float, rows: range, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one with the most weights, with both kernels; nothing is laid out where it gains nothing."""
    now, shapes = [0.0], set[tuple[int, ...]]()

    def takes(seconds: float, kernel: Any) -> Any:
        def run(inputs: torch.Tensor, weight: torch.Tensor, *others: Any) -> Any:
            now[0] += seconds
            shapes.add(tuple(weight.shape))
            return kernel(inputs, weight, *others)

        return run

    monkeypatch.setattr(prepacked, "linear", takes(own, prepacked.linear))
    monkeypatch.setattr(prepacked, "_multiply", takes(packed, prepacked._multiply))
    monkeypatch.setattr(prepacked.time, "thread_time", lambda: now[0])
    monkeypatch.setattr(prepacked.time, "perf_counter", lambda: now[0])
    model = nn.Sequential(nn.Linear(32, 48), nn.Linear(48, 32), nn.Linear(32, 48), nn.Linear(4, 5))
    assert gaining_rows(model) == rows
    assert shapes == {(48, 32)}
    assert len(prepack(model)) == (4 if rows else 0)


def test_whose_products_they_are_is_told() -> None:
    """In words, for `pipemill queues --json`."""
    model = nn.Linear(32, 32)
    assert described({}) == "torch"
    assert described(prepack(model, range(1, 65))) == "oneDNN up to 64 rows"
    restore(model)
    assert described(prepack(model, range(1, sys.maxsize))) == "oneDNN"
    restore(model)
    assert described(prepack(model, range(32, sys.maxsize))) == "oneDNN from 32 rows on"
    restore(model)
    assert described(prepack(model, range(16, 65))) == "oneDNN from 16 rows on up to 64 rows"


def test_narrow_layers_are_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adapters and the heads of classifiers gain nothing; what writes has all of its layers in hand."""
    monkeypatch.setattr(prepacked, "_NARROWEST", NARROWEST)
    model = nn.Sequential(nn.Linear(64, 31), nn.Linear(31, 64), nn.Linear(64, 32))
    assert list(prepack(model, range(1, 65))) == [id(model[2])]
    restore(model)
    assert len(prepack(model, range(1, 65), writes=True)) == 3


@pytest.mark.parametrize("rows", [1, 4, 5, 9])
def test_products_are_for_some_numbers_of_rows(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In passes of fewer and of more, torch multiplies."""
    by_onednn: list[int] = []
    multiply = prepacked._multiply
    monkeypatch.setattr(
        prepacked, "_multiply", lambda given, *rest: by_onednn.append(len(given)) or multiply(given, *rest)
    )
    model = nn.Linear(32, 40)
    inputs = torch.randn(rows, 32)
    with torch.inference_mode():
        before = model(inputs)
        prepack(model, range(5, 9))
        assert torch.allclose(model(inputs), before, atol=1e-6)
    assert by_onednn == ([rows] if rows == 5 else [])


@pytest.mark.parametrize("writes", [True, False])
def test_too_large_a_model_keeps_its_weights_where_they_are(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, *, writes: bool
) -> None:
    """In a file that processes share, perhaps; and the log says so."""
    monkeypatch.setattr(prepacked, "MOST_BYTES", 1)
    model = Attention(bias=True)
    weights = [layer.weight.data_ptr() for layer in model.children()]
    with caplog.at_level("INFO", "pipemill.worker"):
        assert prepack(model, writes=writes) == {}
    assert [layer.weight.data_ptr() for layer in model.children()] == weights
    assert "there is no room for" in caplog.text


def test_a_model_without_such_layers_gains_nothing() -> None:
    """There is nothing to time."""
    assert gaining_rows(nn.Sequential(nn.GELU(), nn.Embedding(4, 4))) == range(0)


def test_copies_leave_memory_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """As much as they take; what writes has its weights laid anew, which takes as much again."""
    copies = 32 * 32 * 4
    for free, expected in ((None, 1), (2 * copies, 1), (2 * copies - 1, 0)):
        monkeypatch.setattr(memory, "free_memory", lambda free=free: free)
        assert len(prepack(nn.Linear(32, 32), range(1, 65))) == expected
    for free, expected in ((4 * copies, 1), (4 * copies - 1, 0)):
        monkeypatch.setattr(memory, "free_memory", lambda free=free: free)
        assert len(prepack(nn.Linear(32, 32), range(1, 65), writes=True)) == expected


@pytest.mark.parametrize("rows", [1, 5])
def test_what_writes_has_its_layers_side_by_side_where_nothing_gains(rows: int) -> None:
    """Torch multiplies then."""
    torch.manual_seed(0)
    model = Attention(bias=True)
    inputs = torch.randn(rows, 24)
    with torch.inference_mode():
        before = model(inputs)
        products = prepack(model, range(0), writes=True)
        assert products[id(model.q_proj)].sizes == [16, 8, 8]
        assert torch.allclose(model(inputs), before, atol=1e-6)
        assert torch.allclose(products[id(model.o_proj)](torch.ones(rows, 32)), model.o_proj(torch.ones(rows, 32)))
    assert described(products) == "torch"


def test_layers_are_called_as_torch_lets_them() -> None:
    """By keyword, and with other numbers than theirs, which torch refuses in its own words."""
    layer = nn.Linear(8, 8)
    inputs = torch.randn(3, 8)
    with torch.inference_mode():
        before = layer(inputs)
        prepack(layer, range(1, 65))
        assert torch.equal(layer(input=inputs), before)
        with pytest.raises(RuntimeError, match="dtype"):
            layer(inputs.double())


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_an_empty_layer_is_left_alone() -> None:
    """It has nothing to multiply by."""
    assert list(prepack(nn.ModuleList([nn.Linear(4, 0), nn.Linear(0, 4)]), range(1, 65))) == []


def test_what_onednn_cannot_do_torch_does(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A model is served all the same, and the log says why."""

    def refused(_: Any) -> Any:
        raise RuntimeError("could not create a primitive")

    monkeypatch.setattr(prepacked, "_packed", refused)
    layer = nn.Linear(8, 8)
    assert prepack(layer, range(1, 65)) == {}
    assert "forward" not in vars(layer)
    assert "could not create a primitive" in caplog.text


def test_of_a_large_weight_a_part_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """In passes of all sizes, as of a small one."""
    timed = Counter[tuple[torch.Size, int]]()

    def note(weight: torch.Tensor, _: Any, rows: int, __: Any) -> tuple[float, float]:
        timed[weight.shape, rows] += 1
        slowed = timed[weight.shape, rows] == 2  # One round that the machine has slowed, one way more than the other.
        return 1.0, 9.0 if slowed else 0.5 if rows <= 64 else 1.0

    monkeypatch.setattr(prepacked, "_times", note)
    assert gaining_rows(nn.Linear(512, 50_000)) == range(1, 65)
    assert timed == {(torch.Size([4_096, 512]), rows): 5 for rows in (8, 16, 32, 64, 128, 256, 512, 1_024)}
