"""Pillow's images as files without loss, and back."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Final

from pipemill.codec.arrays import MEND
from pipemill.errors import MediaUnreadable, MissingExtra

if TYPE_CHECKING:
    import PIL.Image

#: Modes that PNG holds exactly.
PNG_MODES: Final = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})
#: Modes that PNG lacks or cuts, and TIFF holds exactly.
TIFF_MODES: Final = frozenset({"I", "F", "CMYK", "PA", "YCbCr"})
#: First bytes of the files that answers are made of.
SIGNATURES: Final = (b"\x89PNG\r\n\x1a\n", b"II*\x00", b"MM\x00*")
#: EXIF's tag that says which way up an image is; pipelines turn images by it.
_ORIENTATION: Final = 0x0112
#: What Pillow notes of a TIFF file itself, which no image had before it was written.
_TIFF_NOTES: Final = ("compression", "dpi", "resolution")


def write_image(image: PIL.Image.Image) -> bytes:
    """Write an image as PNG, or as TIFF if PNG can't hold it exactly.

    Raises
    ------
    TypeError
        When it has no pixels, a mode that neither holds, or a file that can't be read.

    """
    if 0 in image.size:
        raise TypeError(f"an image of {image.width}×{image.height} pixels can't be sent: it has none")
    try:
        image.load()  # Pillow reads a file when its pixels are wanted
    except (OSError, ValueError, SyntaxError) as error:
        raise TypeError(f"an image's file can't be read ({error}): give one that is whole") from error
    if image.mode in PNG_MODES:
        return _write_png(image)
    if image.mode not in TIFF_MODES:
        raise TypeError(f"an image of mode {image.mode} can't be sent: convert it with .convert('RGB')")
    import PIL.ImageOps  # noqa: PLC0415  # only who has images has Pillow

    buffer = io.BytesIO()
    PIL.ImageOps.exif_transpose(image).save(buffer, "TIFF", compression="raw")
    return buffer.getvalue()


def _write_png(image: PIL.Image.Image) -> bytes:
    options: dict[str, Any] = {}
    orientation = image.getexif().get(_ORIENTATION, 1)
    if orientation != 1:
        exif = type(image.getexif())()
        exif[_ORIENTATION] = orientation
        options["exif"] = exif
    whole = _with_whole_palette(image) if image.mode == "P" else image
    buffer = io.BytesIO()
    whole.save(buffer, "PNG", compress_level=1, **options)
    return buffer.getvalue()


def _with_whole_palette(image: PIL.Image.Image) -> PIL.Image.Image:
    """Give black to indexes beyond the palette, as they show: Pillow writes no more bits than it has colours."""
    extremes: Any = image.getextrema()
    palette: Any = image.palette
    mode, black = ("RGBA", [0, 0, 0, 255]) if palette and palette.mode == "RGBA" else ("RGB", [0, 0, 0])
    colours = image.getpalette(mode) or []
    missing = extremes[1] + 1 - len(colours) // len(black)
    if missing <= 0:
        return image
    whole = image.copy()
    whole.putpalette(colours + black * missing, mode)
    return whole


def is_answer_image(data: bytes) -> bool:
    """Whether bytes are a file of the kinds that answers are made of."""
    return data.startswith(SIGNATURES)


def read_image(data: bytes) -> PIL.Image.Image:
    """Read an image of an answer, pixels and all; Pillow's own limit of pixels holds.

    Raises
    ------
    MediaUnreadable
        When it is broken or too large.
    MissingExtra
        When Pillow isn't installed.

    """
    try:
        import PIL.Image  # noqa: PLC0415  # only who has images needs it
    except ImportError as error:
        raise MissingExtra(
            f"an image needs Pillow, which isn't installed: {MEND}, or make the client with decode=False for plain JSON"
        ) from error
    try:
        with PIL.Image.open(io.BytesIO(data), formats=("PNG", "TIFF")) as opened:
            image = opened.copy()  # a plain image, which knows no file
    except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError) as error:
        why = "its beginning is broken" if isinstance(error, PIL.UnidentifiedImageError) else error
        text = f"the answer's image can't be read ({why}): make the client with decode=False to get it as it came"
        raise MediaUnreadable(text) from error
    if opened.format == "TIFF":
        for note in _TIFF_NOTES:
            image.info.pop(note, None)
    return image
