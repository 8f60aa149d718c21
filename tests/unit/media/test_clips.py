"""Videos: which frames come out, and what hostile files do not do."""

from __future__ import annotations

import io
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipemill.errors import InvalidInput
from pipemill_worker.media import Clip, clips
from tests.unit.media.files import Limits, pixels, video_file

KINDS = [
    ("mp4", "mpeg4"),
    ("mov", "mpeg4"),
    ("matroska", "mpeg4"),
    ("webm", "libvpx"),
    ("avi", "mpeg4"),
    ("avi", "mjpeg"),
]


def clip(source: Any, limits: Limits | None = None) -> Clip:
    """A clip that has passed its check."""
    made = Clip(source=source, limits=limits or Limits(), where="inputs")
    made.check()
    return made


def all_frames(data: bytes) -> Any:
    """Each frame as PyAV gives it."""
    with av.open(io.BytesIO(data), "r") as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.mark.parametrize(("kind", "codec"), KINDS)
def test_frames_are_those_of_the_file(kind: str, codec: str) -> None:
    """Every format gives the frames that PyAV gives when it may open the file as it likes."""
    data = video_file(kind=kind, codec=codec)
    expected = all_frames(data)
    assert np.array_equal(clip(data).frames(), expected)
    assert np.array_equal(clip(data).take([7, 2, 2]), expected[[7, 2, 2]])


@pytest.mark.parametrize(("kind", "codec"), KINDS)
def test_facts_are_known_without_decoding(kind: str, codec: str) -> None:
    """Frames are counted where the header doesn't tell their number."""
    facts = clip(video_file(kind=kind, codec=codec)).facts()
    assert (facts.frames, facts.width, facts.height) == (20, 64, 48)
    assert facts.fps == pytest.approx(10)
    assert facts.seconds == pytest.approx(2)


def test_frames_that_came_as_an_array_are_used_as_they_are() -> None:
    """An array of frames is a video that was decoded before."""
    frames = np.stack([pixels(seed=seed) for seed in range(5)])
    given = clip(frames)
    assert np.array_equal(given.frames(), frames)
    assert np.array_equal(given.take([0, 3, 9]), frames[[0, 3]])
    assert (given.facts().frames, given.facts().fps) == (5, None)


def test_only_the_frames_needed_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoding stops at the last frame that is wanted."""
    data = video_file(frames=60)
    work: list[int] = []

    def note(_: Clip, amount: int) -> None:
        work.append(amount)

    monkeypatch.setattr(Clip, "_check_pixels", note)
    clip(data).take([0, 4])
    assert len(work) == 1 + 5  # the plan, and five frames
    assert work[-1] == 5 * 64 * 48


def test_frames_beyond_the_end_are_left_out() -> None:
    """Who asks for more than there is sees how much there is."""
    assert len(clip(video_file(frames=5)).take(range(8))) == 5


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        (Limits(max_pixels=64 * 48 - 1), "64×48 pixels"),
        (Limits(max_seconds=1.9), "longer than 1.9 seconds"),
    ],
)
@pytest.mark.parametrize(("kind", "codec"), KINDS)
def test_a_large_or_long_video_is_refused_by_its_header(limits: Limits, says: str, kind: str, codec: str) -> None:
    """Frames too large and videos too long are told before a frame is decoded."""
    with pytest.raises(InvalidInput, match=says):
        clip(video_file(kind=kind, codec=codec), limits)


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        (Limits(max_frames=19), "20 frames would be decoded, at most 19"),
        (Limits(max_pixels=64 * 48), "more than 49152 pixels would be decoded"),
    ],
)
def test_the_work_of_one_video_is_bounded(limits: Limits, says: str) -> None:
    """Neither a file nor an array has more frames, or pixels in them, than the limits allow."""
    with pytest.raises(InvalidInput, match=f"inputs: {says}"):
        clip(video_file(), limits).frames()
    with pytest.raises(InvalidInput, match=says):
        clip(np.zeros((20, 48, 64, 3), np.uint8), limits)


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((4, 4, 3), np.uint8),
        np.zeros((2, 3, 4, 4), np.uint8),
        np.zeros((2, 4, 4, 3), np.float32),
        np.zeros((0, 4, 4, 3), np.uint8),
        np.zeros((2, 0, 4, 3), np.uint8),
        np.zeros((2, 400, 400, 3), np.uint8),
    ],
    ids=lambda frames: f"{frames.dtype}{frames.shape}",
)
def test_arrays_that_are_no_frames_are_refused(frames: Any) -> None:
    """Wrong shapes, types and sizes each have a sentence."""
    with pytest.raises(InvalidInput, match=r"frames"):
        clip(frames)


@pytest.mark.parametrize(
    "data",
    [
        b"#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:1,\nfile:///etc/passwd\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"/>',
        b"v=0\r\nc=IN IP4 127.0.0.1\r\nm=video 5000 RTP/AVP 96\r\n",
        b"GIF89a" + bytes(40),
        b"FLV\x01\x05\0\0\0\x09",
        b"\x47" + bytes(187),
        b"RIFF\x24\0\0\0WAVEfmt ",
    ],
    ids=["hls", "concat", "dash", "sdp", "gif", "flv", "ts", "wav"],
)
def test_playlists_and_other_formats_are_refused(data: bytes) -> None:
    """Nothing that could name another file is opened, nor any format off the list."""
    with pytest.raises(InvalidInput, match="isn't an MP4"):
        clip(data)


def box(kind: bytes, data: bytes) -> bytes:
    """A box of an MP4 file."""
    return struct.pack(">I", 8 + len(data)) + kind + data


def mp4_of_another_file(name: bytes) -> bytes:
    """An MP4 file whose samples are said to lie in another one, in a Macintosh alias; its own are zeros."""
    data = video_file()
    path = b"/x/" + name + b"\0" * ((len(name) + 3) % 2)
    alias = bytes(10) + b"\x01" + b"v".ljust(27, b"\0") + bytes(13) + name.ljust(63, b"\0") + bytes(16)
    alias += struct.pack(">HH", 1, 1) + bytes(16) + struct.pack(">HH", 2, len(path)) + path + b"\xff\xff\0\0"
    own = box(b"dref", struct.pack(">II", 0, 1) + box(b"url ", struct.pack(">I", 1)))
    other = box(b"dref", struct.pack(">II", 0, 1) + box(b"alis", bytes(4) + alias))
    data = data.replace(own, other)
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
        start = data.index(kind) - 4
        size = int.from_bytes(data[start : start + 4], "big") + len(other) - len(own)
        data = data[:start] + struct.pack(">I", size) + data[start + 4 :]
    start = data.index(b"mdat")
    size = int.from_bytes(data[start - 4 : start], "big") - 8
    return data[: start + 4] + bytes(size) + data[start + 4 + size :]


def test_an_mp4_that_names_another_file_opens_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg can follow such a name, and shows the other file's frames; here it leads nowhere."""
    (tmp_path / "secret.mp4").write_bytes(video_file())
    monkeypatch.chdir(tmp_path)
    data = mp4_of_another_file(b"secret.mp4")
    with av.open(io.BytesIO(data), "r", options={"enable_drefs": "1"}) as followed:
        assert len(list(followed.decode(video=0))) == 20
    with pytest.raises(InvalidInput, match="has no frames"):
        clip(data).frames()


@pytest.mark.parametrize(("kind", "codec"), KINDS)
def test_a_cut_video_is_refused_or_shorter(kind: str, codec: str) -> None:
    """Half a file is broken, or has fewer frames; it never has others."""
    data = video_file(kind=kind, codec=codec)
    try:
        frames = clip(data[: len(data) // 2]).frames()
    except InvalidInput:
        return
    assert len(frames) < 20
    assert np.array_equal(frames[:-1], all_frames(data)[: len(frames) - 1])


def test_a_file_without_a_video_in_it_is_refused() -> None:
    """A container may hold sound only."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        stream: Any = container.add_stream("pcm_s16le", rate=16_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1_600), np.int16), format="s16", layout="mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(InvalidInput, match="no video stream"):
        clip(buffer.getvalue())


def test_codecs_off_the_list_are_refused() -> None:
    """FFmpeg's decoders of the rare formats are the least tested: they aren't reached."""
    with pytest.raises(InvalidInput, match="codec isn't taken"):
        clip(video_file(kind="avi", codec="flv"))


def test_every_codec_that_is_taken_is_one() -> None:
    """The list names FFmpeg's codecs as FFmpeg does."""
    assert {av.codec.Codec(name, "r").canonical_name for name in clips.CODECS} == clips.CODECS


@settings(max_examples=300, deadline=None)
@given(
    head=st.sampled_from([b"", b"\0\0\0\x18ftypisom", b"\0\0\0\x08moov", b"\x1aE\xdf\xa3", b"RIFF\xff\0\0\0AVI LIST"]),
    body=st.binary(max_size=300),
)
def test_any_bytes_are_a_video_or_invalid(head: bytes, body: bytes) -> None:
    """Whatever follows a format's first bytes, no other error than InvalidInput comes out."""
    with suppress(InvalidInput):
        assert len(clip(head + body).frames())


@settings(max_examples=200, deadline=None)
@given(data=st.data(), file=st.sampled_from(KINDS))
def test_a_damaged_video_is_a_video_or_invalid(data: Any, file: tuple[str, str]) -> None:
    """Bytes changed anywhere in a good file give frames within the limits, or InvalidInput."""
    good = bytearray(video_file(4, *file, size=(32, 32)))
    for _ in range(3):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    try:
        frames = clip(bytes(good)).frames()
    except InvalidInput:
        return
    assert frames[0].size <= 3 * Limits().max_pixels
    assert len(frames) <= Limits().max_frames
