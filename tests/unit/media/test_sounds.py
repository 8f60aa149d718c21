"""Sounds: exact samples at the model's rate, and what hostile files do not do."""

from __future__ import annotations

import io
import struct
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import soundfile  # type: ignore[import-untyped]  # ships no hints
import soxr  # type: ignore[import-untyped]  # ships no hints
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipemill.errors import InvalidInput
from pipemill_worker.media.sounds import BLOCK_FRAMES, read_sound, sound_of
from tests.unit.media.files import RATE, sound_file, wave

SECONDS = 10.0
FILES = [("WAV", "FLOAT"), ("WAV", "PCM_16"), ("FLAC", "PCM_24"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", None)]


@pytest.mark.parametrize(("kind", "subtype"), FILES)
def test_a_file_at_the_models_rate_is_what_soundfile_reads(kind: str, subtype: str | None) -> None:
    """No sample changes on the way from the decoder to the model, over several blocks."""
    data = sound_file(wave(2 * BLOCK_FRAMES + 100), kind=kind, subtype=subtype)
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        expected = file.read(dtype="float32")
    found = read_sound(data, SECONDS, RATE)
    assert found.samples.dtype == np.float32
    assert found.sampling_rate == RATE
    assert np.array_equal(found.samples, expected)


def test_channels_become_their_mean() -> None:
    """Two channels are mixed into one, evenly."""
    left, right = wave(seed=1), wave(seed=2)
    found = read_sound(sound_file(np.stack([left, right], axis=1)), SECONDS, RATE)
    assert np.allclose(found.samples, (left + right) / 2, atol=1e-7)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_another_rate_is_resampled_at_once_or_by_blocks_alike(rate: int) -> None:
    """The result has no seams: it is that of resampling the whole sound in high quality."""
    samples = wave(2 * BLOCK_FRAMES + 100)
    expected = soxr.resample(samples, rate, RATE, "HQ")
    assert np.array_equal(read_sound(sound_file(samples, rate), 60, RATE).samples, expected)
    assert np.array_equal(sound_of(samples, rate, 60, RATE).samples, expected)


def test_without_a_models_rate_the_files_own_is_kept() -> None:
    """A decoder that knows no rate hands on the sound's."""
    found = read_sound(sound_file(wave(100), 22_050), SECONDS, None)
    assert (found.sampling_rate, len(found.samples)) == (22_050, 100)


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (np.array([-32768, 0, 16384], np.int16), [-1, 0, 0.5]),
        (np.array([-128, 64], np.int8), [-1, 0.5]),
        (np.array([0, 128, 192], np.uint8), [-1, 0, 0.5]),
        (np.array([-(2**31), 2**30], np.int32), [-1, 0.5]),
        (np.array([-(2**63), 2**62], np.int64), [-1, 0.5]),
        (np.array([0.25, -2.5], np.float16), [0.25, -2.5]),
        (np.array([0.1], np.float64), [np.float32(0.1)]),
        (np.array([[0.5, 0.25], [0.0, 0.25]], np.float32), [0.25, 0.25]),
    ],
    ids=lambda value: str(getattr(value, "dtype", "")),
)
def test_samples_are_scaled_by_their_type(samples: NDArray[Any], expected: list[float]) -> None:
    """Ints become -1 to 1, floats stay, channels come first and are mixed."""
    assert sound_of(samples, RATE, SECONDS, RATE).samples.tolist() == expected


@pytest.mark.parametrize(
    ("samples", "rate", "says"),
    [
        (np.zeros((2, 3, 4), np.float32), RATE, "shape"),
        (np.zeros((), np.float32), RATE, "shape"),
        (np.zeros((RATE, 2), np.float32), RATE, r"\[channels, frames\]"),
        (np.zeros(4, np.complex64), RATE, "float or int"),
        (np.zeros(4, np.bool_), RATE, "float or int"),
        (np.zeros(0, np.float32), RATE, "no samples"),
        (np.array([np.nan], np.float32), RATE, "no numbers"),
        (np.array([0, np.inf], np.float64), RATE, "infinite"),
        (np.array([1e300], np.float64), RATE, "infinite"),
        (np.zeros(4, np.float32), 0, "samples a second"),
        (np.zeros(4, np.float32), -1, "samples a second"),
        (np.zeros(4, np.float32), 16_000.0, "whole number"),
        (np.zeros(4, np.float32), True, "whole number"),
        (np.zeros(4, np.float32), "16000", "whole number"),
        (np.zeros(RATE * 10 + 1, np.float32), RATE, "longer than 10 seconds"),
    ],
)
def test_samples_that_make_no_sound_are_refused(samples: NDArray[Any], rate: Any, says: str) -> None:
    """Wrong shapes, types, rates and lengths, and what isn't a number, each have a sentence."""
    with pytest.raises(InvalidInput, match=says):
        sound_of(samples, rate, SECONDS, RATE)


def test_a_file_with_numbers_that_are_none_is_refused() -> None:
    """A float WAV file can hold NaN; it doesn't reach the model."""
    with pytest.raises(InvalidInput, match="no numbers"):
        read_sound(sound_file(np.array([0, np.nan, 0], np.float32)), SECONDS, RATE)


def test_an_empty_file_is_refused() -> None:
    """A file of no samples is no sound."""
    with pytest.raises(InvalidInput, match="no samples"):
        read_sound(sound_file(np.zeros(0, np.float32)), SECONDS, RATE)


def test_a_sound_too_long_is_refused_by_its_header() -> None:
    """An hour of silence in a few kilobytes of FLAC isn't decoded."""
    data = sound_file(np.zeros(3_600 * 8_000, np.int16), 8_000, "FLAC", "PCM_16")
    assert len(data) < 1_000_000
    with pytest.raises(InvalidInput, match="longer than 10 seconds"):
        read_sound(data, SECONDS, RATE)


def hide_length(flac: bytes) -> bytes:
    """A FLAC file that doesn't say how long it is, as one written to a pipe."""
    data = bytearray(flac)
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    return bytes(data)


def test_a_flac_of_unknown_length_is_read_to_its_end() -> None:
    """An encoder that wrote to a pipe couldn't know the length."""
    samples = wave(2 * BLOCK_FRAMES)
    data = sound_file(samples, RATE, "FLAC", "PCM_24")
    assert np.array_equal(read_sound(hide_length(data), SECONDS, RATE).samples, read_sound(data, SECONDS, RATE).samples)


def test_a_flac_that_hides_an_hour_is_stopped() -> None:
    """Without a length in the header, the cap holds while decoding."""
    data = sound_file(np.zeros(3_600 * 8_000, np.int16), 8_000, "FLAC", "PCM_16")
    with pytest.raises(InvalidInput, match="longer than 10 seconds"):
        read_sound(hide_length(data), SECONDS, RATE)


@pytest.mark.parametrize("claim", [100, RATE])
def test_a_flac_that_lies_about_its_length_is_cut_short_or_refused(claim: int) -> None:
    """What a header claims is never exceeded in what is decoded."""
    data = bytearray(sound_file(wave(4 * RATE), RATE, "FLAC", "PCM_16"))
    data[22:26] = struct.pack(">I", claim)
    try:
        found = read_sound(bytes(data), 2.0, RATE)
    except InvalidInput:
        return
    assert len(found.samples) <= 2 * RATE


def test_a_wav_that_claims_four_gigabytes_is_what_it_holds() -> None:
    """Encoders that write to a pipe claim the most there is; neither memory nor samples are made up for it."""
    data = bytearray(sound_file(wave(), subtype="PCM_16"))
    start = data.index(b"data") + 4
    data[4:8] = data[start : start + 4] = b"\xff\xff\xff\xff"
    assert len(read_sound(bytes(data), SECONDS, RATE).samples) == RATE


@pytest.mark.parametrize(("kind", "subtype"), [("WAV", "PCM_16"), ("WAV", "FLOAT"), ("FLAC", "PCM_16")])
def test_a_cut_file_is_refused(kind: str, subtype: str) -> None:
    """Half a file isn't answered as if it were all."""
    data = sound_file(wave(3 * RATE), kind=kind, subtype=subtype)
    with pytest.raises(InvalidInput, match="cut off"):
        read_sound(data[: len(data) // 2], SECONDS, RATE)


@pytest.mark.parametrize(("kind", "subtype"), [("MP3", None), ("OGG", "VORBIS"), ("OGG", "OPUS")])
def test_a_cut_stream_is_a_shorter_sound(kind: str, subtype: str | None) -> None:
    """MP3 and Ogg are made to be cut anywhere."""
    data = sound_file(wave(3 * RATE), kind=kind, subtype=subtype)
    assert 0 < len(read_sound(data[: len(data) // 2], SECONDS, RATE).samples) < 3 * RATE


@pytest.mark.parametrize(("rate", "channels"), [(500, 1), (1_000_000, 1), (48_000, 200)])
def test_absurd_rates_and_channels_are_refused(rate: int, channels: int) -> None:
    """What one second may decode to is bounded."""
    data = sound_file(np.zeros((4, channels), np.float32), rate)
    with pytest.raises(InvalidInput, match="samples a second"):
        read_sound(data, SECONDS, RATE)


@pytest.mark.parametrize("kind", ["AIFF", "AU", "CAF", "W64", "VOC"])
def test_other_formats_are_refused(kind: str) -> None:
    """The library reads two dozen formats; four of them are taken."""
    with pytest.raises(InvalidInput, match="isn't a WAV"):
        read_sound(sound_file(wave(100), kind=kind, subtype="PCM_16"), SECONDS, RATE)


@settings(max_examples=300, deadline=None)
@given(
    head=st.sampled_from([b"", b"RIFF\xff\xff\0\0WAVEfmt ", b"fLaC", b"OggS", b"ID3", b"\xff\xfb\x90"]),
    body=st.binary(max_size=300),
)
def test_any_bytes_are_a_sound_or_invalid(head: bytes, body: bytes) -> None:
    """Whatever follows a format's first bytes, no other error than InvalidInput comes out."""
    with suppress(InvalidInput):
        assert len(read_sound(head + body, SECONDS, RATE).samples)


@settings(max_examples=200, deadline=None)
@given(data=st.data(), file=st.sampled_from(FILES))
def test_a_damaged_file_is_a_sound_or_invalid(data: Any, file: tuple[str, str | None]) -> None:
    """Bytes changed anywhere in a good file give a sound within the limits, or InvalidInput."""
    good = bytearray(sound_file(wave(2_000), kind=file[0], subtype=file[1]))
    for _ in range(3):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = read_sound(bytes(good), SECONDS, RATE)
    except InvalidInput:
        return
    assert np.isfinite(found.samples).all()
    assert len(found.samples) <= SECONDS * RATE + RATE
