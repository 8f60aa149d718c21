"""Images, sounds and videos that a formula draws, and their wire form, written out by hand."""

from __future__ import annotations

import base64
import io
import wave
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

#: Samples a second of every sound here: what the models were "trained" with.
RATE: Final = 16_000


def drawn(seed: int, width: int = 32, height: int = 32, mode: str = "RGB") -> Image.Image:
    """A picture of random shapes over a gradient."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 255, width * height * 3).reshape(height, width, 3)
    image = Image.fromarray((ramp * rng.random(3)).astype("uint8"))
    pen = ImageDraw.Draw(image)
    for _ in range(6):
        (left, right), (top, bottom) = np.sort(rng.integers(0, width, 2)), np.sort(rng.integers(0, height, 2))
        colour = tuple(int(value) for value in rng.integers(0, 256, 3))
        (pen.ellipse if rng.random() < 0.5 else pen.rectangle)((left, top, right, bottom), fill=colour)
    return image.convert(mode)


def image_envelope(image: Image.Image, kind: str = "PNG") -> dict[str, Any]:
    """The image as a file on the wire; only lossless kinds keep it as it is."""
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return {"$image": _base64(buffer.getvalue())}


def tone(seed: int, seconds: float) -> NDArray[np.float32]:
    """A sum of sines and some noise, mono."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    sound = 0.05 * rng.standard_normal(len(time))
    for pitch in rng.integers(80, 4000, 5):
        sound += 0.2 * rng.random() * np.sin(2 * np.pi * pitch * time)
    return sound.clip(-1, 1).astype(np.float32)


def array_envelope(array: NDArray[Any]) -> dict[str, Any]:
    """The array on the wire."""
    return {"$array": _base64(array.tobytes()), "dtype": str(array.dtype), "shape": list(array.shape)}


def sound_envelope(samples: NDArray[np.float32]) -> dict[str, Any]:
    """The samples on the wire."""
    return {"$audio": array_envelope(samples), "sampling_rate": RATE}


def whole_numbers(samples: NDArray[np.float32]) -> NDArray[np.int16]:
    """The samples as a 16-bit file holds them."""
    return (samples * 32767).round().astype("<i2")


def wav_envelope(samples: NDArray[np.float32]) -> dict[str, Any]:
    """A 16-bit wav file on the wire, which holds ``from_wav(samples)``."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(whole_numbers(samples).tobytes())
    return {"$audio": _base64(buffer.getvalue())}


def from_wav(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """The samples that are read from a 16-bit file."""
    return (whole_numbers(samples) / np.float32(32768)).astype(np.float32)


def filmed(seed: int, frames: int, width: int = 32, height: int = 32) -> NDArray[np.uint8]:
    """Frames of a picture that moves to the right, of the shape [frames, height, width, 3]."""
    still = np.asarray(drawn(seed, width, height))
    return np.stack([np.roll(still, shift, axis=1) for shift in range(frames)])


def write_video(path: Path, frames: NDArray[np.uint8]) -> None:
    """Write an mp4 (lossy), or an mkv that keeps each pixel as it is."""
    import av  # noqa: PLC0415  # as the task that needs it

    lossless = path.suffix == ".mkv"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("ffv1" if lossless else "mpeg4", rate=8)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "bgr0" if lossless else "yuv420p"
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def video_envelope(path: Path) -> dict[str, Any]:
    """The file on the wire."""
    return {"$video": _base64(path.read_bytes())}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
