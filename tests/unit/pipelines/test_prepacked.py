"""A model's weights once more, for passes of few rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from pipemill_worker.pipelines.writing.prepacked import Product, prepack


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
        assert len(prepack(model)) == 3
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
        products = prepack(model)
        assert len({id(each) for each in products.values()}) == 2
        assert products[id(model.q_proj)] is products[id(model.v_proj)]
        assert products[id(model.q_proj)].sizes == [16, 8, 8]
        for _ in range(2):
            assert torch.allclose(model(inputs), before, atol=1e-6)
            assert torch.allclose(model(inputs, others), crossed, atol=1e-6)


def test_products_of_one_pass_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three layers ask, one product answers; nothing is kept of the inputs behind the last."""
    model = Attention(bias=True)
    product = prepack(model)[id(model.q_proj)]
    calls: list[torch.Tensor] = []
    plain = Product.__call__

    def counted(self: Product, inputs: torch.Tensor) -> torch.Tensor:
        calls.append(inputs)
        return plain(self, inputs)

    monkeypatch.setattr(Product, "__call__", counted)
    with torch.inference_mode():
        model(torch.randn(3, 24))
    assert len(calls) == 2
    assert product._seen is None
    assert product._outputs == {}


def test_layers_of_different_kinds_stay_apart() -> None:
    """One with a bias and one without have a product each."""
    model = Attention(bias=True, apart=True)
    assert len({id(each) for each in prepack(model).values()}) == 4


def test_what_looks_at_a_source_stays_apart() -> None:
    """Queries come from what is written, keys and values from what was read: none computes for the others."""
    model = nn.Module()
    model.self_attn, model.encoder_attn = Attention(bias=True), Attention(bias=True)
    products = prepack(model)
    assert [len(products[id(each.q_proj)].sizes) for each in (model.self_attn, model.encoder_attn)] == [3, 1]


def test_weights_that_are_large_or_halves_have_one_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second one would take too much memory, or gains nothing."""
    assert prepack(nn.Linear(8, 8).bfloat16()) == {}
    monkeypatch.setattr("pipemill_worker.pipelines.writing.prepacked.MOST_BYTES", 8 * 8 * 4 - 1)
    assert prepack(nn.Linear(8, 8)) == {}


def test_weights_that_a_vocabulary_shares_stay_as_they_are() -> None:
    """Looking up rows of a transposed one would be slow."""
    model: Any = nn.ModuleDict({"embed": nn.Embedding(40, 8), "head": nn.Linear(8, 40, bias=False)})
    model["head"].weight = model["embed"].weight
    assert len(prepack(model)) == 1
    assert model["embed"].weight.stride() == (8, 1)
