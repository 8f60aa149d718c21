"""What a queue takes of media, and how a missing library is told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from pipemill.errors import InvalidInput, MissingExtra

#: How many times an image's longer side may be its shorter one: many processors scale the shorter side up to the size
#: that the model wants, and a line of a million pixels would become an image of gigabytes.
MAX_SIDE_RATIO: Final = 200

#: Frames of the largest image that one video may decode to: at 25 megapixels an image, 190 frames in full HD.
IMAGES_PER_VIDEO: Final = 16


class MediaLimits(Protocol):
    """The limits of a queue that concern media; the catalogue's ``LimitSettings`` are such."""

    @property
    def max_media(self) -> int:
        """Images, sounds, videos and arrays in one job."""
        ...

    @property
    def max_media_bytes(self) -> int:
        """Bytes of one of them, as it came."""
        ...

    @property
    def max_pixels(self) -> int:
        """Pixels of one image, or of one frame."""
        ...

    @property
    def max_seconds(self) -> float:
        """Length of one sound or video."""
        ...

    @property
    def max_frames(self) -> int:
        """Frames decoded from one video."""
        ...


def check_sides(width: int, height: int, noun: str) -> None:
    """Refuse what is much longer than wide, or the other way round.

    Raises
    ------
    InvalidInput
        Names the sides, and what to do.

    """
    if max(width, height) > MAX_SIDE_RATIO * max(min(width, height), 1):
        raise InvalidInput(
            f"{noun} of {width}×{height} pixels, one side may be {MAX_SIDE_RATIO} times the other: cut it, or pad it"
        )


@contextmanager
def media_extra(noun: str) -> Iterator[None]:
    """Around the import of a library that decodes; ``noun`` is what can't be decoded without it.

    Raises
    ------
    MissingExtra
        When it isn't installed, or can't be loaded.

    """
    try:
        yield
    except (ImportError, OSError) as error:
        raise MissingExtra(
            f'{noun} can\'t be decoded here: run pip install "pipemill[worker-media]" ({error})'
        ) from error
