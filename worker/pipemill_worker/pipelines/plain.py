"""A pipeline's answer as plain Python, which JSON can carry."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

_ATOMS = (str, int, float, bool, type(None))


def to_plain(answer: Any) -> Any:
    """NumPy and torch values as numbers and lists, tuples as lists.

    A list that begins with a float is taken for a row of floats and not walked: feature-extraction gives thousands.
    """
    kind = type(answer)
    if kind in _ATOMS or (kind is list and answer and type(answer[0]) is float):
        return answer
    if kind is dict:
        return {key: to_plain(value) for key, value in answer.items()}
    if kind is list or kind is tuple:
        return [to_plain(element) for element in answer]
    if isinstance(answer, np.generic | np.ndarray | torch.Tensor):
        return answer.tolist()
    return answer  # What else there is, the codec refuses with the job's own error.
