"""The runner without a model."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from pipemill_worker.pipelines import EchoRunner, load_runner
from pipemill_worker.seams import PipelineRunner
from tests.unit.pipelines.tiny import Settings


@pytest.mark.parametrize("inputs", ["a", None, [1, {"b": []}], {"any": "thing"}])
def test_echo_answers_with_its_inputs(inputs: Any) -> None:
    """Whatever the inputs, they come back, in batches with everyone's."""
    runner: PipelineRunner = EchoRunner()
    prepared = [runner.prepare(inputs, {"any": 1}), runner.prepare("other", {})]
    items = [item for job in prepared for item in job.items]
    assert len({item.group for item in items}) == 1
    assert [item.cost for item in items] == [1, 1]
    outputs = runner.forward(items)
    assert runner.finish(prepared[0], outputs[:1]) is inputs
    assert runner.finish(prepared[1], outputs[1:]) == "other"


def test_echo_has_no_device() -> None:
    """It warms up, is never lost, and says what it is."""
    runner = load_runner("mine", Settings(task="echo", model=None))
    assert isinstance(runner, EchoRunner)
    runner.warm_up()
    assert runner.describe()["task"] == "echo"
    assert runner.is_out_of_memory(MemoryError())
    assert not runner.is_out_of_memory(ValueError())
    assert not runner.is_device_lost(RuntimeError("CUDA error"))


def test_echo_needs_no_torch() -> None:
    """Neither importing the package nor loading and running the echo runner imports torch or transformers."""
    code = (
        "import sys, types; from pipemill_worker.pipelines import load_runner;"
        "runner = load_runner('q', types.SimpleNamespace(task='echo')); prepared = runner.prepare('a', {});"
        "assert runner.finish(prepared, runner.forward(prepared.items)) == 'a';"
        "heavy = {'torch', 'transformers', 'numpy'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
