"""A pipeline's answer as plain Python, arrays and images, which the codec can carry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

_ATOMS = (str, int, float, bool, type(None))


def to_plain(answer: Any) -> Any:
    """NumPy and torch numbers as numbers of exactly that value, tuples as lists; arrays and images as they are.

    A list that begins with a float is taken for a row of floats and not walked: feature-extraction gives thousands.
    """
    kind = type(answer)
    if kind in _ATOMS or (kind is list and answer and type(answer[0]) is float):
        return answer
    if isinstance(answer, Mapping):
        return {key: to_plain(value) for key, value in answer.items()}
    if isinstance(answer, list | tuple):
        return [to_plain(element) for element in answer]
    if isinstance(answer, np.generic) or (isinstance(answer, np.ndarray | torch.Tensor) and answer.ndim == 0):
        return answer.item()
    return answer  # What the codec can't carry either, it refuses with the job's own error.
