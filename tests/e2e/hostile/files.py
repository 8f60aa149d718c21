"""Files that claim more than they hold, or hold less than they claim."""

from __future__ import annotations

import io
import struct
import zlib
from base64 import b64encode
from collections.abc import Mapping
from typing import Any, Final

from PIL import Image

from tests.tasks.media import drawn


def base64(data: bytes) -> str:
    """Bytes as JSON carries them."""
    return b64encode(data).decode("ascii")


def png(width: int, height: int) -> bytes:
    """A black image whose pixels are never in memory here."""
    row = bytes(1 + width)
    packer = zlib.compressobj(9)
    rows = b"".join([*(packer.compress(row) for _ in range(height)), packer.flush()])
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def image(kind: str) -> bytes:
    """A good image of this format."""
    buffer = io.BytesIO()
    drawn(1).save(buffer, kind)
    return buffer.getvalue()


def wav(claimed: int, data: bytes) -> bytes:
    """A WAV file, 16 bits at 16 kHz, that says it has so many bytes of samples."""
    form = struct.pack("<HHIIHH", 1, 1, 16_000, 32_000, 2, 16)
    size = min(claimed + 36, 2**32 - 1)
    return (
        b"RIFF" + struct.pack("<I", size) + b"WAVEfmt \x10\0\0\0" + form + b"data" + struct.pack("<I", claimed) + data
    )


def array(data: bytes, dtype: Any, shape: Any) -> dict[str, Any]:
    """An array on the wire, whatever it says of itself."""
    return {"$array": base64(data), "dtype": dtype, "shape": shape}


def _frames_of_gif() -> bytes:
    buffer = io.BytesIO()
    pictures = [drawn(seed, mode="P") for seed in range(3)]
    pictures[0].save(buffer, "GIF", save_all=True, append_images=pictures[1:])
    return buffer.getvalue()


def _cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def broken_images() -> Mapping[str, bytes]:
    """Files that are no image, or only a part of one, by what is wrong with them."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "EPS")
    return {
        **{f"half a {kind}": _cut(image(kind)) for kind in ("PNG", "JPEG", "WEBP", "TIFF")},
        "half a GIF": _frames_of_gif()[:60],
        "half a BMP": _cut(image("BMP")),
        "a head alone": b"\x89PNG\r\n\x1a\n",
        "noise behind a head": b"\xff\xd8\xff\xe0" + bytes(range(256)),
        "EPS": buffer.getvalue(),
        "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "a wrong checksum": png(8, 8)[:-20] + bytes(20),
    }


#: A minute of a recording would be a hundred times as long.
_NOISE: Final = bytes(range(256)) * 8


def broken_sounds() -> Mapping[str, bytes]:
    """As ``broken_images``."""
    return {
        "a WAV of 2 GiB": wav(2**31 - 2**20, _NOISE),
        "a WAV of 4 GiB with nothing in it": wav(2**32 - 1, b""),
        "a WAV cut off": wav(64_000, _NOISE),
        "a WAV without samples": wav(0, b""),
        "FLAC noise": b"fLaC" + _NOISE,
        "Ogg noise": b"OggS" + _NOISE,
        "MP3 noise": b"ID3\x04\0\0\0\0\0\x05" + bytes(64),
        "a playlist": b"#EXTM3U\nfile:///etc/passwd\n",
        "no rate": wav(8, bytes(8)).replace(struct.pack("<I", 16_000), bytes(4)),
    }


def broken_videos() -> Mapping[str, bytes]:
    """As ``broken_images``."""
    return {
        "an MP4 head": b"\0\0\0\x18ftypisom\0\0\2\0isomiso2",
        "MP4 noise": b"\0\0\0\x18ftypisom" + _NOISE,
        "Matroska noise": b"\x1aE\xdf\xa3" + _NOISE,
        "AVI noise": b"RIFF\xff\xff\xff\xffAVI " + _NOISE,
        "a playlist": b"ffconcat version 1.0\nfile /etc/passwd\n",
        "an image": image("PNG"),
    }
