"""What a queue's choice of precision costs and gains: answers and times of the same jobs, as saved and as chosen.

The model as saved is loaded first, runs the jobs one by one, and is freed before the chosen one takes its place. That
is done once for a model on a machine, where ``Measured`` keeps what came of it.
"""

from __future__ import annotations

import gc
import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

from pipemill.errors import ConfigurationError
from pipemill_worker.measured import Measured
from pipemill_worker.pipelines.canaries import mixture
from pipemill_worker.pipelines.difference import difference
from pipemill_worker.pipelines.identity import identity
from pipemill_worker.pipelines.inputs import shorten
from pipemill_worker.pipelines.loading.placing import device_ahead
from pipemill_worker.pipelines.loading.refusal import Refusal
from pipemill_worker.pipelines.loading.sources import model_folder
from pipemill_worker.pipelines.memory import fits
from pipemill_worker.pipelines.runner import TransformersRunner
from pipemill_worker.pipelines.settings import ModelSettings, changed
from pipemill_worker.pipelines.warming import Canary, Checked

log = logging.getLogger("pipemill.worker")

#: The kind of measurement that is kept.
KIND: Final = "precision"

#: Rounds over all jobs; of each job the quickest counts: what else the machine does can only slow it down.
ROUNDS: Final = 4
#: No further round begins after this many seconds.
PATIENCE_SECONDS: Final = 8.0


def is_chosen(settings: ModelSettings) -> bool:
    """Whether a queue departs from its model's precision as saved, and from its layers as they are."""
    if settings.compile or settings.quantisation is not None:
        return True
    return settings.dtype not in {"auto", _saved_dtype(settings)}


def _saved_dtype(settings: ModelSettings) -> str | None:
    try:
        config = json.loads((model_folder(settings) / "config.json").read_text("utf-8"))
    except (OSError, ValueError, Refusal):
        return None  # Loading it will tell.
    saved = config.get("dtype") or config.get("torch_dtype")
    return saved if isinstance(saved, str) else None


def as_saved(settings: ModelSettings) -> ModelSettings:
    """The same queue with its model as it was saved, and none but that."""
    return changed(settings, dtype="auto", quantisation=None, compile=False, engine="exact")


@dataclass(frozen=True, slots=True)
class Trial:
    """What jobs gave, one by one; ``None`` for one that couldn't run."""

    #: The answers.
    answers: list[Any]
    #: Seconds of the forward passes of each.
    seconds: list[float]


def try_out(runner: Checked, jobs: Sequence[Canary], clock: Callable[[], float] = time.perf_counter) -> Trial:
    """Run jobs one by one, some times over. ``clock`` tells seconds."""
    answers, seconds = [], []
    for job in jobs:
        answer, took = _run(runner, job, clock)
        answers.append(answer)
        seconds.append(took)
    end = time.perf_counter() + PATIENCE_SECONDS
    for _ in range(ROUNDS - 1):
        if time.perf_counter() > end:
            break
        seconds = [
            best if answer is None else min(best, _run(runner, job, clock)[1])
            for job, answer, best in zip(jobs, answers, seconds, strict=True)
        ]
    return Trial(answers, seconds)


def _run(runner: Checked, job: Canary, clock: Callable[[], float]) -> tuple[Any, float]:
    inputs, parameters = job
    took = 0.0
    try:
        prepared = runner.prepare_checked(inputs, dict(parameters))
        outputs = []
        for item in prepared.items:
            started = clock()
            outputs.append(runner.forward([item])[0])
            took += clock() - started
        return runner.finish(prepared, outputs), took
    except Exception as error:  # whatever it is, the self-check has told
        if runner.is_device_lost(error):
            raise
        return None, math.inf  # It doesn't suit the model, as the self-check says.


def compared(plain: Trial, chosen: Trial) -> dict[str, Any]:
    """The largest difference of scores where the labels are equal, how many labels differ, how much quicker it is."""
    ran = [
        index
        for index, (one, other) in enumerate(zip(plain.answers, chosen.answers, strict=True))
        if one is not None and other is not None
    ]
    apart = [difference(plain.answers[index], chosen.answers[index]) for index in ran]
    near = [each for each in apart if math.isfinite(each)]
    before, after = (sum(each.seconds[index] for index in ran) for each in (plain, chosen))
    return {
        "drift": max(near, default=None),
        "labels_differ": len(apart) - len(near),
        "compared": len(apart),
        "speed": round(before / after, 2) if after > 0 else None,
    }


class Precision:
    """A queue's choice of precision, and what is known of it."""

    def __init__(self, queue: str, key: Mapping[str, Any], measured: Measured) -> None:
        self._queue = queue
        self._key = key
        self._measured = measured
        #: What ``compared`` found, now or at an earlier start.
        self.found: dict[str, Any] | None = measured.read(KIND, key)
        self._plain: Trial | None = None

    def measure_plain(self, settings: ModelSettings, load: Callable[[ModelSettings], TransformersRunner]) -> None:
        """Load the model as saved, run its jobs, and free it; nothing if it is known already, or doesn't fit."""
        if self.found is not None:
            return
        if not fits(model_folder(settings)):
            self._not_measured("there is no memory for the model as it was saved")
            return
        try:
            self._plain = _trial(load(as_saved(settings)))
        except (ConfigurationError, MemoryError, torch.OutOfMemoryError) as error:
            self._not_measured(shorten(error))
        gc.collect()  # A pipeline and its model refer to each other.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def measure_chosen(self, runner: TransformersRunner) -> None:
        """Run the jobs on the chosen one, which is warm; compare, keep and log what was found."""
        if self._plain is not None:
            self.found = compared(self._plain, _trial(runner))
            self._plain = None
            self._measured.write(KIND, self._key, self.found)
        if self.found is not None:
            self._tell(self.found)

    def _tell(self, found: Mapping[str, Any]) -> None:
        slower = (found["speed"] or 1) < 1
        log.log(
            logging.WARNING if slower else logging.INFO,
            "queue %s: beside the model as saved: %s times as fast alone, scores differ by up to %s,"
            " other answers for %d of %d%s",
            self._queue,
            found["speed"],
            "?" if found["drift"] is None else f"{found['drift']:.2g}",
            found["labels_differ"],
            found["compared"],
            "; slower on this machine: remove dtype, quantisation or compile" if slower else "",
            extra={"event": "precision_measured", "queue": self._queue, **found},
        )

    def _not_measured(self, why: str) -> None:
        log.warning(
            "queue %s: what its precision costs isn't known: %s",
            self._queue,
            why,
            extra={"event": "precision_not_measured", "queue": self._queue},
        )


def open_precision(
    queue: str, settings: ModelSettings, threads: int | None, measured: Measured | None
) -> Precision | None:
    """What is known of a queue's choice; ``None`` if it made none, or nothing is to be measured."""
    if measured is None or not is_chosen(settings):
        return None
    try:
        return Precision(queue, identity(settings, device_ahead(settings), threads), measured)
    except (OSError, ValueError, Refusal):
        return None  # Loading it will tell.


class ChosenRunner(TransformersRunner):
    """A runner that tells what its queue's choice of precision costs and gains."""

    def __init__(self, precision: Precision, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._precision = precision

    def warm_up(self) -> None:
        """As every runner; then compare with the model as saved."""
        super().warm_up()
        self._precision.measure_chosen(self)

    def describe(self) -> dict[str, Any]:
        """As every runner; ``precision`` is what was measured."""
        return {**super().describe(), "precision": self._precision.found}


def _trial(runner: TransformersRunner) -> Trial:
    alone = runner.pipe.device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.thread_time if alone else time.perf_counter  # What else the machine does then doesn't count.
    return try_out(runner, mixture(runner.task, runner.pipe, runner.token_limit), clock)
