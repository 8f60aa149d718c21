"""How a queue's batches are sized: measured once, then read; with memory's ceiling kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipemill.catalogue import QueueSettings
from pipemill_worker.celery_host.tuning import CEILING, CPU_MAX_COST, CURVES, Tuner
from pipemill_worker.measured import Measured
from pipemill_worker.pipelines import EchoRunner
from pipemill_worker.policy.calibration import Bounds, Calibration
from pipemill_worker.policy.curve import Point

IDENTITY = {"model": "m"}
PASSES = tuple(Point(items=n, cost=10 * n, seconds=max(1.0, n / 4)) for n in (1, 2, 4, 8, 16))


class Runner(EchoRunner):
    """A runner that shows a curve, and shares as it is told."""

    def __init__(self, sharing: str = "packed", products: str | None = None) -> None:
        self.sharing, self.products = sharing, products
        self.asked: list[Bounds] = []

    def calibrate(self, bounds: Bounds) -> Calibration | None:
        self.asked.append(bounds)
        return Calibration(sharing="padded", curves={"packed": PASSES, "padded": PASSES}, ceiling=12)

    def adopt(self, calibration: Calibration) -> None:
        self.sharing = calibration.sharing

    def describe(self) -> dict[str, Any]:
        return {"device": "cpu", "sharing": self.sharing, "products": self.products}


def tuner(folder: Path, runner: EchoRunner, **batch: Any) -> Tuner:
    """A queue's, with these batch settings."""
    queue = QueueSettings.model_validate({"task": "echo", "batch": batch})
    return Tuner("words", queue, runner, Measured(folder), IDENTITY)


def test_the_second_start_reads_what_the_first_measured(tmp_path: Path) -> None:
    """Both size batches alike and share passes alike; only the first asks the device."""
    first, second = Runner(), Runner()
    one, other = tuner(tmp_path, first).tuning(), tuner(tmp_path, second).tuning()
    assert (one.limits.max_cost, one.limits.max_items, one.limits.packed) == (40, 12, False)
    assert other.limits == one.limits
    assert tuple(other.curve) == PASSES
    assert (len(first.asked), len(second.asked)) == (1, 0)
    assert first.sharing == second.sharing == "padded"


def test_other_bounds_are_measured_anew(tmp_path: Path) -> None:
    """What was tried up to 128 items says nothing of a bound beyond it."""
    tuner(tmp_path, Runner()).tuning()
    tuner(tmp_path, again := Runner(), max_items=256, max_tokens=500).tuning()
    assert [(bounds.max_items, bounds.max_cost) for bounds in again.asked] == [(256, 500)]


def test_a_queue_that_forbids_it_is_not_measured(tmp_path: Path) -> None:
    """Then the budget is the device's, or the catalogue's."""
    assert tuner(tmp_path, runner := Runner("padded"), calibrate=False).tuning().limits.max_cost == CPU_MAX_COST
    assert tuner(tmp_path, runner, calibrate=False, max_tokens=7).tuning().limits.max_cost == 7
    assert runner.asked == []


def test_a_ceiling_outlives_its_process(tmp_path: Path) -> None:
    """After memory ran out with more, no later worker tries more, whether it measures or not."""
    tuner(tmp_path, Runner()).tuning().keep_ceiling(5)
    assert tuner(tmp_path, Runner()).tuning().limits.max_items == 5
    assert tuner(tmp_path, Runner(), calibrate=False).tuning().limits.max_items == 5
    assert Measured(tmp_path).read(CEILING, IDENTITY) == 5


def test_a_ceiling_never_rises(tmp_path: Path) -> None:
    """A process that started before another's memory ran out raises nothing with what it finds later."""
    first, second = (tuner(tmp_path, Runner()).tuning() for _ in range(2))
    first.keep_ceiling(8)
    second.keep_ceiling(64)
    assert tuner(tmp_path, Runner()).tuning().limits.max_items == 8


def test_a_runner_with_nothing_to_measure_has_the_devices_budget(tmp_path: Path) -> None:
    """No curve, no file, no surprise."""
    found = tuner(tmp_path, EchoRunner()).tuning()
    assert (found.limits.max_cost, found.curve) == (CPU_MAX_COST, ())
    assert list(tmp_path.iterdir()) == []


def test_a_curve_is_of_its_products(tmp_path: Path) -> None:
    """Passes multiplied by another library are measured by themselves; by the same, from other rows on, they aren't."""
    asked: list[int] = []
    for products in ("oneDNN", "torch", "oneDNN from 32 rows on", "torch"):
        runner = Runner(products=products)
        tuner(tmp_path, runner).tuning()
        asked.append(len(runner.asked))
    assert asked == [1, 1, 0, 0]


def test_a_foreign_document_is_measured_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What another release wrote under the same name is told and replaced."""
    measured, runner = Measured(tmp_path), Runner()
    tuner(tmp_path, runner).tuning()
    key = {**IDENTITY, "sharing": "packed", "products": "", "max_items": 128, "max_cost": 1 << 20}
    assert measured.read(CURVES, key) is not None
    measured.write(CURVES, key, {"sharing": "padded", "curves": {}})
    assert tuner(tmp_path, again := Runner()).tuning().limits.max_cost == 40
    assert len(again.asked) == 1
    assert "measuring again" in caplog.text
