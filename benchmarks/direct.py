"""What benchmarks of writing compare with: transformers' own ``generate``, one call after the other and in batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch

#: A prompt as token ids, and how many new tokens it asks for.
Request = tuple[list[int], int]
Side = Callable[[Sequence[Request]], list[list[int]]]


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
