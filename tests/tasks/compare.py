"""Whether a job's answer is the direct call's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import torch
from PIL import Image

#: What a float may differ by, as the product promises.
TOLERANCE: Final = 1e-4


def assert_same(
    answer: Any, direct: Any, tolerance: float = TOLERANCE, *, grey_levels: int = 0, path: str = "answer"
) -> None:
    """Equal in all that is discrete, within the tolerance where it is a float; a failure names the place.

    JSON has no tuples and no NumPy numbers: a list stands for a tuple, and a number for a NumPy number. An array
    stands for a tensor. ``grey_levels``: what a pixel of an image may differ by.
    """
    if isinstance(direct, Mapping):
        _same_mapping(answer, direct, tolerance, grey_levels, path)
    elif isinstance(direct, list | tuple):
        assert isinstance(answer, list | tuple), f"{path}: {_kind(answer)} in place of {_kind(direct)}"
        assert len(answer) == len(direct), f"{path}: {len(answer)} elements, not {len(direct)}"
        for position, (mine, theirs) in enumerate(zip(answer, direct, strict=True)):
            assert_same(mine, theirs, tolerance, grey_levels=grey_levels, path=f"{path}[{position}]")
    elif isinstance(direct, Image.Image):
        _same_image(answer, direct, grey_levels, path)
    elif isinstance(direct, torch.Tensor):
        assert_same(answer, direct.detach().cpu().numpy(), tolerance, path=path)
    elif isinstance(direct, np.ndarray):
        _same_array(answer, direct, tolerance, path)
    else:
        _same_atom(answer, direct, tolerance, path)


def _same_mapping(answer: Any, direct: Mapping[str, Any], tolerance: float, grey_levels: int, path: str) -> None:
    assert isinstance(answer, Mapping), f"{path}: {_kind(answer)} in place of {_kind(direct)}"
    assert list(answer) == list(direct), f"{path}: keys {list(answer)}, not {list(direct)}"
    for key, value in direct.items():
        assert_same(answer[key], value, tolerance, grey_levels=grey_levels, path=f"{path}.{key}")


def _same_image(answer: Any, direct: Image.Image, grey_levels: int, path: str) -> None:
    assert isinstance(answer, Image.Image), f"{path}: {_kind(answer)} in place of an image"
    mine, theirs = (answer.mode, answer.size), (direct.mode, direct.size)
    assert mine == theirs, f"{path}: an image {mine}, not {theirs}"
    pixels, expected = np.asarray(answer), np.asarray(direct)
    _raise_where(np.abs(pixels.astype(int) - expected.astype(int)) > grey_levels, pixels, expected, path)


def _same_array(answer: Any, direct: np.ndarray[Any, Any], tolerance: float, path: str) -> None:
    if isinstance(answer, torch.Tensor):
        answer = answer.detach().cpu().numpy()
    assert isinstance(answer, np.ndarray), f"{path}: {_kind(answer)} in place of an array"
    mine, theirs = (str(answer.dtype), answer.shape), (str(direct.dtype), direct.shape)
    assert mine == theirs, f"{path}: an array {mine}, not {theirs}"
    if np.issubdtype(direct.dtype, np.inexact):
        wrong = ~np.isclose(answer, direct, rtol=0, atol=tolerance, equal_nan=True)
    else:
        wrong = answer != direct
    _raise_where(wrong, answer, direct, path)


def _raise_where(wrong: Any, answer: Any, direct: Any, path: str) -> None:
    if wrong.any():
        place = tuple(int(index) for index in np.argwhere(wrong)[0])
        raise AssertionError(
            f"{path}{list(place)}: {answer[place]}, not {direct[place]}; {int(wrong.sum())} of {wrong.size} differ"
        )


def _same_atom(answer: Any, direct: Any, tolerance: float, path: str) -> None:
    mine, theirs = (value.item() if isinstance(value, np.generic) else value for value in (answer, direct))
    assert type(mine) is type(theirs), f"{path}: {_kind(answer)} {answer!r:.80}, not {_kind(direct)} {direct!r:.80}"
    if isinstance(theirs, float):
        near = mine == theirs or abs(mine - theirs) <= tolerance or (math.isnan(mine) and math.isnan(theirs))
        assert near, f"{path}: {mine}, not {theirs}"
    else:
        assert mine == theirs, f"{path}: {mine!r:.80}, not {theirs!r:.80}"


def _kind(value: Any) -> str:
    return type(value).__name__
