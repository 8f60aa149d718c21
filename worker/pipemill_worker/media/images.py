"""Images out of bytes: known formats only, sized by their header before a pixel is decoded."""

from __future__ import annotations

import io
import threading
from typing import TYPE_CHECKING, Any, Final

from pipemill.errors import InvalidInput
from pipemill_worker.media.limits import check_sides, media_extra

if TYPE_CHECKING:
    from PIL.Image import Image

#: What is opened. Pillow knows many more, some of which run programs (EPS) or read other files.
FORMATS: Final = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
#: Scans of a progressive JPEG; encoders write about ten, and each one costs a pass over all pixels.
MAX_JPEG_SCANS: Final = 500

_START_OF_SCAN: Final = b"\xff\xda"
#: EXIF's tag that says which way up an image is.
_ORIENTATION: Final = 0x0112
#: The value that leaves it as it is.
_UPRIGHT: Final = 1

_ceiling = threading.Lock()


def read_image(data: bytes, max_pixels: int) -> Image:
    """The image as it came, its first frame if it moves, with all its pixels in memory.

    Raises
    ------
    InvalidInput
        When it is of another format, has too many pixels, or is broken.

    """
    with media_extra("images"):
        from PIL import Image as Pillow  # noqa: PLC0415  # workers without media lack it
        from PIL import UnidentifiedImageError  # noqa: PLC0415  # as above
    _raise_ceiling(Pillow, max_pixels)
    try:
        image = Pillow.open(io.BytesIO(data), formats=FORMATS)
        _check_size(image, max_pixels)
        _check_scans(image, data)
        image.load()
        _check_size(image, max_pixels)
        _check_orientation(image)
    except InvalidInput:
        raise
    except UnidentifiedImageError:
        raise InvalidInput("it isn't a PNG, JPEG, WebP, GIF, BMP or TIFF image: send the bytes of one") from None
    except (Pillow.DecompressionBombError, Pillow.DecompressionBombWarning):
        raise InvalidInput(f"it has more than {max_pixels} pixels: scale it down") from None
    except Exception as error:  # noqa: BLE001  # Pillow's decoders raise whatever broken bytes lead them to
        raise InvalidInput(
            f"the image can't be decoded, it is cut off or broken ({type(error).__name__}): send it anew"
        ) from None
    return image


def _raise_ceiling(pillow: Any, max_pixels: int) -> None:
    """Let Pillow open what the queue takes. Its own ceiling is one for the process, so it only ever goes up."""
    if pillow.MAX_IMAGE_PIXELS is not None and max_pixels > pillow.MAX_IMAGE_PIXELS:
        with _ceiling:
            pillow.MAX_IMAGE_PIXELS = max(pillow.MAX_IMAGE_PIXELS, max_pixels)


def _check_size(image: Image, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise InvalidInput(
            f"the image has {width}×{height} pixels, at most {max_pixels} are taken: scale it down, "
            "or raise limits.max_pixels"
        )
    check_sides(width, height, "the image is one")


def _check_scans(image: Image, data: bytes) -> None:
    if image.format in {"JPEG", "MPO"} and data.count(_START_OF_SCAN) > MAX_JPEG_SCANS:
        raise InvalidInput(f"the JPEG has more than {MAX_JPEG_SCANS} scans: save it anew")


def _check_orientation(image: Image) -> None:
    """Read what a pipeline turns an image by, so that broken notes fail here, with a sentence."""
    exif = image.getexif()
    if exif.get(_ORIENTATION, _UPRIGHT) != _UPRIGHT:
        exif.tobytes()
