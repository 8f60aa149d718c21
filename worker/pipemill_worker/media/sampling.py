"""What the video-classification pipeline does before its model, for a video that isn't a path."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any, Final

import numpy as np

from pipemill.errors import InvalidInput
from pipemill_worker.media.clips import Clip, Frames

#: What a video processor is given in a path's place; it hands it back to be read.
_PLACE: Final = "clip"


def preprocess_video(pipe: Any, clip: Clip, num_frames: int | None = None, frame_sampling_rate: int = 1) -> Any:
    """Return what ``pipe.preprocess`` gives for the same video on disk.

    Raises
    ------
    InvalidInput
        When the video is broken, too large, or has too few frames.

    """
    if num_frames is None:
        num_frames = int(pipe.model.config.num_frames)
    if num_frames > clip.limits.max_frames:
        raise InvalidInput(
            f"{clip.where}: num_frames={num_frames} is more than the {clip.limits.max_frames} frames that are decoded "
            "of one video: ask for fewer, or raise limits.max_frames"
        )
    if pipe.video_processor is not None:
        # A copy, since one processor serves several threads, and each one's reads another clip.
        processor = copy.copy(pipe.video_processor)
        processor.fetch_videos = partial(_fetch, clip)
        options = {"num_frames": num_frames, "do_sample_frames": True}
        return processor(_PLACE, **options, return_tensors="pt").to(pipe.dtype)
    span = num_frames * frame_sampling_rate
    frames = clip.take(np.linspace(0, span - 1, num=num_frames, dtype=np.int64))
    if len(frames) < max(num_frames, 1):
        raise InvalidInput(
            f"{clip.where}: the video has too few frames, num_frames={num_frames} at frame_sampling_rate="
            f"{frame_sampling_rate} reads up to frame {span - 1} and {len(frames)} were found: send a longer one"
        )
    return pipe.image_processor(list(frames), return_tensors="pt").to(pipe.dtype)


def _fetch(clip: Clip, videos: Any, sample_indices_fn: Any = None) -> Any:
    """Stand in for a video processor's ``fetch_videos``, its shapes included: lists for a list."""
    if isinstance(videos, list):
        return list(zip(*(_fetch(clip, video, sample_indices_fn) for video in videos), strict=True))
    return _sample(clip, sample_indices_fn)


def _sample(clip: Clip, sample_indices_fn: Any) -> tuple[Frames, Any]:
    from transformers.video_utils import VideoMetadata  # noqa: PLC0415  # echo workers never load transformers

    facts = clip.facts()
    metadata = VideoMetadata(
        total_num_frames=facts.frames,
        fps=facts.fps,
        width=facts.width,
        height=facts.height,
        duration=facts.seconds,
        video_backend="pyav",
    )
    try:
        indices = sample_indices_fn(metadata=metadata) if sample_indices_fn else list(range(facts.frames))
    except ValueError as error:
        raise InvalidInput(f"{clip.where}: the video's {facts.frames} frames can't be sampled: {error}") from None
    metadata.frames_indices = indices
    frames = clip.take(indices)
    if not len(frames) or len(frames) < len(indices):
        raise InvalidInput(f"{clip.where}: the video ends before its frame {max(indices, default=0)}: send it anew")
    return frames, metadata
