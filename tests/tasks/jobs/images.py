"""Jobs that hold images and no words, and videos."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from PIL import Image

from tests.tasks.media import array_envelope, drawn, filmed, image_envelope, video_envelope, write_video
from tests.tasks.rows import Job

#: Widths and heights: equal, wide, tall, small, large.
SIZES: Final = ((32, 32), (48, 32), (32, 48), (20, 24), (32, 32), (64, 40), (32, 32), (48, 32))


def per_image(*parameters: Mapping[str, Any], sizes: Sequence[tuple[int, int]] = SIZES) -> list[Job]:
    """One job for each size, each with the next parameters; and one with two images."""
    jobs = []
    for number, (width, height) in enumerate(sizes):
        image = drawn(number, width, height)
        asked = parameters[number % len(parameters)]
        jobs.append(Job(inputs=image_envelope(image), direct=image, parameters=asked))
    pair = [drawn(90, 32, 32), drawn(91, 40, 64)]
    jobs.append(Job(inputs=[image_envelope(image) for image in pair], direct=pair, parameters=parameters[0]))
    return jobs


def classify(_: Path) -> list[Job]:
    """Jobs of ``image-classification``; a grey image and one with transparency among them."""
    grey, clear = drawn(70, mode="L"), drawn(71, mode="RGBA")
    return [
        *per_image({}, {"top_k": 2}, {"function_to_apply": "sigmoid"}, {"top_k": 1, "function_to_apply": "none"}),
        Job(inputs=image_envelope(grey), direct=grey),
        Job(inputs=image_envelope(clear, "TIFF"), direct=clear, parameters={"top_k": 3}),
    ]


def features(_: Path) -> list[Job]:
    """Jobs of ``image-feature-extraction``."""
    return per_image({}, {"pool": True})


def segment_semantic(_: Path) -> list[Job]:
    """Jobs of ``image-segmentation`` for a model that knows nothing but labels for pixels."""
    return per_image({}, {"subtask": "semantic"})


def segment_all(_: Path) -> list[Job]:
    """Jobs of ``image-segmentation`` of all three kinds."""
    return per_image(
        {"subtask": "semantic"},
        {"subtask": "instance", "threshold": 0.1},
        {"subtask": "panoptic", "threshold": 0.1, "mask_threshold": 0.4, "overlap_mask_area_threshold": 0.1},
    )


def detect(_: Path) -> list[Job]:
    """Jobs of ``object-detection``."""
    return per_image({"threshold": 0.3}, {"threshold": 0.2}, {"threshold": 0.1}, {})


def depth(_: Path) -> list[Job]:
    """Jobs of ``depth-estimation``, which takes no parameters; no side is shorter than a model's stride."""
    return per_image({}, sizes=[(max(width, 32), max(height, 32)) for width, height in SIZES])


def masks(_: Path) -> list[Job]:
    """Jobs of ``mask-generation``."""
    return per_image(
        {"points_per_crop": 4, "pred_iou_thresh": 0.0, "stability_score_thresh": 0.0},
        {"points_per_crop": 4, "points_per_batch": 8, "stability_score_thresh": 0.0, "output_bboxes_mask": True},
        {"points_per_crop": 2, "pred_iou_thresh": 0.0, "stability_score_thresh": 0.05, "crops_nms_thresh": 0.9},
    )


def match(_: Path) -> list[Job]:
    """Jobs of ``keypoint-matching``: pairs of images, and two pairs in one job."""

    def pair(seed: int, width: int, height: int) -> list[Image.Image]:
        return [drawn(seed, width, height), drawn(seed + 100, height, width)]

    asked: list[dict[str, Any]] = [{}, {"threshold": 0.05}, {"threshold": 0.15}]
    pairs = [pair(number, width, height) for number, (width, height) in enumerate(SIZES)]
    jobs = [
        Job(inputs=[image_envelope(image) for image in two], direct=two, parameters=asked[number % 3])
        for number, two in enumerate(pairs)
    ]
    inputs = [[image_envelope(image) for image in two] for two in pairs[:2]]
    return [*jobs, Job(inputs=inputs, direct=pairs[:2], parameters=asked[1])]


def classify_videos(folder: Path) -> list[Job]:
    """Jobs of ``video-classification``: files, lossy and not, and one of bare frames."""
    asked: list[dict[str, Any]] = [{}, {"top_k": 2}, {"frame_sampling_rate": 2}, {"function_to_apply": "sigmoid"}]
    jobs = []
    for number, (width, height) in enumerate(((32, 32), (48, 32), (32, 48), (64, 40), (32, 32), (48, 32))):
        path = folder / f"video-{number}{'.mkv' if number % 3 == 2 else '.mp4'}"
        write_video(path, filmed(number, 8 + 2 * number, width, height))
        jobs.append(Job(inputs=video_envelope(path), direct=str(path), parameters=asked[number % 4]))
    frames, path = filmed(80, 9), folder / "video-80.mkv"
    write_video(path, frames)
    both = [jobs[0].inputs, jobs[1].inputs]
    return [
        *jobs,
        Job(inputs={"$video": array_envelope(frames)}, direct=str(path), parameters={"top_k": 3}),
        Job(inputs=both, direct=[jobs[0].direct, jobs[1].direct], parameters={"num_frames": 4}),
    ]


JOBS: Final[dict[str, Callable[[Path], list[Job]]]] = {
    "image-classification.vit": classify,
    "image-feature-extraction.vit": features,
    "image-segmentation.segformer": segment_semantic,
    "image-segmentation.mask2former": segment_all,
    "object-detection.yolos": detect,
    "object-detection.detr": detect,
    "depth-estimation.dpt": depth,
    "depth-estimation.glpn": depth,
    "mask-generation.sam": masks,
    "keypoint-matching.superglue": match,
    "video-classification.videomae": classify_videos,
}
