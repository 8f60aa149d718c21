"""The attention of packed rows: row by row, and through torch's kernel for GPUs, which a stand-in computes here."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch

from pipemill_worker.pipelines.packing import Packing, attention, can_pack
from pipemill_worker.pipelines.packing.rows import Rows, rows_to_pack
from tests.unit.pipelines.test_packing import LENGTHS, alone, batch, features, model_of
from tests.unit.pipelines.tiny import tiny_pipeline

CUDA = torch.device("cuda", 0)


def by_the_book(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, window: int | None
) -> torch.Tensor:
    """Attention of one row, ``[tokens, heads, size]``, as its formula says."""
    key, value = (each.repeat_interleave(query.shape[1] // each.shape[1], dim=1) for each in (key, value))
    scores = torch.einsum("qhd,khd->hqk", query, key) * scale
    if window is not None:
        places = torch.arange(len(query))
        scores = scores.masked_fill((places[:, None] - places).abs() > window, -torch.inf)
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1), value)


class StandIn:
    """Torch's kernel for rows of any length: its signature, computed on the CPU; what it was given is kept."""

    def __init__(self) -> None:
        self.windows: list[tuple[int, int]] = []

    def __call__(  # noqa: PLR0913, PLR0917 - torch's signature
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        cu_seq_q: torch.Tensor,
        cu_seq_k: torch.Tensor,
        max_q: int,
        max_k: int,
        *,
        scale: float | None = None,
        window_size: tuple[int, int] = (-1, -1),
        enable_gqa: bool = False,
    ) -> torch.Tensor:
        """Attention of each row, ``[tokens, heads, size]``."""
        assert cu_seq_q.dtype is cu_seq_k.dtype is torch.int32
        assert cu_seq_q.tolist() == cu_seq_k.tolist()
        assert max_q == max_k == max(end - start for start, end in pairwise(cu_seq_q.tolist()))
        assert all(each.stride(-1) == 1 for each in (query, key, value))
        assert enable_gqa is (query.shape[1] != key.shape[1])
        assert window_size[0] == window_size[1]
        self.windows.append(window_size)
        window = None if window_size == (-1, -1) else window_size[0]
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        rows = [slice(start, end) for start, end in pairwise(cu_seq_q.tolist())]
        return torch.cat([by_the_book(query[row], key[row], value[row], scale, window) for row in rows])


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """The stand-in in torch's place, on a machine whose GPU could run it."""
    kernel = StandIn()
    monkeypatch.setattr(attention, "varlen_attn", kernel)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 6))
    monkeypatch.setattr(torch.version, "hip", None)
    attention._has_varlen.cache_clear()
    yield kernel
    attention._has_varlen.cache_clear()


def rows_of(lengths: tuple[int, ...]) -> Rows:
    """Rows of these lengths."""
    rows = rows_to_pack(batch(lengths)["attention_mask"])
    assert rows is not None
    return rows


@pytest.mark.parametrize("kernel", [attention.run_by_run, attention.in_one_call])
@pytest.mark.parametrize("window", [None, 0, 5, 70])
@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (4, 1)], ids=str)
@pytest.mark.usefixtures("stand_in")
def test_each_row_attends_to_itself(kernel: attention.Kernel, window: int | None, heads: tuple[int, int]) -> None:
    """Rows end to end give what the formula gives for each alone, in any window and with shared keys."""
    rows = rows_of((1, 71, 6, 200, 64, 71, 65, 6))
    lengths = rows.lengths
    assert lengths == [1, 6, 6, 64, 65, 71, 71, 200]
    rng = torch.Generator().manual_seed(1)
    tokens = sum(lengths)
    query, key, value = (torch.randn(tokens, count, 8, generator=rng) for count in (heads[0], heads[1], heads[1]))
    given = (each.transpose(0, 1).unsqueeze(0) for each in (query, key, value))
    attended = kernel(*given, rows, 0.4, window)
    assert attended.shape == (1, tokens, heads[0], 8)
    parts = zip(*(each.split(lengths) for each in (query, key, value)), strict=True)
    expected = torch.cat([by_the_book(*part, 0.4, window) for part in parts])
    assert (attended[0] - expected).abs().max() < 1e-5


@pytest.mark.parametrize("model_type", ["bert", "eurobert", "modernbert"])
def test_a_model_through_one_call(model_type: str, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packed by torch's kernel, each row of a batch has the features of the row alone."""
    model = model_of(model_type)
    inputs = batch()
    expected = alone(model, inputs)
    monkeypatch.setattr(attention, "kernel_for", lambda *_: attention.in_one_call)
    Packing(model)
    packed = features(model, inputs)
    for row, (length, features_alone) in enumerate(zip(LENGTHS, expected, strict=True)):
        assert (packed[row, :length] - features_alone).abs().max() < 1e-5
    near = {"modernbert": (4, 4)}.get(model_type, (-1, -1))
    assert stand_in.windows == [(-1, -1), near]


def test_the_call_is_one_that_torch_takes() -> None:
    """What the stand-in takes, torch's function has, in the same order."""
    if attention.varlen_attn is None:
        pytest.skip("this torch has no kernel for rows of any length")
    theirs = inspect.signature(attention.varlen_attn).parameters
    ours = inspect.signature(StandIn.__call__).parameters
    assert [name for name in theirs if name in ours] == [name for name in ours if name != "self"]
    assert all(theirs[name].kind is parameter.kind for name, parameter in ours.items() if name != "self")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_cpu_goes_run_by_run(dtype: torch.dtype) -> None:
    """A CPU packs in every precision."""
    assert attention.kernel_for(torch.device("cpu"), dtype, 80) is attention.run_by_run


@pytest.mark.parametrize(
    ("dtype", "head_size", "packs"),
    [
        (torch.float16, 64, True),
        (torch.bfloat16, 256, True),
        (torch.float32, 64, False),
        (torch.bfloat16, 264, False),
        (torch.bfloat16, 20, False),
    ],
)
@pytest.mark.usefixtures("stand_in")
def test_a_gpu_packs_what_its_kernel_takes(dtype: torch.dtype, head_size: int, packs: bool) -> None:  # noqa: FBT001  # an expected value
    """A GPU packs in half precision, with heads of a size that the kernel takes; else it pads."""
    kernel = attention.kernel_for(CUDA, dtype, head_size)
    assert kernel is (attention.in_one_call if packs else None)


@pytest.mark.parametrize(
    ("owner", "name", "value"),
    [
        (attention, "varlen_attn", None),
        (attention, "varlen_attn", by_the_book),
        (torch.cuda, "get_device_capability", lambda _: (7, 5)),
        (torch.version, "hip", "6.4"),
    ],
    ids=["no kernel", "an older kernel", "an older GPU", "another vendor's GPU"],
)
@pytest.mark.usefixtures("stand_in")
def test_a_gpu_without_the_kernel_pads(owner: Any, name: str, value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where torch or the GPU lacks the kernel, or torch has an older form of it, a GPU pads."""
    monkeypatch.setattr(owner, name, value)
    assert attention.kernel_for(CUDA, torch.float16, 64) is None


def test_other_devices_pad() -> None:
    """A device of which nothing is known pads."""
    assert attention.kernel_for(torch.device("meta"), torch.float16, 64) is None


class OnGpu:
    """A loaded pipeline, as if its device were a GPU."""

    def __init__(self, pipe: Any) -> None:
        self.model = pipe.model.to(torch.bfloat16)
        self.tokenizer = pipe.tokenizer
        self.device = CUDA


@pytest.mark.parametrize(("model_type", "packs"), [("bert", True), ("distilbert", True), ("mpnet", False)])
@pytest.mark.usefixtures("stand_in")
def test_models_on_a_gpu(model_type: str, packs: bool) -> None:  # noqa: FBT001  # an expected value
    """A GPU packs models that attend through transformers' interface, and pads those with an attention of their own."""
    pipe: Any = OnGpu(tiny_pipeline("text-classification", model_type))
    assert can_pack("text-classification", pipe) is packs
