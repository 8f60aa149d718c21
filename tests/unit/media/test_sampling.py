"""Video classification: what reaches the model is what the pipeline itself reads from the file on disk."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    VideoClassificationPipeline,
    VideoMAEConfig,
    VideoMAEForVideoClassification,
    VideoMAEImageProcessorPil,
)

from pipemill.errors import InvalidInput
from pipemill_worker.media import Clip, preprocess_video
from tests.unit.media.files import Limits, video_file

#: Smaller than any video model that one meets.
SIZES: dict[str, Any] = {
    "image_size": 32,
    "patch_size": 16,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}


def pipeline_of(model: Any) -> Any:
    """A pipeline with an image processor, which is what VideoMAE comes with."""
    processor = VideoMAEImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    pipeline: Any = VideoClassificationPipeline
    return pipeline(model=model.eval(), image_processor=processor, device="cpu")


@pytest.fixture(scope="module")
def pipe() -> Any:
    """A tiny VideoMAE that takes eight frames."""
    config = VideoMAEConfig(**SIZES, num_frames=8, tubelet_size=2, decoder_hidden_size=16, decoder_num_hidden_layers=1)
    torch.manual_seed(0)
    return pipeline_of(VideoMAEForVideoClassification(config))


def clip(source: Any, **limits: Any) -> Clip:
    """A clip within limits."""
    return Clip(source=source, limits=Limits(**limits), where="inputs[3]")


@pytest.mark.parametrize(("kind", "codec"), [("mp4", "mpeg4"), ("webm", "libvpx"), ("avi", "mjpeg")])
@pytest.mark.parametrize(
    "options", [{}, {"frame_sampling_rate": 2}, {"num_frames": 3, "frame_sampling_rate": 4}, {"num_frames": 1}]
)
def test_the_model_gets_what_the_pipeline_reads(
    pipe: Any, tmp_path: Path, kind: str, codec: str, options: dict[str, int]
) -> None:
    """Tensors are equal bit for bit, whatever frames are asked for."""
    path = tmp_path / f"video.{kind}"
    path.write_bytes(video_file(kind=kind, codec=codec))
    expected = pipe.preprocess(str(path), **options)
    found = preprocess_video(pipe, clip(path.read_bytes()), **options)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_the_answer_is_the_direct_calls(pipe: Any, tmp_path: Path) -> None:
    """The stages with a clip give what one call with a path gives."""
    path = tmp_path / "video.mp4"
    path.write_bytes(video_file())
    found = pipe.postprocess(pipe.forward(preprocess_video(pipe, clip(path.read_bytes()))))
    assert found == pipe(str(path))


def test_frames_as_an_array_are_sampled_like_a_file(pipe: Any) -> None:
    """An array of a video's frames gives what the video gives."""
    video = clip(video_file())
    expected = preprocess_video(pipe, video, frame_sampling_rate=2)
    found = preprocess_video(pipe, clip(video.frames()), frame_sampling_rate=2)
    assert torch.equal(found["pixel_values"], expected["pixel_values"])


def test_too_few_frames_are_an_error_with_a_sentence(pipe: Any) -> None:
    """A model of eight frames can't run on five; upstream fails deep inside it."""
    with pytest.raises(InvalidInput, match=r"inputs\[3\]: the video has too few frames, num_frames=8 .* 5 were found"):
        preprocess_video(pipe, clip(video_file(frames=5)))


@pytest.mark.parametrize(
    ("limits", "options", "says"),
    [
        ({"max_frames": 15}, {"frame_sampling_rate": 2}, "16 frames would be decoded"),
        ({}, {"num_frames": 10**12}, "more than the 64 frames"),
        ({"max_pixels": 64 * 48}, {"num_frames": 17}, "pixels would be decoded"),
    ],
)
def test_what_is_asked_for_stays_within_the_limits(pipe: Any, limits: Any, options: Any, says: str) -> None:
    """A parameter can't make the worker decode more than the queue allows."""
    with pytest.raises(InvalidInput, match=says):
        preprocess_video(pipe, clip(video_file(frames=60), **limits), **options)


class Tensors(dict[str, Any]):
    """What a processor returns, as far as it is used."""

    def to(self, dtype: Any) -> dict[str, Any]:
        return {key: torch.from_numpy(value).to(dtype) for key, value in self.items()}


class Processor:
    """A video processor as upstream's behave: samples evenly, and has its videos read by ``fetch_videos``."""

    nested = True

    def fetch_videos(self, videos: Any, sample_indices_fn: Any = None) -> Any:
        raise AssertionError(f"{videos} would be opened, and sampled by {sample_indices_fn}")

    def sample(self, metadata: Any, num_frames: int) -> Any:
        if num_frames > metadata.total_num_frames:
            raise ValueError(f"num_frames={num_frames} exceeds {metadata.total_num_frames}")
        return np.arange(num_frames) * metadata.total_num_frames // num_frames

    def __call__(self, video: str, *, num_frames: int, do_sample_frames: bool, return_tensors: str) -> Tensors:
        assert (do_sample_frames, return_tensors) == (True, "pt")

        def sample(metadata: Any) -> Any:
            return self.sample(metadata, num_frames)

        if self.nested:
            (frames,), (metadata,) = self.fetch_videos([video], sample_indices_fn=sample)
        else:
            frames, metadata = self.fetch_videos(video, sample_indices_fn=sample)
        assert metadata.frames_indices is not None
        return Tensors(pixel_values_videos=frames.astype(np.float32))


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("as_array", [True, False])
def test_a_video_processor_samples_for_itself(monkeypatch: pytest.MonkeyPatch, *, nested: bool, as_array: bool) -> None:
    """A processor of its own chooses the frames, and gets just these, of a file of 20 or of an array."""
    monkeypatch.setattr(Processor, "nested", nested)
    video = clip(video_file())
    own = Processor()
    pipe = SimpleNamespace(
        video_processor=own, dtype=torch.float32, model=SimpleNamespace(config=SimpleNamespace(num_frames=4))
    )
    found = preprocess_video(pipe, clip(video.frames()) if as_array else video)
    assert np.array_equal(found["pixel_values_videos"], video.frames()[[0, 5, 10, 15]])
    assert "fetch_videos" not in vars(own)
    with pytest.raises(InvalidInput, match=r"inputs\[3\]: the video's 20 frames can't be sampled"):
        preprocess_video(pipe, video, num_frames=21)
