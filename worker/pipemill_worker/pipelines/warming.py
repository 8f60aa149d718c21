"""The first forward passes of a lane, and its self-check: whether answers stay the same when jobs share a batch."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final, Protocol

from pipemill.errors import JobError, ModelLoadError
from pipemill_worker.pipelines.difference import difference
from pipemill_worker.pipelines.inputs import shorten
from pipemill_worker.pipelines.rules import Sharing
from pipemill_worker.seams import Item, Prepared

log = logging.getLogger("pipemill.worker")

#: Characters of a foreign error's text that our own repeats.
_MAX_COMPLAINT_CHARACTERS: Final = 300

#: Answers that can be compared at all.
_FEWEST: Final = 2

#: One job: its inputs, after decoding, and its parameters.
Canary = tuple[Any, Mapping[str, Any]]


class Laid(Protocol):
    """What the self-check and a calibration use of the layout of a model's passes."""

    def padding(self) -> AbstractContextManager[None]:
        """Pad rows meanwhile, instead of laying them end to end."""
        ...

    def as_loaded(self) -> AbstractContextManager[None]:
        """Let the model compute meanwhile as the pipeline itself would, without what makes passes shorter."""
        ...

    def multiplying_plainly(self) -> AbstractContextManager[None]:
        """Let torch multiply meanwhile."""
        ...


class Checked(Protocol):
    """What of a runner the self-check uses."""

    @property
    def sharing(self) -> Sharing:
        """How items share a forward pass."""
        ...

    @property
    def settled(self) -> bool:
        """Whether they share it so whatever that makes of answers."""
        ...

    @property
    def layout(self) -> Laid:
        """How its model's passes are laid out."""
        ...

    @property
    def multiplies(self) -> bool:
        """Whether other products than torch's are to be tried."""
        ...

    def multiply_plainly(self) -> None:
        """From now on, torch multiplies."""
        ...

    def share_less(self) -> None:
        """From now on, items share by the next stricter way."""
        ...

    def prepare_checked(self, inputs: Any, parameters: dict[str, Any]) -> Prepared:
        """Preprocess inputs and parameters that need no check."""
        ...

    def forward(self, items: Sequence[Item]) -> Sequence[Any]:
        """Run one forward pass."""
        ...

    def finish(self, prepared: Prepared, outputs: Sequence[Any]) -> Any:
        """Postprocess one job's outputs."""
        ...

    def is_device_lost(self, error: BaseException) -> bool:
        """Whether the device is unusable until the process restarts."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class SelfCheck:
    """What came of a self-check."""

    #: How items were to share a forward pass, by task and model type.
    meant: Sharing
    #: How they do.
    sharing: Sharing
    #: The largest difference seen between a score alone and in a batch, as they were to share; infinite if a batch
    #: failed or a label differs. ``None`` if nothing was to be shared.
    difference: float | None

    def describe(self) -> dict[str, Any]:
        """As facts for people and JSON, which knows no infinity."""
        apart = self.difference
        shown = apart if apart is None or apart < float("inf") else "other answers"
        return {"meant": self.meant.value, "sharing": self.sharing.value, "difference": shown}


def warm_up(  # noqa: PLR0913 - each is a part of the check
    queue: str, model: str | None, runner: Checked, jobs: Sequence[Canary], tolerance: float, *, guessed: bool = False
) -> SelfCheck:
    """Run each job alone and all together; a runner whose answers then differ by more shares less from now on.

    ``guessed``: the jobs' form is a guess, which the model needn't understand; that they fail says nothing of it.

    Raises
    ------
    ModelLoadError
        When the model loaded but can't run.

    """
    meant = runner.sharing
    with runner.layout.as_loaded():
        alone = _run_alone(queue, model, runner, jobs, guessed=guessed)
    _prove_products(queue, runner, alone, tolerance)
    first: float | None = None
    while len(alone) < _FEWEST and runner.sharing in {Sharing.PACKED, Sharing.PADDED}:
        runner.share_less()  # Nothing is proven; equal shapes are safe.
    while runner.sharing is not Sharing.SOLO and alone:
        apart = _apart(runner, alone, together=True)
        if apart > tolerance and runner.multiplies and not runner.settled:
            with runner.layout.multiplying_plainly():
                plain = _apart(runner, alone, together=True)
            if plain <= tolerance:  # It is what products add, and not the way to share.
                _refuse_products(queue, runner)
                apart = plain
        first = apart if first is None else first
        if apart <= tolerance:
            break
        if runner.settled:
            text = "queue %s: the writing engine that was chosen gives other answers than the pipeline, by %.2g"
            log.warning(text, queue, apart, extra={"event": "engine_differs", "queue": queue})
            break
        was = runner.sharing
        runner.share_less()
        log.warning(
            "queue %s: answers in a batch (%s) differ by %.2g, more than batch.tolerance %.2g: from now on %s",
            queue,
            was.value,
            apart,
            tolerance,
            runner.sharing.value,
            extra={"event": "sharing_narrowed", "queue": queue},
        )
        _prove_products(queue, runner, alone, tolerance)  # Those of what writes, once it no longer writes together.
    return SelfCheck(meant=meant, sharing=runner.sharing, difference=first)


def _run_alone(
    queue: str, model: str | None, runner: Checked, jobs: Sequence[Canary], *, guessed: bool
) -> list[tuple[Canary, Any]]:
    """The jobs that could be run, and their answers."""
    alone: list[tuple[Canary, Any]] = []
    for job in jobs:
        try:
            alone.append((job, _answers(runner, [job], together=False)[0]))
        except Exception as error:
            if not (guessed or isinstance(error, JobError)) or runner.is_device_lost(error):
                raise ModelLoadError(
                    f"queue {queue!r}: model {model!r} is loaded but can't run:"
                    f" {type(error).__name__}: {shorten(error, _MAX_COMPLAINT_CHARACTERS)};"
                    " check that the model suits the task and its preprocessing, and that the device has the memory"
                ) from error
            log.warning(  # Some models want prompts of their own form; real jobs bring them.
                "queue %s: a warm-up job doesn't suit the model: %s",
                queue,
                shorten(error, _MAX_COMPLAINT_CHARACTERS),
                extra={"event": "not_warmed_up"},
            )
    return alone


def _prove_products(queue: str, runner: Checked, alone: Sequence[tuple[Canary, Any]], tolerance: float) -> None:
    """Let torch multiply unless the jobs' answers, each alone, are those of the model as it was loaded."""
    if runner.multiplies and not (alone and _apart(runner, alone, together=False) <= tolerance):
        _refuse_products(queue, runner)


def _refuse_products(queue: str, runner: Checked) -> None:
    runner.multiply_plainly()
    log.warning(
        "queue %s: answers by oneDNN's products aren't the model's own, or unknown: torch multiplies",
        queue,
        extra={"event": "products_refused", "queue": queue},
    )


def _apart(runner: Checked, alone: Sequence[tuple[Canary, Any]], *, together: bool) -> float:
    try:
        again = _answers(runner, [job for job, _ in alone], together=together)
    except Exception as error:  # noqa: BLE001 - whatever it is, the same jobs ran alone
        log.warning("a pass failed at the self-check: %s: %s", type(error).__name__, shorten(error))
        return float("inf")
    return max(difference(one, other) for (_, one), other in zip(alone, again, strict=True))


def _answers(runner: Checked, jobs: Sequence[Canary], *, together: bool) -> list[Any]:
    prepared = [runner.prepare_checked(inputs, dict(parameters)) for inputs, parameters in jobs]
    batches: dict[Hashable, list[tuple[int, int, Item]]] = defaultdict(list)
    for number, each in enumerate(prepared):
        for place, item in enumerate(each.items):
            shared = together and item.group is not None
            batches[item.group if shared else (number, place)].append((number, place, item))
    outputs: list[dict[int, Any]] = [{} for _ in jobs]
    for batch in batches.values():
        for (number, place, _), output in zip(batch, runner.forward([item for _, _, item in batch]), strict=True):
            outputs[number][place] = output
    return [
        runner.finish(each, [own[place] for place in range(len(own))])
        for each, own in zip(prepared, outputs, strict=True)
    ]
