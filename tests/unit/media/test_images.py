"""Images: the formats that are taken, and what hostile ones do not do."""

from __future__ import annotations

import io
import struct
import zlib
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import GifImagePlugin, Image, ImageOps

from pipemill.errors import InvalidInput
from pipemill_worker.media import images
from pipemill_worker.media.images import read_image
from tests.unit.media.files import image_file, pixels

PIXELS = 100_000
FORMATS = ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"]


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int) -> bytes:
    """A black PNG file of one bit per pixel."""
    row = bytes(1 + (width + 7) // 8)
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", FORMATS)
def test_an_image_is_what_pillow_makes_of_the_file(kind: str) -> None:
    """Each format comes out pixel for pixel as Pillow opens it, in its own mode, before any conversion."""
    data = image_file(kind)
    expected = Image.open(io.BytesIO(data))
    found = read_image(data, PIXELS)
    assert (found.mode, found.size, found.tobytes()) == (expected.mode, expected.size, expected.tobytes())


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
def test_a_mode_is_kept(mode: str) -> None:
    """No image is converted on the way in."""
    assert read_image(image_file("PNG", mode), PIXELS).mode == mode


def test_the_turn_of_a_photograph_is_kept_for_the_pipeline() -> None:
    """EXIF's orientation reaches the pipeline, which turns the image itself."""
    exif = Image.Exif()
    exif[0x0112] = 6
    found = read_image(image_file("JPEG", exif=exif), PIXELS)
    assert found.size == (16, 12)
    assert ImageOps.exif_transpose(found).size == (12, 16)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_cut_image_is_refused(kind: str) -> None:
    """A file cut in its middle is an error with a sentence, never half an image."""
    data = image_file(kind)
    with pytest.raises(InvalidInput, match=r"send"):
        read_image(data[: len(data) // 2], PIXELS)


def test_a_decompression_bomb_is_refused_by_its_header() -> None:
    """400 megapixels in 50 kilobytes are never decoded."""
    data = png(20_000, 20_000)
    assert len(data) < 100_000
    with pytest.raises(InvalidInput, match=r"pixels.*scale it down"):
        read_image(data, PIXELS)


def test_one_pixel_too_many_is_refused() -> None:
    """The cap is exact."""
    data = png(400, 250)
    assert read_image(data, 100_000).size == (400, 250)
    with pytest.raises(InvalidInput, match=r"400×250 pixels, at most 99999"):
        read_image(data, 99_999)


def test_more_pixels_than_pillow_allows_may_be_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue that takes larger images than Pillow does lifts its ceiling; one of smaller ones doesn't lower it."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000)
    assert read_image(png(50, 40), 2_000).size == (50, 40)
    with pytest.raises(InvalidInput, match="pixels"):
        read_image(png(50, 40), 500)
    assert Image.MAX_IMAGE_PIXELS == 2_000


def test_of_a_long_animation_only_the_first_frame_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GIF of 100 000 frames costs as much as one of one frame."""
    one = image_file("GIF")
    start = one.index(b"\x2c")
    data = one[:-1] + one[start:-1] * 100_000 + b"\x3b"
    seen: list[int] = []
    monkeypatch.setattr(GifImagePlugin.GifImageFile, "seek", lambda _, frame: seen.append(frame))
    assert read_image(data, PIXELS).tobytes() == read_image(one, PIXELS).tobytes()
    assert not seen


@pytest.mark.parametrize(
    "data",
    [
        b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run\n",
        b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n",
        b"P6 1 1 255\n\0\0\0",
        b"8BPS" + bytes(30),
        b"plain text",
    ],
    ids=["svg", "eps", "pdf", "ppm", "psd", "text"],
)
def test_other_formats_are_refused(data: bytes) -> None:
    """What could run a program, or read another file, is no image here; nor is anything else off the list."""
    with pytest.raises(InvalidInput, match="isn't a PNG"):
        read_image(data, PIXELS)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow tells what it skips
@pytest.mark.parametrize(
    ("tag", "kind", "count", "value"),
    [
        (0x0112, 4, 0x3FFFFFFF, 8),
        (0x0112, 2, 4, 0x41424344),
        (0x0111, 4, 1, 0xFFFFFFFF),
        (0x0100, 4, 1, 0),
        (0x0101, 3, 1, 0xFFFF),
        (0x8769, 4, 1, 8),
        (0x9999, 13, 0xFFFF, 0),
        (0x0103, 3, 1, 99),
    ],
)
def test_a_tiff_with_odd_tags_is_an_image_or_refused(tag: int, kind: int, count: int, value: int) -> None:
    """Tags that point nowhere, lie about sizes or have odd types end in a sound image, or in a sentence."""
    tags = {0x100: (4, 1, 4), 0x101: (4, 1, 4), 0x102: (3, 1, 8), 0x103: (3, 1, 1), 0x106: (3, 1, 1)}
    tags |= {0x111: (4, 1, 512), 0x115: (3, 1, 1), 0x116: (4, 1, 4), 0x117: (4, 1, 16), tag: (kind, count, value)}
    entries = b"".join(struct.pack("<HHII", number, *entry) for number, entry in sorted(tags.items()))
    data = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    data = data.ljust(512, b"\0") + bytes(range(16))
    try:
        image = read_image(data, PIXELS)
    except InvalidInput:
        return
    assert ImageOps.exif_transpose(image).convert("RGB").size == image.size


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    """Each scan costs a pass over all pixels, so a small file can't ask for thousands."""
    data = image_file("JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    with pytest.raises(InvalidInput, match="scans"):
        read_image(data[:-2] + scan * images.MAX_JPEG_SCANS + data[-2:], PIXELS)


def test_a_progressive_jpeg_is_taken() -> None:
    """What cameras and editors write has few scans."""
    assert read_image(image_file("JPEG", progressive=True), PIXELS).size == (16, 12)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow tells what it skips
@settings(max_examples=300, deadline=None)
@given(
    head=st.sampled_from(
        [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"BM", b"II*\0", b"MM\0*", b"RIFFxxxxWEBP"]
    ),
    body=st.binary(max_size=300),
)
def test_any_bytes_are_an_image_or_invalid(head: bytes, body: bytes) -> None:
    """Whatever follows a format's first bytes, no other error than InvalidInput comes out."""
    with suppress(InvalidInput):
        assert read_image(head + body, PIXELS).size


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow tells what it skips
@settings(max_examples=300, deadline=None)
@given(data=st.data(), kind=st.sampled_from(FORMATS))
def test_a_damaged_image_is_an_image_or_invalid(data: Any, kind: str) -> None:
    """A byte changed anywhere in a good file gives an image within the cap, or InvalidInput."""
    good = bytearray(image_file(kind))
    position = data.draw(st.integers(0, len(good) - 1))
    good[position] = data.draw(st.integers(0, 255))
    try:
        image = read_image(bytes(good), PIXELS)
    except InvalidInput:
        return
    assert image.width * image.height <= PIXELS
    assert np.asarray(ImageOps.exif_transpose(image).convert("RGB")).shape[2] == pixels().shape[2]
