"""Media files made in memory, limits, and a decoder."""

from __future__ import annotations

import io
from base64 import b64encode
from dataclasses import dataclass
from functools import cache
from typing import Any

import av
import numpy as np
import soundfile  # type: ignore[import-untyped]  # ships no hints
from numpy.typing import NDArray
from PIL import Image

from pipemill_worker.media import MediaDecoder

RATE = 16_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """A queue's limits, small enough to be reached."""

    max_media: int = 4
    max_media_bytes: int = 1_000_000
    max_pixels: int = 100_000
    max_seconds: float = 10.0
    max_frames: int = 64


def decoder(limits: Limits | None = None, **others: Any) -> MediaDecoder:
    """A decoder for a model at 16 kHz, unless it is told otherwise."""
    settings = {"sampling_rate": RATE, "references": None, "urls": None, **others}
    return MediaDecoder(limits or Limits(), **settings)


def text(data: bytes) -> str:
    """Bytes as JSON carries them."""
    return b64encode(data).decode()


def array_form(array: NDArray[Any]) -> dict[str, Any]:
    """An array as JSON carries it."""
    return {"$array": text(array.tobytes()), "dtype": array.dtype.name, "shape": list(array.shape)}


def pixels(height: int = 12, width: int = 16, seed: int = 0) -> NDArray[np.uint8]:
    """Colours at random."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def image_file(kind: str = "PNG", mode: str = "RGB", **options: Any) -> bytes:
    """An image file of 16 × 12 pixels."""
    buffer = io.BytesIO()
    Image.fromarray(pixels()).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def wave(frames: int = RATE, seed: int = 0) -> NDArray[np.float32]:
    """Noise, soft enough for every encoder."""
    noise: NDArray[np.float32] = np.random.default_rng(seed).standard_normal(frames, dtype=np.float32)
    return noise * np.float32(0.1)


def sound_file(samples: NDArray[Any], rate: int = RATE, kind: str = "WAV", subtype: str | None = "FLOAT") -> bytes:
    """A sound file; samples as [frames] or [frames, channels]."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


@cache
def video_file(
    frames: int = 20, kind: str = "mp4", codec: str = "mpeg4", size: tuple[int, int] = (64, 48), rate: int = 10
) -> bytes:
    """A video file of noise; ``size`` is width and height."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=kind) as container:
        stream: Any = container.add_stream(codec, rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(pixels(size[1], size[0], index), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()
