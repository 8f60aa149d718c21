"""How a queue's batches are sized on this machine: measured when a worker first starts, read from then on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pipemill.catalogue import QueueSettings
from pipemill_worker.measured import Measured
from pipemill_worker.policy.batching import BatchLimits
from pipemill_worker.policy.calibration import Bounds, Calibration, sized
from pipemill_worker.policy.curve import Curve
from pipemill_worker.seams import PipelineRunner

log = logging.getLogger("pipemill.worker")

#: Padded tokens of one forward pass on a CPU where nothing was measured: the knee of one model's curve (MiniLM, one
#: thread, 512 to 1024).
CPU_MAX_COST: Final = 1024
#: Tokens of one forward pass on a CPU without padding, likewise (78, 84, 78, 68 texts a second at 256, 512, 1024 and
#: 2048 tokens).
CPU_PACKED_COST: Final = 512
#: Padded tokens of one forward pass on an accelerator, likewise: it needs many rows to be busy.
ACCELERATOR_MAX_COST: Final = 16_384
#: Most cost that a calibration tries where the catalogue gives no bound.
MOST_COST: Final = 1 << 20

#: The kinds of measurements that are kept.
CURVES: Final = "calibration"
CEILING: Final = "ceiling"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """What a lane is built with."""

    limits: BatchLimits
    curve: Curve
    #: Remembers, beyond this process, how many items memory held.
    keep_ceiling: Callable[[int], None]


class Tuner:
    """Sizes one queue's batches."""

    def __init__(
        self, name: str, queue: QueueSettings, runner: PipelineRunner, measured: Measured, identity: Mapping[str, Any]
    ) -> None:
        self._name = name
        self._queue = queue
        self._runner = runner
        self._measured = measured
        #: All that a measurement of the model depends on.
        self._identity = identity

    def tuning(self) -> Tuning:
        """By what was measured before, else by measuring now, else by device. The runner shares passes accordingly."""
        calibration = self.calibration() if self._queue.batch.calibrate else None
        if calibration is not None:
            self._runner.adopt(calibration)
        facts = self._runner.describe()
        device, packed = str(facts.get("device") or "cpu"), facts.get("sharing") == "packed"
        return Tuning(
            limits=sized(
                batch_limits(self._queue, device, packed=packed),
                calibration,
                self._measured.read(CEILING, self._identity),
            ),
            curve=() if calibration is None else calibration.curve,
            keep_ceiling=self._keep_ceiling,
        )

    def _keep_ceiling(self, items: int) -> None:
        """Remember that memory held no more; what others found to be less stands."""
        kept = self._measured.read(CEILING, self._identity)
        self._measured.write(CEILING, self._identity, items if kept is None else min(items, kept))

    def calibration(self, *, again: bool = False) -> Calibration | None:
        """What was measured of the model on this machine; measured now if it never was, or ``again``."""
        batch = self._queue.batch
        bounds = Bounds(
            max_items=batch.max_items,
            max_cost=batch.max_tokens or MOST_COST,
            max_amplification=batch.max_amplification,
        )
        facts = self._runner.describe()
        # Whose they are; for how few rows on differs from start to start, and changes little.
        products = str(facts.get("products") or "").partition(" ")[0]
        key = {**self._identity, "sharing": facts.get("sharing"), "products": products}
        key |= {"max_items": bounds.max_items, "max_cost": bounds.max_cost}
        if not again and (found := self._read(key)) is not None:
            return found
        calibration = self._runner.calibrate(bounds)
        if calibration is not None:
            self._measured.write(CURVES, key, calibration.to_json())
            self._tell(calibration)
        return calibration

    def _read(self, key: Mapping[str, Any]) -> Calibration | None:
        document = self._measured.read(CURVES, key)
        try:
            return None if document is None else Calibration.from_json(document)
        except (KeyError, TypeError, ValueError):
            text = "queue %s: its calibration can't be read; measuring again"
            log.warning(text, self._name, extra={"event": "calibration_unreadable"})
            return None

    def _tell(self, calibration: Calibration) -> None:
        best = calibration.best
        log.info(
            "queue %s: calibrated: %d items (cost %d) in %.1f ms are as fast as any batch, %s",
            self._name,
            best.items,
            best.cost,
            best.seconds * 1e3,
            calibration.sharing,
            extra={"event": "calibrated", "queue": self._name},
        )


def batch_limits(queue: QueueSettings, device: str, *, packed: bool = False) -> BatchLimits:
    """Bounds of a forward pass where nothing was measured: the catalogue's, or a budget by device."""
    on_cpu = CPU_PACKED_COST if packed else CPU_MAX_COST
    chosen = on_cpu if device.startswith("cpu") else ACCELERATOR_MAX_COST
    return BatchLimits(
        max_items=queue.batch.max_items,
        max_cost=queue.batch.max_tokens or chosen,
        max_amplification=queue.batch.max_amplification,
        packed=packed,
    )
