"""Arrays as bytes, and back: C order, little endian."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from pipemill.errors import MissingExtra

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: The number formats on the wire: each one's name, and how NumPy calls its bytes. NumPy has no bfloat16.
DTYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "bool": "|b1",
        "int8": "|i1",
        "int16": "<i2",
        "int32": "<i4",
        "int64": "<i8",
        "uint8": "|u1",
        "uint16": "<u2",
        "uint32": "<u4",
        "uint64": "<u8",
        "float16": "<f2",
        "float32": "<f4",
        "float64": "<f8",
        "bfloat16": "<u2",
        "complex64": "<c8",
        "complex128": "<c16",
    }
)
#: Dimensions of an array at most; no pipeline takes or gives more.
MAX_DIMENSIONS: Final = 8
#: Length of one dimension at most: an array of no elements may claim any.
MAX_LENGTH: Final = 2**40
#: How a missing library is told.
MEND: Final = 'run pip install "pipemill[media]"'


def item_bytes(dtype: str) -> int:
    """Bytes of one element."""
    return int(DTYPES[dtype][2:])


def write_array(array: NDArray[Any]) -> tuple[bytes, str, tuple[int, ...]]:
    """Return an array's bytes, the name of its number format, and its shape; any layout and byte order will do.

    Raises
    ------
    TypeError
        When it isn't an array of numbers, is masked, or has too many dimensions.

    """
    name = array.dtype.name
    if name not in DTYPES:
        raise TypeError(f"an array of {name[:80]} can't be sent: convert it with .astype(), to float32 for one")
    if array.ndim > MAX_DIMENSIONS:
        raise TypeError(f"an array of {array.ndim} dimensions can't be sent, {MAX_DIMENSIONS} can: reshape it")
    if hasattr(array, "mask"):
        raise TypeError("a masked array can't be sent: fill its gaps with .filled()")
    if array.dtype.byteorder == ">" or (array.dtype.byteorder == "=" and sys.byteorder == "big"):
        array = array.byteswap()
    if name == "bool":
        array = array.view("uint8") != 0  # what was made by a view may have other bytes than 0 and 1
    return array.tobytes(), name, array.shape


def read_array(data: bytes, dtype: Any, shape: Any) -> NDArray[Any]:
    """Return the array that bytes stand for; it can be written to. bfloat16 becomes float32, exactly.

    Raises
    ------
    ValueError
        When dtype or shape is none, or they don't fit the bytes.
    MissingExtra
        When NumPy isn't installed.

    """
    lengths = check_array(dtype, shape, len(data))
    numpy = _numpy()
    read = numpy.frombuffer(bytearray(data), DTYPES[dtype])
    if dtype == "bfloat16":
        read = (read.astype("uint32") << 16).view("float32")
    elif dtype == "bool" and (read.view("uint8") > 1).any():
        raise ValueError("each byte of an array of bool must be 0 or 1")
    array: NDArray[Any] = read.astype(read.dtype.newbyteorder("="), copy=False).reshape(lengths)
    return array


def is_a(value: Any, module: str, name: str) -> bool:
    """Whether a value is of a class of a library; one that isn't loaded has made no value."""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(value, getattr(loaded, name))


def check_array(dtype: Any, shape: Any, size: int) -> tuple[int, ...]:
    """Return the shape of an array of so many bytes.

    Raises
    ------
    ValueError
        When dtype or shape is none, or they don't fit the bytes.

    """
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, not {str(dtype)[:80]!r}")
    if not is_shape(shape):
        raise ValueError(f"shape must be a list of at most {MAX_DIMENSIONS} whole numbers that aren't negative")
    wanted = math.prod(shape) * item_bytes(dtype)
    if wanted != size:
        raise ValueError(f"shape and dtype make {wanted} bytes, and there are {size}: the bytes must be all of them")
    return tuple(shape)


def is_shape(shape: Any) -> bool:
    """Whether a value can be an array's shape."""
    return (
        isinstance(shape, Sequence)
        and not isinstance(shape, str | bytes)
        and len(shape) <= MAX_DIMENSIONS
        and all(type(length) is int and 0 <= length <= MAX_LENGTH for length in shape)
    )


def tensor_to_array(torch: Any, tensor: Any) -> tuple[bytes, str, tuple[int, ...]]:
    """Return a tensor's bytes, the name of its number format, and its shape; bfloat16 stays what it is.

    Raises
    ------
    TypeError
        When it is sparse or quantised, or of a number format that has no form.

    """
    if tensor.layout is not torch.strided or tensor.is_quantized:
        raise TypeError("a sparse or quantised tensor can't be sent: call .to_dense() or .dequantize() first")
    plain = tensor.detach().cpu().resolve_conj().resolve_neg()
    if plain.dtype is torch.bfloat16:
        data, _, shape = write_array(plain.view(torch.int16).numpy())
        return data, "bfloat16", shape
    try:
        return write_array(plain.numpy())
    except RuntimeError as error:
        raise MissingExtra(f"tensors are sent by way of NumPy, which isn't installed: {MEND}") from error


def _numpy() -> Any:
    try:
        import numpy as np  # noqa: PLC0415  # only who has arrays needs it
    except ImportError as error:
        raise MissingExtra(
            f"an array needs NumPy, which isn't installed: {MEND}, or make the client with decode=False for plain JSON"
        ) from error
    return np
