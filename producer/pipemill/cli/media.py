"""Images, sounds, videos and arrays on the command line: from files, as words, into files."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from pipemill.codec import Array, Audio, Image, Video, write_array, write_image
from pipemill.codec.arrays import is_a
from pipemill.codec.envelopes import ARRAY, DTYPE, SAMPLING_RATE, SHAPE, from_base64, mark_of, reference_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: What the first bytes of a file say it is: its kind, and how its name ends. A dot stands for any byte.
_KINDS: Final = (
    (rb"\x89PNG", "PNG", "png"),
    (rb"\xff\xd8\xff", "JPEG", "jpg"),
    (rb"GIF8", "GIF", "gif"),
    (rb"BM", "BMP", "bmp"),
    (rb"II\*\x00|MM\x00\*", "TIFF", "tiff"),
    (rb"RIFF....WEBP", "WebP", "webp"),
    (rb"RIFF....WAVE", "WAV", "wav"),
    (rb"RIFF....AVI ", "AVI", "avi"),
    (rb"fLaC", "FLAC", "flac"),
    (rb"OggS", "Ogg", "ogg"),
    (rb"ID3|\xff[\xe2-\xff]", "MP3", "mp3"),
    (rb"....ftyp", "MP4", "mp4"),
    (rb"\x1aE\xdf\xa3", "WebM", "webm"),
)
#: Characters of base64 that hold the first bytes of a file: a whole number of groups of four.
_HEAD_CHARACTERS: Final = 24
#: Bytes from which a size is told in kB, and in MB.
_KILO, _MEGA = 1_000, 1_000_000
#: How a WAV file calls samples that are whole numbers, and those that are fractions.
_PCM, _FLOAT = 1, 3
#: By number format, what WAV calls it; other formats aren't in it.
_WAV_FORMATS: Final = {"uint8": _PCM, "int16": _PCM, "int32": _PCM, "float32": _FLOAT, "float64": _FLOAT}
#: Dimensions of samples with channels, and the most channels that a WAV file is written with.
_WITH_CHANNELS, _MAX_CHANNELS = 2, 64
#: Parts of an answer's path that make a file's name, each cut to so many characters.
_PART_CHARACTERS: Final = 40

#: The types of files that a job's inputs can be made of, by option, and what several of them are called beside text.
SOURCES: Final[Mapping[str, tuple[type[Image | Audio | Video], str]]] = {
    "image": (Image, "images"),
    "audio": (Audio, "audio"),
    "video": (Video, "videos"),
}


def media_options(command: Any) -> Any:
    """Add ``--image``, ``--audio`` and ``--video``."""
    for name in reversed(tuple(SOURCES)):
        command = click.option(
            f"--{name}",
            multiple=True,
            metavar="FILE",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help=f"Take {'an' if name != 'video' else 'a'} {name} file as input. Repeatable.",
        )(command)
    return command


def save_option(command: Any) -> Any:
    """Add ``--save``."""
    return click.option(
        "--save",
        metavar="DIR",
        type=click.Path(file_okay=False, path_type=Path),
        help="Write the answer's images, sounds and arrays to files there, and print their names in their place.",
    )(command)


def with_media(inputs: Any, files: Mapping[str, Sequence[Path]]) -> Any:
    """Put files among the inputs of a job; None stands for no other inputs.

    Files of one type alone are the inputs. Text is put beside them as ``{"text": ..., "images": ...}``, and to the
    keys of an object are added ``image``, ``audio`` and ``video``.

    Raises
    ------
    UsageError
        When the inputs are neither text nor an object, or a file is empty.

    """
    given = {name: _one_or_more(name, paths) for name, paths in files.items() if paths}
    if not given:
        return inputs
    if inputs is None and len(given) == 1:
        return next(iter(given.values()))
    if isinstance(inputs, dict):
        return {**inputs, **given}
    if inputs is not None and not isinstance(inputs, str):
        raise click.UsageError("with --image, --audio or --video, --json-input takes an object: they become its keys")
    named = {SOURCES[name][1]: media for name, media in given.items()}
    return named if inputs is None else {"text": inputs, **named}


def _one_or_more(name: str, paths: Sequence[Path]) -> Any:
    try:
        media = [SOURCES[name][0].of(path) for path in paths]
    except (OSError, ValueError) as error:
        raise click.UsageError(f"--{name}: {error}") from error
    return media[0] if len(media) == 1 else media


# As words


def in_words(value: Any) -> Any:
    """Return an answer with words in the place of its media, for people."""
    if isinstance(value, dict):
        words = _words(value)
        return words or {name: in_words(each) for name, each in value.items()}
    return [in_words(each) for each in value] if isinstance(value, list) else value


def _words(form: dict[str, Any]) -> str | None:
    mark = mark_of(form)
    if mark is None:
        return None
    inner = form[mark]
    if isinstance(inner, dict) and mark_of(inner) == ARRAY:
        rate = f", {form[SAMPLING_RATE]} Hz" if SAMPLING_RATE in form else ""
        return f"<{mark[1:]} {inner[DTYPE]} {inner[SHAPE]}{rate}>"
    kind = f" {form[DTYPE]} {form[SHAPE]}" if mark == ARRAY else ""
    if reference_of(inner) is not None:
        return f"<{mark[1:]}{kind}, kept elsewhere>"
    head = from_base64(inner[:_HEAD_CHARACTERS]) if isinstance(inner, str) else None
    if head is None:
        return None
    if mark != ARRAY and (known := _kind(head)):
        kind = f" {known[0]}"
    return f"<{mark[1:]}{kind}, {_size(len(inner) * 3 // 4 - inner[-2:].count('='))}>"


def _kind(head: bytes) -> tuple[str, str] | None:
    """What a file's first bytes say it is, and how its name ends."""
    return next(((kind, end) for start, kind, end in _KINDS if re.match(start, head, re.DOTALL)), None)


def _size(count: int) -> str:
    if count < _KILO:
        return f"{count} bytes"
    return f"{count / _KILO:.0f} kB" if count < _MEGA else f"{count / _MEGA:.1f} MB"


# Into files


def saved(answer: Any, folder: Path) -> Any:
    """Write an answer's media to files in a folder; return the answer with their names in the place of each.

    Raises
    ------
    UsageError
        When a file is there already, or can't be written.

    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _saved(answer, folder, ("answer",), set())
    except FileExistsError as error:
        raise click.UsageError(f"{error.filename} is there already: name another folder with --save") from error
    except OSError as error:
        raise click.UsageError(f"{error.filename or folder} can't be written ({error.strerror})") from error


def _saved(value: Any, folder: Path, path: tuple[str, ...], written: set[Path]) -> Any:
    if isinstance(value, dict):
        rate = value.get(SAMPLING_RATE)
        return {
            name: _saved(
                Audio(Array.of(each), rate) if _is_sound(each, rate) else each, folder, (*path, str(name)), written
            )
            for name, each in value.items()
        }
    if isinstance(value, list):
        return [_saved(each, folder, (*path, str(index)), written) for index, each in enumerate(value)]
    made = _file_of(value)
    if made is None:
        return value
    data, end = made
    stem = ".".join(re.sub(r"[^A-Za-z0-9_]+", "-", part)[:_PART_CHARACTERS] for part in path)
    # Two names of an answer may read the same once they are cut.
    names = (f"{stem}{f'.{number}' if number else ''}.{end}" for number in count())
    target = next(each for name in names if (each := folder / name) not in written)
    written.add(target)
    with target.open("xb") as file:
        file.write(data)
    return str(target)


def _is_sound(value: Any, rate: Any) -> bool:
    return type(rate) is int and rate > 0 and is_a(value, "numpy", "ndarray")


def _file_of(value: Any) -> tuple[bytes, str] | None:
    """The bytes of an object's file and how its name ends; None for what is no media."""
    if is_a(value, "PIL.Image", "Image"):
        return _named(write_image(value))
    if is_a(value, "numpy", "ndarray"):
        return _npy(value), "npy"
    if isinstance(value, Audio) and isinstance(value.data, Array):
        return wav(value.data, value.sampling_rate or 0) or (_npy(value.data.numpy()), "npy")
    if isinstance(value, Video) and isinstance(value.data, Array):
        return _npy(value.data.numpy()), "npy"
    return _named(value.data) if isinstance(value, Image | Audio | Video) and isinstance(value.data, bytes) else None


def _named(data: bytes) -> tuple[bytes, str]:
    known = _kind(data)
    return data, known[1] if known else "bin"


def _npy(array: NDArray[Any]) -> bytes:
    import io  # noqa: PLC0415  # few answers have arrays

    import numpy as np  # noqa: PLC0415  # an array is at hand, so NumPy is

    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def wav(samples: Array, rate: int) -> tuple[bytes, str] | None:
    """Write samples as a WAV file without loss; None when WAV has no such format."""
    array = samples.numpy()
    array = array.astype("float32") if samples.dtype == "float16" else array
    how = _WAV_FORMATS.get(array.dtype.name)
    channels = array.shape[0] if array.ndim == _WITH_CHANNELS else 1
    if how is None or array.ndim not in {1, _WITH_CHANNELS} or not 1 <= channels <= _MAX_CHANNELS:
        return None
    data, _, _ = write_array(array.T if array.ndim == _WITH_CHANNELS else array)
    frame = channels * array.itemsize
    head = struct.pack("<4sIHHIIHH", b"fmt ", 16, how, channels, rate, rate * frame, frame, array.itemsize * 8)
    body = b"WAVE" + head + struct.pack("<4sI", b"data", len(data)) + data + b"\x00" * (len(data) % 2)
    return struct.pack("<4sI", b"RIFF", len(body)) + body, "wav"
