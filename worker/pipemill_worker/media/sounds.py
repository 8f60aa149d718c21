"""Sounds as float32 samples of one channel, at the rate that a model wants."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from pipemill.errors import InvalidInput
from pipemill_worker.media.limits import media_extra

if TYPE_CHECKING:
    from soundfile import SoundFile  # type: ignore[import-untyped]  # ships no hints

Samples = NDArray[np.float32]

#: What is opened, in libsndfile's words. It knows two dozen more, which nobody sends.
FORMATS: Final = frozenset({"WAV", "WAVEX", "FLAC", "OGG", "MP3"})
#: Samples a second at the least; speech on the telephone has 8000.
MIN_RATE: Final = 1_000
#: Samples a second of all channels together: sixteen at 48 kHz, four at 192 kHz.
MAX_SAMPLES_PER_SECOND: Final = 768_000
#: Frames decoded at a time, so that channels and high rates cost no memory: 3 MB at the most channels one meets.
BLOCK_FRAMES: Final = 65_536
#: Length that a WAV file claims, in bytes, when it was written to a pipe: its writer didn't know.
UNKNOWN_WAV_BYTES: Final = 0x7FFF_0000
#: Frames that libsndfile names, at the least, when the file doesn't say.
_UNKNOWN_FRAMES: Final = 2**62
#: Dimensions of samples with channels.
_WITH_CHANNELS: Final = 2


@dataclass(frozen=True, slots=True, eq=False)
class Sound:
    """A sound, decoded."""

    #: One channel, [frames], mostly within -1 to 1.
    samples: Samples
    #: Samples a second.
    sampling_rate: int


def read_sound(data: bytes, max_seconds: float, rate: int | None) -> Sound:
    """Decode a sound file: all channels' mean, at ``rate``; ``None`` keeps the file's own.

    Raises
    ------
    InvalidInput
        When it is of another format, too long, empty, cut off or broken, or has samples that are no numbers.

    """
    with media_extra("sounds"):
        import soundfile  # noqa: PLC0415  # workers without media lack it
    if not _is_known(data):
        raise InvalidInput("it isn't a WAV, FLAC, Ogg or MP3 sound: send the bytes of one")
    if _is_cut_wav(data):
        raise InvalidInput("the WAV file is cut off, it has fewer bytes than it says: send it anew")
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            file.seekable = _never  # soundfile seeks after each read otherwise: inexact in MP3
            _check_header(file, max_seconds)
            samples = resample(_blocks(file, max_seconds), file.samplerate, rate)
            return _checked(samples, rate or file.samplerate)
    except (soundfile.SoundFileError, RuntimeError, ValueError, TypeError, OSError) as error:
        raise InvalidInput(
            f"the sound can't be decoded, it is cut off or broken ({type(error).__name__}): send it anew"
        ) from None


def sound_of(samples: NDArray[Any], sampling_rate: Any, max_seconds: float, rate: int | None) -> Sound:
    """Take samples, [frames] or [channels, frames], float or int (scaled to -1 to 1), to ``rate``.

    Raises
    ------
    InvalidInput
        When they have another shape or type, or what ``read_sound`` refuses.

    """
    if type(sampling_rate) is not int:
        raise InvalidInput("sampling_rate must be a whole number: the samples a second")
    if samples.ndim not in {1, _WITH_CHANNELS}:
        raise InvalidInput(f"samples must have the shape [frames] or [channels, frames], not {list(samples.shape)}")
    channels = np.atleast_2d(samples)
    _check_rate(sampling_rate, len(channels), " (an array's shape is [channels, frames])")
    _check_length(channels.shape[1], sampling_rate, max_seconds)
    blocks = (
        _mean(_scale(channels[:, start : start + BLOCK_FRAMES]).T)
        for start in range(0, channels.shape[1], BLOCK_FRAMES)
    )
    return _checked(resample(blocks, sampling_rate, rate), rate or sampling_rate)


def resample(blocks: Iterable[Samples], rate: int, wanted: int | None) -> Samples:
    """Join a sound's blocks, at the rate that is wanted; at their own rate they stay bit for bit what they are."""
    if wanted is None or wanted == rate:
        return np.concatenate([np.empty(0, np.float32), *blocks])
    with media_extra("sounds"):
        import soxr  # type: ignore[import-untyped]  # noqa: PLC0415  # ships no hints; workers without media lack it
    stream = soxr.ResampleStream(rate, wanted, 1, dtype="float32", quality="HQ")
    parts = [stream.resample_chunk(block) for block in blocks]
    return np.concatenate([*parts, stream.resample_chunk(np.empty(0, np.float32), last=True)])


def _is_known(data: bytes) -> bool:
    if data[:4] == b"RIFF":
        return data[8:12] == b"WAVE"
    # An MP3 frame begins with eleven bits that are set.
    return data[:4] in {b"fLaC", b"OggS"} or data[:3] == b"ID3" or (data[:1] == b"\xff" and data[1:2] >= b"\xe0")


def _is_cut_wav(data: bytes) -> bool:
    """Whether a WAV file's samples end before they should; libsndfile takes what is there without a word."""
    if data[:4] != b"RIFF":
        return False
    start = 12
    while start + 8 <= len(data):
        size = int.from_bytes(data[start + 4 : start + 8], "little")
        if data[start : start + 4] == b"data":
            return start + 8 + size > len(data) and size < UNKNOWN_WAV_BYTES
        start += 8 + size + size % 2
    return True


def _check_header(file: SoundFile, max_seconds: float) -> None:
    if file.format not in FORMATS:
        raise InvalidInput("it isn't a WAV, FLAC, Ogg or MP3 sound: send the bytes of one")
    _check_rate(file.samplerate, file.channels)
    if file.frames < _UNKNOWN_FRAMES:
        _check_length(file.frames, file.samplerate, max_seconds)


def _never() -> bool:
    return False


def _check_rate(rate: int, channels: int, more: str = "") -> None:
    if rate < MIN_RATE or rate * channels > MAX_SAMPLES_PER_SECOND:
        raise InvalidInput(
            f"the sound has {channels} channels at {rate} samples a second, from {MIN_RATE} to "
            f"{MAX_SAMPLES_PER_SECOND} in all are taken: resample it, or mix it down{more}"
        )


def _check_length(frames: int, rate: int, max_seconds: float) -> None:
    if frames > max_seconds * rate:
        raise InvalidInput(
            f"the sound is longer than {max_seconds:g} seconds: cut it into several jobs, or raise limits.max_seconds"
        )


def _blocks(file: SoundFile, max_seconds: float) -> Iterator[Samples]:
    frames = 0
    while len(block := file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
        frames += len(block)
        _check_length(frames, file.samplerate, max_seconds)
        yield _mean(block)
    # Ogg and MP3 are made to be cut anywhere: what is there is a shorter sound.
    if frames < file.frames < _UNKNOWN_FRAMES and file.format not in {"OGG", "MP3"}:
        raise InvalidInput("the sound is cut off, it has fewer samples than it says: send it anew")


def _mean(block: NDArray[np.float32]) -> Samples:
    """The mean of the channels of [frames, channels]; one channel stays bit for bit what it is."""
    if block.shape[1] == 1:
        return np.ascontiguousarray(block[:, 0])
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is found in the end
        return np.asarray(block.mean(axis=1), np.float32)


def _scale(samples: NDArray[Any]) -> NDArray[np.float32]:
    """Samples as float32; of ints, the lowest is -1."""
    if samples.dtype.kind == "f":
        with np.errstate(over="ignore"):  # what overflows is found in the end
            return samples.astype(np.float32, copy=False)
    if samples.dtype.kind not in "iu":
        raise InvalidInput(f"samples must be float or int, not {samples.dtype.name}: convert them")
    half = float(2 ** (8 * samples.dtype.itemsize - 1))
    wide = samples.astype(np.float64)
    return ((wide - half if samples.dtype.kind == "u" else wide) / half).astype(np.float32)


def _checked(samples: Samples, rate: int) -> Sound:
    if not len(samples):
        raise InvalidInput("the sound has no samples: send one that lasts")
    if not np.isfinite(samples).all():
        raise InvalidInput("the sound has samples that are infinite or no numbers: repair it")
    return Sound(samples, rate)
