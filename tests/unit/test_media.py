"""What producers make of their files and objects."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

import pipemill
from pipemill import Array, Audio, Image, Video
from pipemill.media import Remote

KINDS: list[Any] = [Image, Audio, Video]


@pytest.mark.parametrize("kind", KINDS)
def test_files_are_sent_as_they_are(tmp_path: Path, kind: Any) -> None:
    """A path, an open file and bytes are the same thing."""
    file = tmp_path / "file"
    file.write_bytes(b"content")
    made = [kind.of(file), kind.of(str(file)), kind.of(b"content"), kind.of(bytearray(b"content"))]
    made += [kind.of(io.BytesIO(b"content")), kind.of(kind(b"content"))]
    assert made == [kind(b"content")] * 6


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("url", ["https://example.org/a.png", "s3://bucket/a.wav", "data:image/png;base64,AAAA"])
def test_urls_are_no_files(kind: Any, url: str) -> None:
    """A URL is refused, and the way to send one is said."""
    with pytest.raises(ValueError, match=rf"{kind.__name__}\.at\(url\)"):
        kind.of(url)


@pytest.mark.parametrize("kind", KINDS)
def test_a_url_is_sent_as_such(kind: Any) -> None:
    """`at` makes the worker fetch; only the web's own schemes are taken."""
    made = kind.at("https://example.org/a")
    assert made.data == Remote("https://example.org/a")
    assert list(made.envelope(bytes).values()) == [{"url": "https://example.org/a"}]
    for wrong in ("file:///etc/passwd", "a.png", 5):
        with pytest.raises(ValueError, match="https://"):
            kind.at(wrong)


@pytest.mark.parametrize("kind", [*KINDS, Array])
def test_what_is_none_of_these_is_refused(kind: Any) -> None:
    """The message says what is taken."""
    with pytest.raises(TypeError, match=rf"{kind.__name__}\.of takes"):
        kind.of(5)
    with pytest.raises(FileNotFoundError):
        kind.of("nothing.bin")


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_file_is_refused(kind: Any) -> None:
    """Nothing is no medium; an open text file isn't one either."""
    with pytest.raises(ValueError, match="empty"):
        kind.of(b"")
    with pytest.raises(TypeError, match="binary"):
        kind.of(io.StringIO("text"))


def test_images_of_objects() -> None:
    """A Pillow image and an array become the same PNG."""
    pixels = np.arange(12, dtype="uint8").reshape(2, 2, 3)
    image = Image.of(pixels)
    assert isinstance(image.data, bytes)
    assert image == Image.of(PIL.Image.fromarray(pixels))
    assert np.asarray(PIL.Image.open(io.BytesIO(image.data))).tolist() == pixels.tolist()
    with pytest.raises(ValueError, match=r"uint8 of shape \[height, width\]"):
        Image.of(np.zeros((2, 2, 7)))


def test_sounds_of_samples_have_a_rate() -> None:
    """Samples without their rate, or of a shape that no sound has, are refused."""
    samples = np.zeros((2, 100), "float32")
    assert Audio.of(samples, sampling_rate=16_000) == Audio(Array.of(samples), 16_000)
    rate: Any
    for rate in (None, 0, "16000", True):
        with pytest.raises(ValueError, match="sampling_rate=16000"):
            Audio.of(samples, sampling_rate=rate)
    with pytest.raises(ValueError, match="transpose"):
        Audio.of(samples.T, sampling_rate=16_000)
    for wrong in (np.zeros((1, 1, 1)), np.zeros(1, "bool"), np.zeros(1, "complex64"), np.array(1.0)):
        with pytest.raises(ValueError, match=r"\[channels, frames\]"):
            Audio.of(wrong, sampling_rate=16_000)
    with pytest.raises(ValueError, match="leave sampling_rate out"):
        Audio.of(b"RIFF", sampling_rate=16_000)


def test_videos_of_frames() -> None:
    """Frames are bytes of colours."""
    frames = np.zeros((2, 4, 4, 3), "uint8")
    assert Video.of(frames).data == Array.of(frames)
    for wrong in (frames[0], frames.astype("float32"), frames[..., :2], np.array(1, "uint8")):
        with pytest.raises(ValueError, match=r"\[frames, height, width, 3\]"):
            Video.of(wrong)


def test_arrays_of_files(tmp_path: Path) -> None:
    """A .npy file is an array; one with objects in it, which could run code, isn't read."""
    array = np.arange(6.0).reshape(2, 3)
    np.save(tmp_path / "a.npy", array)
    assert Array.of(tmp_path / "a.npy") == Array.of(array)
    assert Array.of(array).numpy().tolist() == array.tolist()
    np.save(tmp_path / "b.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        Array.of(tmp_path / "b.npy")
    np.savez(tmp_path / "c.npz", array, array)
    with pytest.raises(ValueError, match="several"):
        Array.of(tmp_path / "c.npz")
    with pytest.raises(ValueError, match="8 bytes, and there are 4"):
        Array(bytes(4), "float64", (1,)).envelope(bytes)


def test_media_are_shown_in_short() -> None:
    """A megabyte isn't printed, wherever the object is."""
    array = np.zeros((2, 3), "float32")
    shown = [Image(bytes(9)), Audio(b"1"), Audio.of(array, sampling_rate=8), Video.at("https://a.b"), Array.of(array)]
    assert [repr(each) for each in shown] == [
        "Image(9 bytes)",
        "Audio(1 bytes)",
        "Audio(Array(float32, (2, 3)), 8 Hz)",
        "Video(Remote(url='https://a.b'))",
        "Array(float32, (2, 3))",
    ]


def test_they_are_public() -> None:
    """Users find them at the top."""
    assert (pipemill.Image, pipemill.Audio, pipemill.Video, pipemill.Array) == (Image, Audio, Video, Array)
