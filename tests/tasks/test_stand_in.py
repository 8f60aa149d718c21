"""``mask-generation`` where torchvision can't be loaded: its one function that the task needs, on a stand-in."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest
import torch
from transformers.utils import import_utils

from pipemill_worker.pipelines.factory import load_runner
from tests.tasks.bench import Bench
from tests.tasks.compare import assert_same
from tests.unit.pipelines.tiny import Settings, finish_batched, unchecked

KEY = "mask-generation.sam"


def batched_nms(boxes: torch.Tensor, scores: torch.Tensor, idxs: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Which boxes stay, best first: those that overlap a better one of their class by more than the threshold go.

    ``boxes`` are [boxes, 4] (left, top, right, bottom), ``scores`` and ``idxs`` [boxes].
    """
    kept: list[int] = []
    for index in scores.argsort(descending=True, stable=True).tolist():
        rivals = [other for other in kept if idxs[other] == idxs[index]]
        if all(_overlap(boxes[index], boxes[other]) <= iou_threshold for other in rivals):
            kept.append(index)
    return torch.tensor(kept, dtype=torch.long)


def _overlap(one: torch.Tensor, other: torch.Tensor) -> float:
    sides = (torch.minimum(one[2:], other[2:]) - torch.maximum(one[:2], other[:2])).clamp(min=0)
    shared = float(sides.prod())
    both = float((one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod()) - shared
    return shared / both if both else 0.0


@pytest.fixture
def torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    """A torchvision of one function; the image processors stay those of Pillow."""
    if import_utils.is_torchvision_available():
        pytest.skip("the real torchvision is there, and the matrix runs with it")
    for name in ("torchvision", "torchvision.ops", "torchvision.ops.boxes"):
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None, is_package=True)
        module.__path__ = []
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(sys.modules["torchvision.ops.boxes"], "batched_nms", batched_nms, raising=False)
    monkeypatch.setitem(import_utils.BACKENDS_MAPPING, "torchvision", (lambda: True, ""))


def test_overlapping_boxes_of_a_class_go() -> None:
    """The stand-in keeps the best of a crowd, and boxes of other classes."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [20, 20, 30, 30], [0, 0, 10, 10]])
    kept = batched_nms(boxes, torch.tensor([0.5, 0.9, 0.1, 0.2]), torch.tensor([0, 0, 0, 1]), 0.5)
    assert kept.tolist() == [1, 3, 2]


@pytest.mark.usefixtures("torchvision")
def test_masks_are_the_direct_calls(bench: Bench) -> None:
    """Jobs with other images and settings, each prepared and run on the device's thread, answer as the direct call."""
    runner = load_runner(KEY, Settings(task="mask-generation", model=str(bench.model(KEY))), validate=unchecked)
    runner.warm_up()
    jobs = bench.jobs(KEY)
    prepared = [runner.prepare(job.inputs, dict(job.parameters)) for job in jobs]
    run = finish_batched(runner, prepared)  # type: ignore[arg-type]  # a seam; it is the runner that the helper wants
    assert set(run.batches) == {1}
    for number, (answer, direct) in enumerate(zip(run.answers, bench.answers(KEY), strict=True)):
        assert_same(answer, direct, path=f"job {number}")
