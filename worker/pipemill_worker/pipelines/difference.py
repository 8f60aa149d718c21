"""How far two answers are apart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from PIL import Image

#: Depth maps are images of whole greys, between two of which the last bit of a float may decide.
ONE_GREY: Final = 1
#: Share of an image's pixels that may be others: along the edges of a mask, too, the last bit of a float decides.
FEW_PIXELS: Final = 1e-3


def difference(one: Any, other: Any) -> float:
    """The largest difference of two numbers at equal places, relative to those above 1; infinite for any other.

    Of images it is the share of pixels that differ. Objects that were found are compared by their scores.
    """
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return _largest(one, other, sorted(one, key=str)) if one.keys() == other.keys() else math.inf
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return _of_lists(one, other)
    if isinstance(one, Image.Image) and isinstance(other, Image.Image):
        same = one.mode == other.mode and one.size == other.size
        return _of_images(np.asarray(one), np.asarray(other)) if same else math.inf
    if isinstance(one, np.ndarray | torch.Tensor) and isinstance(other, np.ndarray | torch.Tensor):
        return _of_arrays(_array(one), _array(other))
    if _is_number(one) and _is_number(other):
        return _of_arrays(np.float64(one), np.float64(other))
    return 0.0 if one == other else math.inf


def _of_lists(one: Sequence[Any], other: Sequence[Any]) -> float:
    if _are_boxes(one) and _are_boxes(other):  # Whole pixels, in the order of scores that may be all but equal.
        one, other = (sorted(each["score"] for each in found) for found in (one, other))
    if _are_floats(one) and _are_floats(other):  # Features are a hundred thousand of them.
        return _of_arrays(np.array(one), np.array(other))
    one, other = ([each for each in found if not _is_speck(each)] for found in (one, other))
    return _largest(one, other, range(len(one))) if len(one) == len(other) else math.inf


def _largest(one: Any, other: Any, places: Any) -> float:
    return max((difference(one[place], other[place]) for place in places), default=0.0)


def _are_floats(row: Sequence[Any]) -> bool:
    return bool(row) and all(type(each) is float for each in row)


def _are_boxes(found: Sequence[Any]) -> bool:
    return all(isinstance(each, Mapping) and {"box", "score"} <= each.keys() for each in found)


def _is_speck(found: Any) -> bool:
    """Whether it is a mask of so few pixels that it may be there or not."""
    mask = found.get("mask") if isinstance(found, Mapping) else None
    return isinstance(mask, Image.Image) and float(np.mean(np.asarray(mask) > 0)) <= FEW_PIXELS


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _array(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        return (value.float() if value.dtype is torch.bfloat16 else value).numpy()
    return value


def _of_images(one: Any, other: Any) -> float:
    """The share of pixels that differ, unless they are few."""
    share = float(np.mean(np.abs(one.astype(np.float64) - other.astype(np.float64)) > ONE_GREY))
    return share if share > FEW_PIXELS else 0.0


def _of_arrays(one: Any, other: Any) -> float:
    if one.shape != other.shape:
        return math.inf
    if one.size == 0:
        return 0.0
    one, other = one.astype(np.float64), other.astype(np.float64)
    finite = np.isfinite(one)
    if not (
        np.array_equal(finite, np.isfinite(other)) and np.array_equal(one[~finite], other[~finite], equal_nan=True)
    ):
        return math.inf
    apart = np.abs(one[finite] - other[finite]) / np.maximum(1.0, np.abs(one[finite]))
    return float(apart.max(initial=0.0))
