"""Videos: opened to be checked, decoded when it is known which frames are wanted."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from pipemill.errors import InvalidInput
from pipemill_worker.media.limits import IMAGES_PER_VIDEO, MediaLimits, check_sides, media_extra

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

#: Frames of a video, [frames, height, width, 3], RGB.
Frames = NDArray[np.uint8]

#: Dimensions of frames, and of their last one.
_FRAME_DIMENSIONS, _COLOURS = 4, 3
#: The first boxes that an MP4 or QuickTime file may begin with.
_MP4_BOXES: Final = frozenset({b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"})
#: Codecs that are decoded: what cameras, browsers and editors write, not FFmpeg's few hundred of old games.
CODECS: Final = frozenset(
    {
        "av1",
        "dvvideo",
        "ffv1",
        "h263",
        "h264",
        "hevc",
        "mjpeg",
        "mpeg1video",
        "mpeg2video",
        "mpeg4",
        "msmpeg4v2",
        "msmpeg4v3",
        "prores",
        "rawvideo",
        "theora",
        "vp8",
        "vp9",
    }
)
#: Pixels that decoders may add around a frame of many, for their own work.
_MARGIN_PIXELS: Final = 1_048_576
#: Microseconds in a second: FFmpeg's unit for a whole file.
_MICROSECONDS: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of a video before it is decoded."""

    #: Frames in all.
    frames: int
    #: Frames a second; None for frames that came as an array.
    fps: float | None
    #: Length in seconds; None where ``fps`` is.
    seconds: float | None
    #: Pixels of a frame.
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Clip:
    """A video of a job's inputs. Thread-safe: each use opens it anew."""

    #: An encoded file, or frames as they came.
    source: bytes | Frames
    limits: MediaLimits
    #: Where among the inputs it stands, for errors.
    where: str

    def take(self, indices: Sequence[int] | NDArray[np.integer[Any]]) -> Frames:
        """The frames with these numbers, counted from 0, in the order given; those beyond the end are left out.

        Raises
        ------
        InvalidInput
            When it is broken, or more would be decoded than the limits allow.

        """
        wanted = [int(index) for index in indices]
        with self._located():
            found = self._decode(max(wanted, default=-1), frozenset(wanted))
            rows = [found[index] for index in wanted if index in found]
            if len({row.shape for row in rows}) > 1:
                raise InvalidInput("the video's frames differ in size: encode it anew")
            return np.stack(rows) if rows else np.empty((0, 0, 0, _COLOURS), np.uint8)

    def frames(self) -> Frames:
        """All its frames.

        Raises
        ------
        InvalidInput
            When it is broken, has none, or has more than the limits allow.

        """
        frames = self.take(range(self.facts().frames))
        if not len(frames):
            raise InvalidInput(f"{self.where}: the video has no frames: send one that has")
        return frames

    def facts(self) -> Facts:
        """What is known of it; its frames are counted, not decoded.

        Raises
        ------
        InvalidInput
            When it is broken.

        """
        if not isinstance(self.source, bytes):
            count, height, width, _ = self.source.shape
            return Facts(frames=count, fps=None, seconds=None, width=width, height=height)
        with self._located(), self._opened(self.source) as (container, stream):
            size = stream.codec_context
            rate = float(stream.average_rate) if stream.average_rate else None
            frames = sum(1 for packet in container.demux(stream) if packet.size and not packet.is_discard)
            seconds = frames / rate if rate else None
            return Facts(frames=frames, fps=rate, seconds=seconds, width=size.width, height=size.height)

    def check(self) -> None:
        """Hold its head against the limits; no frame is decoded.

        Raises
        ------
        InvalidInput
            When it is of another format, broken, or too large.

        """
        if isinstance(self.source, bytes):
            with self._opened(self.source):
                return
        frames, shape = self.source, list(self.source.shape)
        if frames.ndim != _FRAME_DIMENSIONS or frames.shape[-1] != _COLOURS or frames.dtype != np.uint8:
            raise InvalidInput(
                f"frames must be uint8 of the shape [frames, height, width, 3], not {frames.dtype.name} of {shape}"
            )
        if not frames.size:
            raise InvalidInput(f"frames of the shape {shape} hold nothing: send at least one pixel of one")
        self._check_size(frames.shape[2], frames.shape[1])
        self._check_work(len(frames), frames.shape[1] * frames.shape[2])

    def _decode(self, last: int, wanted: frozenset[int]) -> dict[int, Frames]:
        """The frames that are wanted, by number. All before them are decoded too: most hold only what changed."""
        if not isinstance(self.source, bytes):
            return {index: self.source[index] for index in wanted if 0 <= index < len(self.source)}
        if last < 0:
            return {}
        found: dict[int, Frames] = {}
        pixels = 0
        with self._opened(self.source) as (container, stream):
            size = stream.codec_context
            self._check_work(last + 1, size.width * size.height)
            container.seek(0)  # as the pipeline does
            for index, frame in enumerate(container.decode(stream)):
                pixels += frame.width * frame.height
                self._check_size(frame.width, frame.height)
                self._check_pixels(pixels)
                if index in wanted:
                    found[index] = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
                if index >= last:
                    break
        return found

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self.limits.max_pixels:
            raise InvalidInput(
                f"the video has frames of {width}×{height} pixels, at most {self.limits.max_pixels} are taken: "
                "scale it down, or raise limits.max_pixels"
            )
        check_sides(width, height, "the video has frames")

    def _check_work(self, frames: int, pixels: int) -> None:
        """``pixels``: of one frame."""
        if frames > self.limits.max_frames:
            raise InvalidInput(
                f"{frames} frames would be decoded, at most {self.limits.max_frames} are: cut the video, or raise "
                "limits.max_frames"
            )
        self._check_pixels(frames * pixels)

    def _check_pixels(self, pixels: int) -> None:
        most = IMAGES_PER_VIDEO * self.limits.max_pixels
        if pixels > most:
            raise InvalidInput(
                f"more than {most} pixels would be decoded: cut the video, scale it down, or raise limits.max_pixels"
            )

    @contextmanager
    def _located(self) -> Iterator[None]:
        try:
            yield
        except InvalidInput as error:
            raise InvalidInput(f"{self.where}: {error}") from None

    @contextmanager
    def _opened(self, data: bytes) -> Iterator[tuple[InputContainer, VideoStream]]:
        with media_extra("videos"):
            import av  # noqa: PLC0415  # workers without media lack it
        room = str(2 * self.limits.max_pixels + _MARGIN_PIXELS)
        options = {"max_pixels": room, "enable_drefs": "0", "format_whitelist": "mov,matroska,webm,avi"}
        try:
            with av.open(
                io.BytesIO(data), "r", format=_demuxer(data), options=options, io_open=_open_nothing
            ) as container:
                yield container, self._stream(container, room)
        except InvalidInput:
            raise
        except Exception as error:  # noqa: BLE001  # FFmpeg's errors have a dozen Python types
            raise InvalidInput(
                f"the video can't be decoded, it is cut off or broken ({type(error).__name__}): send it anew"
            ) from None

    def _stream(self, container: InputContainer, room: str) -> VideoStream:
        """The first video stream, within the limits as far as its head tells."""
        if not container.streams.video:
            raise InvalidInput("the file has no video stream: send one that has")
        stream = container.streams.video[0]
        context = stream.codec_context
        codec = getattr(context, "codec", None)  # there is none for what FFmpeg itself doesn't know
        if codec is None or codec.canonical_name not in CODECS:
            raise InvalidInput("the video's codec isn't taken: encode it as H.264 or VP9")
        self._check_size(context.width, context.height)
        whole = (container.duration or 0) / _MICROSECONDS
        own = (stream.duration or 0) * (stream.time_base or 0)
        if max(whole, own) > self.limits.max_seconds:
            raise InvalidInput(
                f"the video is longer than {self.limits.max_seconds:g} seconds: cut it, or raise limits.max_seconds"
            )
        context.options = {"max_pixels": room}
        context.thread_count = 1  # the worker counts its threads
        return stream


def _demuxer(data: bytes) -> str:
    """The one demuxer that may read a file, told by its first bytes: none that reads lists of other files."""
    if data[4:8] in _MP4_BOXES:
        return "mov"
    if data[:4] == b"\x1aE\xdf\xa3":
        return "matroska"
    if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        return "avi"
    raise InvalidInput("it isn't an MP4, QuickTime, WebM, Matroska or AVI video: send the bytes of one")


def _open_nothing(url: str, flags: int, options: dict[str, str]) -> Any:  # noqa: ARG001  # PyAV's signature
    raise PermissionError("a video may name no other file")
