"""The runner of the task ``echo``: no model, its answer is its inputs. It shows what the queue itself costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipemill_worker.pipelines.settings import ECHO_TASK
from pipemill_worker.policy.calibration import Bounds, Calibration
from pipemill_worker.seams import Account, Item, ItemWriter, Prepared, Speller


class EchoRunner:
    """A ``PipelineRunner`` that answers every job with its inputs."""

    writer: ItemWriter | None = None

    def prepare(self, inputs: Any, parameters: Mapping[str, Any]) -> Prepared:  # noqa: ARG002 - the seam's signature
        """One item; every job may share a batch with every other."""
        return Prepared((Item(ECHO_TASK, 1, inputs),))

    def forward(self, items: Sequence[Item]) -> Sequence[Any]:
        """The items' inputs."""
        return [item.payload for item in items]

    def finish(self, prepared: Prepared, outputs: Sequence[Any]) -> Any:  # noqa: ARG002 - the seam's signature
        """The job's inputs."""
        return outputs[0]

    def account(self, prepared: Prepared, outputs: Sequence[Any], *, followed: bool) -> Account:  # noqa: ARG002 - the seam's signature
        """Nothing: no model wrote it."""
        return Account()

    def spelling(self, prepared: Prepared) -> Speller | None:  # noqa: ARG002 - the seam's signature
        """Nothing is written."""
        return None

    def warm_up(self) -> None:
        """Nothing to warm."""

    def calibrate(self, bounds: Bounds) -> Calibration | None:  # noqa: ARG002 - the seam's signature
        """Nothing to measure."""
        return None

    def adopt(self, calibration: Calibration) -> None:
        """Nothing to change."""

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether Python itself ran out of memory."""
        return isinstance(error, MemoryError)

    def is_device_lost(self, error: BaseException) -> bool:  # noqa: ARG002 - the seam's signature
        """Never: there is no device."""
        return False

    def is_transient(self, error: BaseException) -> bool:  # noqa: ARG002 - the seam's signature
        """Never: nothing is used that could fail for a while."""
        return False

    def describe(self) -> dict[str, Any]:
        """Facts for people."""
        return {"task": ECHO_TASK, "model": None, "revision": None, "device": "cpu", "dtype": None}
