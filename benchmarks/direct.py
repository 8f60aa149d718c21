"""What benchmarks of writing compare with: transformers' own ``generate``, one call after the other and in batches."""

from __future__ import annotations

import argparse
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch

#: A prompt as token ids, and how many new tokens it asks for.
Request = tuple[list[int], int]
Side = Callable[[Sequence[Request]], list[list[int]]]
#: Seconds, and the texts.
Timed = Callable[[Sequence[Request]], tuple[float, list[list[int]]]]
#: What stands for calls without pipemill.
FIRST: Final = "one after the other"


class Generates:
    """What a pipeline does with its model, and no more."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def forward(self, inputs: dict[str, torch.Tensor], **parameters: Any) -> Any:
        """Write."""
        return self.model.generate(**inputs, **parameters)


class Direct(ABC):
    """A model without pipemill."""

    def sequential(self, asked: Sequence[Request]) -> list[list[int]]:
        """One call after the other."""
        return [self._generate([request])[0] for request in asked]

    def static(self, asked: Sequence[Request], size: int) -> list[list[int]]:
        """Batches in the order of arrival, each written to its longest."""
        written: list[list[int]] = []
        for start in range(0, len(asked), size):
            written += self._generate(asked[start : start + size])
        return written

    @abstractmethod
    def _generate(self, asked: Sequence[Request]) -> list[list[int]]:
        """One call for all of these."""


def timed(way: Side) -> Timed:
    """A way with the seconds that it takes."""

    def run(asked: Sequence[Request]) -> tuple[float, list[list[int]]]:
        started = time.perf_counter()
        texts = way(asked)
        return time.perf_counter() - started, texts

    return run


def by_turns(
    ways: Mapping[str, Timed], asked: Sequence[Request], repeats: int
) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Each way's seconds in each of so many turns, and how many of its texts are those of ``FIRST``."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    texts: dict[str, list[list[int]]] = {}
    for way in ways.values():
        way(asked[:4])  # What is made once.
    for _ in range(repeats):
        for name, way in ways.items():
            took, texts[name] = way(asked)
            seconds[name].append(took)
    return seconds, {name: sum(map(list.__eq__, texts[FIRST], each)) for name, each in texts.items()}


def faster(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """How many times as fast the first is, by seconds of the same turns: the median."""
    return statistics.median(their / our for our, their in zip(ours, theirs, strict=True))


def options(description: str | None) -> argparse.Namespace:
    """What the command line says: ``json`` and ``repeats``."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="turns of each way (3)")
    return parser.parse_args()
