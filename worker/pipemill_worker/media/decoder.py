"""A job's inputs with every media form replaced by what it holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from numpy.typing import NDArray

from pipemill.codec import read_array
from pipemill.codec.envelopes import ARRAY, AUDIO, DTYPE, IMAGE, MARKS, SAMPLING_RATE, SHAPE, claimed, mark_of, url_of
from pipemill.errors import InvalidInput, PayloadMissing, SourceUnavailable
from pipemill_worker.media.clips import Clip
from pipemill_worker.media.contents import Fetch, References, read_content
from pipemill_worker.media.images import read_image
from pipemill_worker.media.limits import MediaLimits
from pipemill_worker.media.sounds import Samples, Sound, read_sound, sound_of

if TYPE_CHECKING:
    from PIL.Image import Image

#: Lists and objects within one another; a chat with media has six.
MAX_DEPTH: Final = 32
#: Values in one job's inputs, in all lists and objects together.
MAX_VALUES: Final = 1_000_000
#: Characters of a key that an error repeats.
MAX_KEY_CHARACTERS: Final = 32

_ARRAY_FORM: Final = '{"$array": BYTES, "dtype": "float32", "shape": [2, 3]}'
_FORMS: Final = (
    '{"$image": CONTENT}, {"$audio": CONTENT}, {"$audio": ARRAY, "sampling_rate": 16000}, {"$video": CONTENT}, '
    '{"$video": ARRAY} or ' + _ARRAY_FORM
)

#: Where a value stands: the keys and positions that lead to it.
_Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class _Hole:
    """A place in a copy of the inputs that waits for what its form holds."""

    holder: Any
    key: Any
    form: Mapping[str, Any]
    path: _Path


def _where(path: _Path) -> str:
    """A place as one would write it, the inputs being ``inputs``."""
    return "inputs" + "".join(map(_step, path))


def _step(step: str | int) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    return f".{step}" if step.isidentifier() and step.isascii() and len(step) <= MAX_KEY_CHARACTERS else ".(…)"


@dataclass(slots=True)
class _Walk:
    """One pass over a job's inputs, before anything is decoded."""

    holes: list[_Hole] = field(default_factory=list)
    values: int = 0

    def copy(self, value: Any, path: _Path) -> Any:
        """The value with a hole for each form in it; the value itself if there is none."""
        if len(path) > MAX_DEPTH:
            raise InvalidInput(f"the inputs are nested more than {MAX_DEPTH} deep: flatten them")
        self.values += len(value)
        if self.values > MAX_VALUES:
            raise InvalidInput(f"the inputs hold more than {MAX_VALUES} values: split them over several jobs")
        made: Any = None
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            if not isinstance(child, dict | list):
                continue
            form = child if isinstance(child, dict) and claimed(child) is not None else None
            replaced = self.copy(child, (*path, key)) if form is None else None
            if replaced is child:
                continue
            made = value.copy() if made is None else made
            made[key] = replaced
            if form is not None:
                self.holes.append(_Hole(made, key, form, (*path, key)))
        return value if made is None else made


class MediaDecoder:
    """Decodes the media of a queue's jobs. Thread-safe."""

    def __init__(
        self,
        limits: MediaLimits,
        *,
        sampling_rate: int | None,
        references: References | None,
        urls: Fetch | None,
    ):
        """``sampling_rate``: of sounds, as the model wants them; ``None`` hands them on with their own."""
        self._limits = limits
        self._rate = sampling_rate
        self._references = references
        self._urls = urls

    def decode(self, inputs: Any) -> Any:
        """Return the inputs with what their media forms hold; they themselves aren't changed.

        Images become Pillow's, arrays NumPy's, videos ``Clip``. A sound becomes its samples, float32 of one channel at
        the decoder's rate, or a ``Sound`` where it has none. Without media the inputs come back as they are.

        Raises
        ------
        InvalidInput
            When a form is malformed, refused by the limits, or holds what can't be decoded; says where and why.
        PayloadMissing
            When bytes that were sent by reference are gone.
        SourceUnavailable
            When bytes can't be had for now: by a URL, or at the place of large media.
        MissingExtra
            When a library that decodes isn't installed.

        """
        if not isinstance(inputs, dict | list):
            return inputs
        walk = _Walk()
        # One list around it, so that inputs that are a form themselves have a place as all others do.
        made = walk.copy([inputs], ())
        if len(walk.holes) > self._limits.max_media:
            raise InvalidInput(
                f"the job has {len(walk.holes)} images, sounds, videos and arrays, at most {self._limits.max_media} "
                "are taken: split it, or raise limits.max_media"
            )
        for hole in walk.holes:
            hole.holder[hole.key] = self._fill(hole.form, _where(hole.path[1:]))
        return made[0]

    def _fill(self, form: Mapping[str, Any], where: str) -> Any:
        mark = mark_of(form)
        if mark is None:
            found = " and ".join(mark for mark in MARKS if mark in form)
            raise InvalidInput(f"{where}: an object with {found} must be exactly one of {_FORMS}")
        try:
            return self._read(mark, form, where)
        except (InvalidInput, PayloadMissing, SourceUnavailable) as error:
            raise type(error)(f"{where}: {error}") from None

    def _read(self, mark: str, form: Mapping[str, Any], where: str) -> Image | Samples | Sound | Clip | NDArray[Any]:
        if mark == ARRAY:
            return self._array(form)
        if mark == AUDIO:
            return self._audio(form)
        content = form[mark]
        if mark == IMAGE:
            return read_image(self._bytes(content), self._limits.max_pixels)
        source = self._array(content) if _is_array(content) else self._bytes(content)
        clip = Clip(source=source, limits=self._limits, where=where)
        clip.check()
        return clip

    def _audio(self, form: Mapping[str, Any]) -> Samples | Sound:
        content, longest = form[AUDIO], self._limits.max_seconds
        if _is_array(content) != (SAMPLING_RATE in form):
            raise InvalidInput("samples need their sampling_rate, and a file has its own: give it with samples only")
        if SAMPLING_RATE in form:
            sound = sound_of(self._array(content), form[SAMPLING_RATE], longest, self._rate)
        else:
            sound = read_sound(self._bytes(content), longest, self._rate)
        return sound if self._rate is None else sound.samples

    def _array(self, form: Mapping[str, Any]) -> NDArray[Any]:
        if mark_of(form) != ARRAY:
            raise InvalidInput(f"an array must be exactly {_ARRAY_FORM}")
        content = form[ARRAY]
        if url_of(content) is not None:
            raise InvalidInput("an array's bytes can't be named by URL: send them")
        try:
            return read_array(self._bytes(content) if content else b"", form[DTYPE], form[SHAPE])
        except ValueError as error:
            raise InvalidInput(str(error)) from None

    def _bytes(self, content: Any) -> bytes:
        return read_content(content, self._limits.max_media_bytes, self._references, self._urls)


def _is_array(content: Any) -> bool:
    return isinstance(content, dict) and ARRAY in content
