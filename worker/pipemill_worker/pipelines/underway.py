"""What a forward pass tells while it runs, and is told: that it gets on, and which of its rows nobody waits for."""

from __future__ import annotations

import contextlib
import functools
import inspect
import time
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import torch
from transformers import StoppingCriteriaList

from pipemill_worker.seams import Item

T = TypeVar("T")


class Underway:
    """The pass that runs. As a stopping criterion, called at each token of a generation, it ends rows that are over."""

    def __init__(self) -> None:
        self._items: Sequence[Item] = ()
        self._by_row = False

    @contextlib.contextmanager
    def holding(self, items: Sequence[Item], *, by_row: bool) -> Iterator[None]:
        """These items run meanwhile; ``by_row`` tells whether rows are theirs, as many for each, in order."""
        self._items, self._by_row = items, by_row
        try:
            yield
        finally:
            self._items = ()

    def step(self) -> None:
        """The pass gets on."""
        for item in self._items[:1]:
            item.alive_at = time.monotonic()

    def passed(self, chunk: T) -> T:
        """The pass gets on to its next chunk."""
        self.step()
        return chunk

    def __call__(self, input_ids: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        """Which rows are to end: those of items that are over, or all of them once every item is."""
        self.step()
        rows, items = input_ids.shape[0], self._items
        over = [item.over for item in items]
        if not any(over):  # No copy to the device, which would wait for it.
            return torch.zeros(rows, dtype=torch.bool, device=input_ids.device)
        if not self._by_row or rows % len(items):
            over = [all(over)]
        ends = torch.tensor(over, dtype=torch.bool, device=input_ids.device)
        return ends.repeat_interleave(rows // len(over))


def watched(model: Any, underway: Underway) -> None:
    """Let every generation of a model ask at each token whether it is to go on.

    Models whose ``generate`` is their own, without stopping criteria, write to their end.
    """
    if "stopping_criteria" not in inspect.signature(type(model).generate).parameters:
        return
    generate = model.generate

    @functools.wraps(generate)
    def asking(*args: Any, stopping_criteria: Any = None, **options: Any) -> Any:
        criteria = StoppingCriteriaList([*(stopping_criteria or ()), underway])
        return generate(*args, stopping_criteria=criteria, **options)

    model.generate = asking
