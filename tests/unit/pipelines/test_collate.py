"""Rows of a batch's outputs, each as if its item had run alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers.models.depth_pro.modeling_depth_pro import DepthProDepthEstimatorOutput
from transformers.utils.generic import ModelOutput

from pipemill_worker.pipelines.collate import Payload, sent, unbatch
from pipemill_worker.pipelines.grouping import SharingRule
from pipemill_worker.pipelines.rules import Sharing

RULE = SharingRule(sharing=Sharing.EXACT, per_item=frozenset({"target_size"}))

_Depth: Any = DepthProDepthEstimatorOutput  # Its hints know tensors of floats only.
_Plain: Any = ModelOutput


@pytest.mark.parametrize("count", [1, 2])
def test_rows_keep_the_class_of_the_outputs(count: int) -> None:
    """Postprocessing may ask for a field that the model left empty: it is there, and empty, as in the direct call."""
    outputs = _Depth(predicted_depth=torch.arange(4.0 * count).reshape(count, 2, 2))
    outputs["target_size"] = None
    payloads = [Payload(inputs={"target_size": (number, 8)}, length=0, forward={}) for number in range(count)]
    for number, row in enumerate(unbatch(outputs, payloads, RULE)):
        assert type(row) is DepthProDepthEstimatorOutput
        assert row.field_of_view is None
        assert row["target_size"] == (number, 8)
        assert torch.equal(row[0], outputs.predicted_depth[number : number + 1])


def test_outputs_without_a_class_of_their_own_stay_so() -> None:
    """Plain outputs and dicts are taken apart alike."""
    payloads = [Payload(inputs={}, length=0, forward={})] * 2
    for outputs in (_Plain(logits=torch.ones(2, 3)), {"logits": torch.ones(2, 3)}):
        rows = unbatch(outputs, payloads, RULE)
        assert [type(row) for row in rows] == [type(outputs)] * 2
        assert [tuple(row["logits"].shape) for row in rows] == [(1, 3)] * 2


def test_a_batch_goes_to_cuda_from_pinned_memory_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each tensor is pinned and copied asynchronously; other values, and all values elsewhere, stay as they are."""
    copies: list[tuple[Any, bool]] = []

    def to(tensor: torch.Tensor, device: torch.device, *, non_blocking: bool) -> torch.Tensor:
        copies.append((device, non_blocking))
        return tensor + 1

    batch = {"input_ids": torch.zeros(2), "labels": None}
    assert sent(batch, torch.device("cpu")) is batch
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor + 10)
    monkeypatch.setattr(torch.Tensor, "to", to)
    moved = sent(batch, torch.device("cuda", 1))
    assert moved["labels"] is None
    assert moved["input_ids"].tolist() == [11, 11]
    assert copies == [(torch.device("cuda", 1), True)]
