"""Answers as Python objects: images and arrays in place of their forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipemill.codec.arrays import DTYPES, check_array, is_shape, read_array
from pipemill.codec.envelopes import (
    ARRAY,
    AUDIO,
    DTYPE,
    IMAGE,
    SAMPLING_RATE,
    SHAPE,
    VIDEO,
    from_base64,
    mark_of,
    reference_of,
)
from pipemill.codec.images import is_answer_image, read_image
from pipemill.codec.media import Array, Audio, Image, Video
from pipemill.errors import MediaUnreadable

#: Reads what a reference stands for. It raises ValueError for what is no reference.
Fetch = Callable[[str], bytes]


def decode(value: Any, fetch: Fetch | None = None) -> Any:
    """Put objects in the place of forms, within ``value``, which is changed and returned.

    Images become Pillow's, arrays NumPy's. Sounds and videos, and images that aren't PNG or TIFF, become ``Audio``,
    ``Video`` and ``Image``. What isn't exactly a form is data and stays, as do references without ``fetch``.

    Raises
    ------
    MediaUnreadable
        When an image is broken, or what a reference stands for isn't what its form says.
    MissingExtra
        When NumPy or Pillow is needed and isn't installed.

    """
    root = [value]
    open_containers: list[Any] = [root]
    while open_containers:
        container = open_containers.pop()
        for key, each in container.items() if isinstance(container, dict) else enumerate(container):
            if isinstance(each, dict) and (made := _read(each, fetch)) is not None:
                container[key] = made
            elif isinstance(each, dict | list):
                open_containers.append(each)
    return root[0]


def _read(form: dict[str, Any], fetch: Fetch | None) -> Any:
    """The object that a form stands for; None if it is data."""
    mark = mark_of(form)
    if mark is None:
        return None
    if mark == ARRAY:
        return _read_array(form, fetch)
    content = form[mark]
    if isinstance(content, dict) and mark_of(content) == ARRAY:
        return _read_of_array(mark, content, form.get(SAMPLING_RATE), fetch)
    data = _bytes(content, fetch) if SAMPLING_RATE not in form else None
    if data is None:
        return None
    if mark == IMAGE:
        return read_image(data) if is_answer_image(data) else Image(data)
    return Audio(data) if mark == AUDIO else Video(data)


def _read_of_array(mark: str, form: dict[str, Any], sampling_rate: Any, fetch: Fetch | None) -> Audio | Video | None:
    well = type(sampling_rate) is int and sampling_rate > 0 if mark == AUDIO else mark == VIDEO
    array = _array(form, fetch) if well else None
    if array is None:
        return None
    return Audio(array, sampling_rate) if mark == AUDIO else Video(array)


def _read_array(form: dict[str, Any], fetch: Fetch | None) -> Any:
    array = _array(form, fetch)
    if array is None:
        return None
    try:
        return read_array(array.data, array.dtype, array.shape)
    except ValueError:
        return None


def _array(form: dict[str, Any], fetch: Fetch | None) -> Array | None:
    dtype, shape = form[DTYPE], form[SHAPE]
    if not isinstance(dtype, str) or dtype not in DTYPES or not is_shape(shape):
        return None
    data = _bytes(form[ARRAY], fetch)
    if data is None:
        return None
    try:
        return Array(data, dtype, check_array(dtype, shape, len(data)))
    except ValueError as error:
        if isinstance(form[ARRAY], str):
            return None
        raise MediaUnreadable(f"what an array's reference stands for isn't the array: {error}") from error


def _bytes(content: Any, fetch: Fetch | None) -> bytes | None:
    if isinstance(content, str):
        return from_base64(content)
    reference = reference_of(content)
    if reference is None or fetch is None:
        return None
    try:
        return fetch(reference)
    except ValueError:
        return None
