"""The seam between the engine and the models.

A ``PipelineRunner`` knows models and neither Redis nor Celery; the engine knows none of the three. What a runner raises
as a ``pipemill.errors.JobError`` is the job's own fault and is stored as its outcome; anything else is a failure of the
pipeline, which the engine isolates to the job that caused it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias

from pipemill.protocol import Usage
from pipemill_worker.policy.calibration import Bounds, Calibration

#: The group of items that a lane's writer continues together, a token of each in every step.
JOINS: Final = "joins"
#: What a token adds to the text that is written, as far as that can be said already; raises when no more can be.
Speller: TypeAlias = Callable[[int], str | None]


@dataclass(slots=True, eq=False)
class Item:
    """A preprocessed unit of a job: one row of a forward pass."""

    #: Items with equal keys may share a forward pass; ``None`` means the item runs alone.
    group: Hashable | None
    #: What the item costs in a batch, in the task's own unit (tokens for text); at least 1.
    cost: int
    #: What the runner's ``forward`` needs. Never mutated by ``forward``, so that a retry sees the same.
    payload: Any
    #: Set by the engine: nobody waits for its output any more. A pass that makes outputs step by step may end this one.
    over: bool = field(default=False)
    #: Set by the runner: when the pass that holds it last got a step further, in seconds of the monotonic clock. A pass
    #: that never says so counts as one step.
    alive_at: float = field(default=0.0)
    #: Set by the engine: whom a writer tells the item's tokens as it writes them; None for nobody.
    follower: Any = field(default=None)


@dataclass(slots=True, eq=False)
class Prepared:
    """A job after preprocessing."""

    items: Sequence[Item]
    #: The runner's own notes for ``finish``.
    state: Any = field(default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What a runner can tell of how a job's answer was written."""

    #: What it took; None where the outputs don't tell.
    usage: Usage | None = None
    #: The text that was written, where a lone answer has it; None elsewhere.
    text: str | None = None


class ItemWriter(Protocol):
    """Continues items of the group ``JOINS`` together: they join and leave between steps.

    Called from one thread only, the one that owns the device.
    """

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        ...

    def offer(self, item: Item) -> bool:
        """Let an item take part from the next step on; False when there is no room for it now."""
        ...

    def step(self) -> Sequence[tuple[Item, Any]]:
        """Go one token further in every item; those that have ended with it, and their outputs."""
        ...

    @property
    def told(self) -> Sequence[tuple[Any, int]]:
        """The followers of items with one row, and the token that each item was given by the last step."""
        ...

    def leave(self, items: Collection[Item]) -> None:
        """Stop writing these."""
        ...

    def clear(self) -> None:
        """Forget all items, after a step that failed."""
        ...


class PipelineRunner(Protocol):
    """One loaded pipeline, driven in stages."""

    @property
    def writer(self) -> ItemWriter | None:
        """What continues items of the group ``JOINS``; ``None`` where there are none."""
        ...

    def prepare(self, inputs: Any, parameters: Mapping[str, Any]) -> Prepared:
        """Validate and preprocess one job. Called from several threads at once.

        Raises
        ------
        InvalidInput, InvalidParameter, InputTooLong
            When the job can't run; the text says what to change.

        """
        ...

    def forward(self, items: Sequence[Item]) -> Sequence[Any]:
        """Run one forward pass over items with equal group keys; one output per item, in order.

        Called from one thread only, the one that owns the device.
        """
        ...

    def finish(self, prepared: Prepared, outputs: Sequence[Any]) -> Any:
        """Postprocess one job's outputs (one per item, in order) into a JSON-serialisable answer."""
        ...

    def account(self, prepared: Prepared, outputs: Sequence[Any], *, followed: bool) -> Account:
        """What can be told of how one job's outputs were written; its text only if that is ``followed``."""
        ...

    def spelling(self, prepared: Prepared) -> Speller | None:
        """What spells the text of a job's lone item while it is written; None if only the whole text can be told."""
        ...

    def warm_up(self) -> None:
        """Run the model once on shapes the lane will see, so that the first job doesn't pay for it."""
        ...

    def calibrate(self, bounds: Bounds) -> Calibration | None:
        """Time forward passes of growing size; ``None`` if there is nothing to measure. Called before the first job."""
        ...

    def adopt(self, calibration: Calibration) -> None:
        """Share passes as a calibration says, this start's or an earlier one's. Called before the first job."""
        ...

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether this error of ``forward`` means that a smaller batch could succeed."""
        ...

    def is_device_lost(self, error: BaseException) -> bool:
        """Whether this error of ``forward`` means that the device is unusable until the process restarts."""
        ...

    def is_transient(self, error: BaseException) -> bool:
        """Whether this error may pass by itself, though the device goes on: the same job may succeed a little later."""
        ...

    def describe(self) -> dict[str, Any]:
        """Facts for people: task, model, revision, device, dtype."""
        ...
