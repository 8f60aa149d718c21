"""What a producer makes of its files and objects, to put among a job's inputs."""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from pipemill.codec.arrays import check_array, is_a, read_array, tensor_to_array, write_array
from pipemill.codec.envelopes import AUDIO, IMAGE, SAMPLING_RATE, URL, VIDEO, array_form
from pipemill.codec.images import write_image
from pipemill.errors import MissingExtra

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: What carries bytes: base64, or a reference to them.
Carry = Callable[[bytes], Any]

#: Channels of a sound at most; more rows than that are most likely frames, as soundfile gives them.
MAX_CHANNELS: Final = 64
#: Dimensions of an array of samples with channels.
_WITH_CHANNELS: Final = 2
#: Dimensions of an array of a video's frames (frames, height, width, colours), and the length of the last.
_FRAMES: Final = (4, (3,))


class Media(ABC):
    """Something that isn't JSON and has a form in it."""

    __slots__ = ()

    @abstractmethod
    def envelope(self, carry: Carry) -> dict[str, Any]:
        """Write its form; ``carry`` writes bytes."""


@dataclass(frozen=True, slots=True)
class Remote:
    """Where a worker fetches a content, if the queue's catalogue allows it."""

    url: str


def _write(content: bytes | Remote | Array, carry: Carry) -> Any:
    if isinstance(content, Remote):
        return {URL: content.url}
    return content.envelope(carry) if isinstance(content, Array) else carry(content)


def _show(kind: str, content: bytes | Remote | Array, more: str = "") -> str:
    shown = f"{len(content)} bytes" if isinstance(content, bytes) else repr(content)
    return f"{kind}({shown}{more})"


@dataclass(frozen=True, slots=True, repr=False)
class Array(Media):
    """An array of numbers."""

    #: The elements in C order, little endian.
    data: bytes
    #: The number format: bool, (u)int8 to 64, float16 to 64, bfloat16, complex64 or complex128.
    dtype: str
    shape: tuple[int, ...]

    @classmethod
    def of(cls, source: Any) -> Self:
        """Take a NumPy array, a torch tensor, or a ``.npy`` file (a path).

        Raises
        ------
        TypeError
            When it is something else, or isn't made of numbers.
        OSError, ValueError
            When the file can't be read.

        """
        if isinstance(source, cls):
            return source
        if is_a(source, "numpy", "ndarray"):
            return cls(*write_array(source))
        if is_a(source, "torch", "Tensor"):
            return cls(*tensor_to_array(sys.modules["torch"], source))
        if isinstance(source, str | os.PathLike):
            return cls(*write_array(_load_npy(source)))
        raise TypeError(
            f"Array.of takes a NumPy array, a torch tensor or the path of a .npy file, not {type(source).__name__}"
        )

    def numpy(self) -> NDArray[Any]:
        """Return it as a NumPy array; bfloat16 becomes float32, exactly.

        Raises
        ------
        ValueError
            When dtype and shape don't fit the data.
        MissingExtra
            When NumPy isn't installed.

        """
        return read_array(self.data, self.dtype, self.shape)

    def envelope(self, carry: Carry) -> dict[str, Any]:
        """Write its form; a ValueError says when dtype and shape don't fit the data."""
        check_array(self.dtype, self.shape, len(self.data))
        return array_form(carry(self.data), self.dtype, self.shape)

    def __repr__(self) -> str:
        return f"Array({self.dtype}, {self.shape})"


@dataclass(frozen=True, slots=True, repr=False)
class Image(Media):
    """An image."""

    #: An encoded file: PNG, JPEG, WebP, GIF, BMP or TIFF.
    data: bytes | Remote

    @classmethod
    def of(cls, source: Any) -> Self:
        """Take a file (a path, or an open one), its bytes, a Pillow image, or an array of uint8 ([height, width, 3]).

        A file is sent as it is; a Pillow image and an array are sent as PNG, or as TIFF if PNG can't hold them.

        Raises
        ------
        TypeError, ValueError
            When it is something else, or a URL.
        OSError
            When the file can't be read.

        """
        if isinstance(source, cls):
            return source
        if is_a(source, "PIL.Image", "Image"):
            return cls(write_image(source))
        if is_a(source, "numpy", "ndarray"):
            return cls(write_image(_pillow_image(source)))
        return cls(_read(source, "Image", "a Pillow image or an array"))

    @classmethod
    def at(cls, url: str) -> Self:
        """Let the worker fetch it; only queues whose catalogue entry has ``urls`` take such inputs."""
        return cls(_remote(url))

    def envelope(self, carry: Carry) -> dict[str, Any]:
        """Write its form."""
        return {IMAGE: _write(self.data, carry)}

    def __repr__(self) -> str:
        return _show("Image", self.data)


@dataclass(frozen=True, slots=True, repr=False)
class Audio(Media):
    """A sound."""

    #: An encoded file (wav, flac, ogg, mp3), or samples of shape [frames] or [channels, frames].
    data: bytes | Remote | Array
    #: Samples a second, of an array; a file says it itself.
    sampling_rate: int | None = None

    @classmethod
    def of(cls, source: Any, *, sampling_rate: int | None = None) -> Self:
        """Take a file (a path, or an open one), its bytes, or an array of samples with its ``sampling_rate``.

        Samples are of shape [frames] or [channels, frames]: floats from -1 to 1, or whole numbers of their full range.

        Raises
        ------
        TypeError, ValueError
            When it is something else, a URL, or an array without its rate.
        OSError
            When the file can't be read.

        """
        if isinstance(source, cls):
            return source
        if not _is_array(source):
            if sampling_rate is not None:
                raise ValueError("a file says its sampling rate itself: leave sampling_rate out")
            return cls(_read(source, "Audio", "an array of samples with its sampling_rate"))
        if type(sampling_rate) is not int or sampling_rate < 1:
            raise ValueError(f"give the samples' rate, Audio.of(array, sampling_rate=16000), not {sampling_rate!r}")
        return cls(_check_samples(Array.of(source)), sampling_rate)

    @classmethod
    def at(cls, url: str) -> Self:
        """Let the worker fetch it; only queues whose catalogue entry has ``urls`` take such inputs."""
        return cls(_remote(url))

    def envelope(self, carry: Carry) -> dict[str, Any]:
        """Write its form."""
        form = {AUDIO: _write(self.data, carry)}
        return form if self.sampling_rate is None else {**form, SAMPLING_RATE: self.sampling_rate}

    def __repr__(self) -> str:
        return _show("Audio", self.data, "" if self.sampling_rate is None else f", {self.sampling_rate} Hz")


@dataclass(frozen=True, slots=True, repr=False)
class Video(Media):
    """A video."""

    #: An encoded file (mp4, mov, webm, mkv, avi), or frames as uint8 of shape [frames, height, width, 3].
    data: bytes | Remote | Array

    @classmethod
    def of(cls, source: Any) -> Self:
        """Take a file (a path, or an open one), its bytes, or frames as uint8 of shape [frames, height, width, 3].

        Raises
        ------
        TypeError, ValueError
            When it is something else, or a URL.
        OSError
            When the file can't be read.

        """
        if isinstance(source, cls):
            return source
        if not _is_array(source):
            return cls(_read(source, "Video", "an array of frames"))
        frames = Array.of(source)
        if frames.dtype != "uint8" or (len(frames.shape), frames.shape[-1:]) != _FRAMES:
            raise ValueError(f"frames must be uint8 of shape [frames, height, width, 3], not {frames!r}")
        return cls(frames)

    @classmethod
    def at(cls, url: str) -> Self:
        """Let the worker fetch it; only queues whose catalogue entry has ``urls`` take such inputs."""
        return cls(_remote(url))

    def envelope(self, carry: Carry) -> dict[str, Any]:
        """Write its form."""
        return {VIDEO: _write(self.data, carry)}

    def __repr__(self) -> str:
        return _show("Video", self.data)


def _is_array(source: Any) -> bool:
    return isinstance(source, Array) or is_a(source, "numpy", "ndarray") or is_a(source, "torch", "Tensor")


def _read(source: Any, kind: str, others: str) -> bytes:
    """Read an encoded file."""
    if isinstance(source, str) and ("://" in source[:80] or source.startswith("data:")):
        raise ValueError(
            f"{kind}.of reads files, and {source[:80]!r} is a URL: fetch it and give the bytes, or give "
            f"{kind}.at(url) to a queue whose catalogue entry lets workers fetch it"
        )
    if isinstance(source, str | os.PathLike):
        with open(source, "rb") as file:  # noqa: PTH123  # importing pathlib would slow down every producer's start
            data: Any = file.read()
    else:
        data = source.read() if hasattr(source, "read") else source
    if not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError(f"{kind}.of takes a path, an open binary file, bytes, or {others}, not {type(source).__name__}")
    if len(data) == 0:
        raise ValueError(f"{kind}.of was given an empty file: give one with something in it")
    return bytes(data)


def _remote(url: str) -> Remote:
    if not str(url).startswith(("https://", "http://")):
        raise ValueError(f"a URL starts with https://, unlike {str(url)[:80]!r}: for a file of yours use .of(path)")
    return Remote(url)


def _check_samples(samples: Array) -> Array:
    dimensions = len(samples.shape)
    if dimensions not in {1, _WITH_CHANNELS} or samples.dtype == "bool" or samples.dtype.startswith("complex"):
        raise ValueError(f"samples must be numbers of shape [frames] or [channels, frames], not {samples!r}")
    if dimensions == _WITH_CHANNELS and samples.shape[0] > MAX_CHANNELS:
        raise ValueError(
            f"samples are of shape [channels, frames], and {samples.shape[0]} channels are more than "
            f"{MAX_CHANNELS}: transpose them, array.T"
        )
    return samples


def _pillow_image(array: NDArray[Any]) -> Any:
    try:
        import PIL.Image  # noqa: PLC0415  # only who has images needs it
    except ImportError as error:
        text = (
            'an array is sent as an image by way of Pillow, which isn\'t installed: run pip install "pipemill[media]"'
        )
        raise MissingExtra(text) from error
    try:
        return PIL.Image.fromarray(array)
    except (TypeError, ValueError) as error:
        shape = f"{array.dtype}, {array.shape}"
        text = f"an image's array is uint8 of shape [height, width] or [height, width, 3 or 4], not {shape}"
        raise ValueError(text) from error


def _load_npy(path: str | os.PathLike[str]) -> NDArray[Any]:
    try:
        import numpy as np  # noqa: PLC0415  # only who has arrays needs it
    except ImportError as error:
        raise MissingExtra(
            'a .npy file needs NumPy, which isn\'t installed: run pip install "pipemill[media]"'
        ) from error
    loaded: Any = np.load(path, allow_pickle=False)
    if not isinstance(loaded, np.ndarray):
        raise ValueError(f"{str(path)[:80]!r} holds several arrays: give a .npy file, which holds one")  # noqa: TRY004  # the type of the argument is right
    return loaded
