"""What precisions cost and gain: `scripts/bench precision [--json] [--texts N] [--repeats N] [--only NAME]...`.

MiniLM with a classification head of random weights, sentences of Python's own documentation, one thread on one core,
without a queue: runners as a worker has them, one text at a time and in the batches of a lane. Interleaved repeats;
texts per second of the thread's own time are medians. Drift is told beside the model as saved: of the head's scores,
and of what the encoder itself makes of a text (1 - cosine of the mean of its last layer, the worst text). The latter
counts: scores of a random head are all but equal.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import psutil
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.material import save_model, sentences
from benchmarks.measure import Spread
from pipemill.catalogue import QueueSettings
from pipemill_worker.celery_host.tuning import batch_limits
from pipemill_worker.pipelines import load_runner
from pipemill_worker.pipelines.precision import Trial, compared
from pipemill_worker.policy.batching import compose
from pipemill_worker.seams import Item, Prepared

#: What is measured, the model as saved first: a queue's settings.
CHOICES: Final[dict[str, dict[str, Any]]] = {
    "as saved (float32)": {},
    "dtype: bfloat16": {"dtype": "bfloat16"},
    "dtype: float16": {"dtype": "float16"},
    "quantisation: int8": {"quantisation": "int8"},
    "quantisation: int8-dynamic": {"quantisation": "int8-dynamic"},
    "compile: true": {"compile": True},
}
#: The core that computes.
CORE = 0
_set_threads: Any = torch.set_num_threads


class Waiting:
    """An item as composing sees it."""

    urgency: Final = 0

    def __init__(self, number: int, item: Item):
        self.number = number
        self.item = item
        self.group = item.group
        self.cost = item.cost


class Side:
    """One choice: a runner, warm, and the texts prepared for it."""

    def __init__(self, folder: Path, choice: dict[str, Any], texts: Sequence[str]):
        self._queue = QueueSettings(task="text-classification", model=str(folder), device="cpu", **choice)
        started = time.perf_counter()
        self.runner: Any = load_runner("precision", self._queue, threads=1)
        self.runner.warm_up()
        self.start_seconds = time.perf_counter() - started
        self._prepared: list[Prepared] = [self.runner.prepare(text, {}) for text in texts]
        self.alone: list[float] = []
        self.batches: list[float] = []
        self.answers: list[Any] = []

    def one_by_one(self) -> None:
        """A pass for each text."""
        started = time.thread_time()
        outputs = [self.runner.forward(each.items) for each in self._prepared]
        self.alone.append(len(outputs) / (time.thread_time() - started))
        self.answers = [self.runner.finish(*each) for each in zip(self._prepared, outputs, strict=True)]

    def in_batches(self) -> None:
        """Passes as a lane composes them of what waits."""
        packed = self.runner.describe()["sharing"] == "packed"
        limits = batch_limits(self._queue, "cpu", packed=packed)
        left = [Waiting(number, each.items[0]) for number, each in enumerate(self._prepared)]
        count, seconds = len(left), 0.0
        while left:
            chosen = set(compose(left, limits))
            batch = [left[index].item for index in sorted(chosen)]
            started = time.thread_time()
            self.runner.forward(batch)
            seconds += time.thread_time() - started
            left = [waiting for index, waiting in enumerate(left) if index not in chosen]
        self.batches.append(count / seconds)

    def features(self) -> torch.Tensor:
        """What the encoder makes of each text: [texts, size], of length 1."""
        rows = []
        with torch.inference_mode(), self.runner.layout.padding():  # All tokens: packing finishes the first ones only.
            for each in self._prepared:
                inputs = each.items[0].payload.inputs
                rows.append(self.runner.pipe.model.base_model(**inputs).last_hidden_state[0].float().mean(0))
        return torch.nn.functional.normalize(torch.stack(rows))


def measure(count: int, repeats: int, names: Sequence[str]) -> dict[str, Any]:
    """The figures of each choice."""
    texts = sentences(count)
    own: Any = psutil.Process()
    own.cpu_affinity([CORE])
    _set_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder))
        sides = {name: Side(Path(folder), CHOICES[name], texts) for name in names}
        for _ in range(repeats):
            for side in sides.values():
                side.one_by_one()
                side.in_batches()
        return report(sides)


def report(sides: dict[str, Side]) -> dict[str, Any]:
    """Medians, ratios to the first choice each of one repeat, and drifts from it."""
    first = next(iter(sides.values()))
    features, equal = first.features(), [1.0] * len(first.answers)
    told = {}
    for name, side in sides.items():
        found = compared(Trial(first.answers, equal), Trial(side.answers, equal))
        cosines = (side.features() * features).sum(1)
        told[name] = {
            "alone": tuple(side.alone),
            "batches": tuple(side.batches),
            "alone_ratio": _ratio(side.alone, first.alone),
            "batches_ratio": _ratio(side.batches, first.batches),
            "sharing": side.runner.describe()["sharing"],
            "batch_difference": side.runner.describe()["self_check"]["difference"],
            "feature_drift": max(0.0, 1 - cosines.min().item()),
            "score_drift": found["drift"],
            "labels_differ": found["labels_differ"],
            "compared": found["compared"],
            "start_seconds": side.start_seconds,
        }
    return told


def _ratio(mine: Sequence[float], others: Sequence[float]) -> float:
    return statistics.median(one / other for one, other in zip(mine, others, strict=True))


def show(figures: dict[str, Any]) -> None:
    """Print the table."""
    heads = (
        "",
        "alone/s",
        "×",
        "batched/s",
        "×",
        "sharing",
        "features drift",
        "scores drift",
        "labels differ",
        "start s",
    )
    table = Table(*heads)
    for name, each in figures.items():
        table.add_row(
            name,
            str(Spread(each["alone"])),
            f"{each['alone_ratio']:.2f}",
            str(Spread(each["batches"])),
            f"{each['batches_ratio']:.2f}",
            each["sharing"],
            f"{each['feature_drift']:.1e}",
            "" if each["score_drift"] is None else f"{each['score_drift']:.1e}",
            f"{each['labels_differ']} of {each['compared']}",
            f"{each['start_seconds']:.1f}",
        )
    Console().print(table)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--texts", type=int, default=200, help="texts of one run (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each choice (default: %(default)s)")
    parser.add_argument("--only", action="append", choices=list(CHOICES)[1:], help="beside the model as saved; repeat")
    options = parser.parse_args()
    names = list(CHOICES) if options.only is None else [next(iter(CHOICES)), *options.only]
    figures = measure(options.texts, options.repeats, names)
    if options.json:
        print(json.dumps(figures))
    else:
        show(figures)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
