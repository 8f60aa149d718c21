"""The hook with which JSON takes media, arrays and tensors."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

from pipemill.codec.arrays import tensor_to_array, write_array
from pipemill.codec.envelopes import IMAGE, REFERENCE, array_form, to_base64
from pipemill.codec.images import write_image
from pipemill.codec.media import Carry, Media
from pipemill.protocol.names import REFERENCE_BYTES

#: What ``orjson.dumps(default=...)`` takes.
Hook = Callable[[Any], Any]


def encoder(keep: Callable[[bytes], str] | None = None, above: int = REFERENCE_BYTES) -> Hook:
    """Return the ``default`` hook that writes what JSON lacks in its form.

    Contents of more than ``above`` bytes are given to ``keep``, which returns their reference; without it, all travel
    as base64. The hook raises TypeError for what has no form.
    """
    return partial(_form, partial(_carry, keep, above))


def _carry(keep: Callable[[bytes], str] | None, above: int, data: bytes) -> Any:
    if keep is not None and len(data) > above:
        return {REFERENCE: keep(data)}
    return to_base64(data)


def _form(carry: Carry, value: Any) -> Any:
    if isinstance(value, Media):
        return value.envelope(carry)
    for name, write in (("numpy", _of_numpy), ("PIL.Image", _of_pillow), ("torch", _of_torch)):
        module = sys.modules.get(name)
        if module is not None and (form := write(module, value, carry)) is not None:
            return form
    if isinstance(value, tuple):
        return list(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: getattr(value, each.name) for each in fields(value) if each.name[0] != "_"}
    raise TypeError(_refusal(value))


def _of_numpy(numpy: Any, value: Any, carry: Carry) -> Any:
    if isinstance(value, numpy.bool_ | numpy.integer | numpy.floating):
        plain = value.item()
        if isinstance(plain, bool | int | float):
            return plain
        raise TypeError(f"{type(value).__name__} has more digits than JSON numbers keep: convert it with float()")
    if isinstance(value, numpy.ndarray | numpy.complexfloating):
        data, dtype, shape = write_array(value)
        return array_form(carry(data), dtype, shape)
    return None


def _of_pillow(pillow: Any, value: Any, carry: Carry) -> Any:
    return {IMAGE: carry(write_image(value))} if isinstance(value, pillow.Image) else None


def _of_torch(torch: Any, value: Any, carry: Carry) -> Any:
    if not isinstance(value, torch.Tensor):
        return None
    data, dtype, shape = tensor_to_array(torch, value)
    return array_form(carry(data), dtype, shape)


def _refusal(value: Any) -> str:
    name = type(value).__name__
    if isinstance(value, bytes | bytearray | memoryview | os.PathLike):
        return f"{name} says not what it is: wrap it in pipemill.Image.of(...), Audio.of(...) or Video.of(...)"
    if hasattr(value, "read"):
        return f"{name} is a file: wrap it in pipemill.Image.of(...), Audio.of(...) or Video.of(...)"
    return f"Type is not JSON serializable: {name}"
