"""What was measured of a model on a machine, and the bounds of a batch that follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from pipemill_worker.policy.batching import BatchLimits
from pipemill_worker.policy.curve import Curve, Point, knee, levels_off
from pipemill_worker.policy.sizes import rounded_down


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How far a calibration goes: no batch will be larger."""

    #: Most items.
    max_items: int
    #: Most cost, padding included.
    max_cost: int
    #: Most quadratic amplification by padding.
    max_amplification: float = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What was measured, and which way to share a pass came out best."""

    #: How items share a pass from now on; a value of the pipelines' ``Sharing``.
    sharing: str
    #: The curve of each way that was tried.
    curves: Mapping[str, Curve]
    #: Most items that the device's memory held; ``None`` if it never ran out.
    ceiling: int | None = None

    @property
    def curve(self) -> Curve:
        """Of the way that was chosen."""
        return self.curves[self.sharing]

    @property
    def best(self) -> Point:
        """The smallest pass that is as fast as any."""
        return knee(self.curve)

    @property
    def still_gains(self) -> bool:
        """Whether larger passes than those measured might be faster still."""
        return self.best is self.curve[-1] and self.best.items > 1 and not levels_off(self.curve)

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        curves = {way: [asdict(point) for point in curve] for way, curve in self.curves.items()}
        return {"sharing": self.sharing, "curves": curves, "ceiling": self.ceiling}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Calibration:
        """Read what ``to_json`` made.

        Raises
        ------
        KeyError, TypeError, ValueError
            When something else made it.

        """
        curves = {way: tuple(Point(**each) for each in curve) for way, curve in document["curves"].items()}
        made = cls(sharing=document["sharing"], curves=curves, ceiling=document["ceiling"])
        _ = made.best.rate
        return made


def sized(limits: BatchLimits, calibration: Calibration | None, ceiling: int | None) -> BatchLimits:
    """Narrow a batch's bounds to what was measured, and to the most items that memory held before.

    Where larger passes than those measured might gain, the given budget stands.
    """
    if calibration is not None:
        best = calibration.best
        budget = rounded_down(best.cost) if limits.packed else best.cost
        max_cost = max(budget, limits.max_cost) if calibration.still_gains else budget
        limits = replace(limits, max_cost=max_cost, max_items=1 if best.items == 1 else limits.max_items)
        ceilings = [each for each in (calibration.ceiling, ceiling) if each is not None]
        ceiling = min(ceilings, default=None)
    return limits if ceiling is None else replace(limits, max_items=max(1, min(limits.max_items, ceiling)))
