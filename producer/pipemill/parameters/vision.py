"""Parameters of the tasks that look at images and videos."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from pipemill.parameters.base import Finite, Parameters, Ranked, ScoreFunction, Share, about, left_out
from pipemill.parameters.labels import LabelList, Labels, Template, candidate_labels, hypothesis_template

#: Points at which masks of one image are looked for, all its crops together: each is a row of the mask decoder.
MAX_POINTS: Final = 32_768
#: Points along the side of a crop, unless the job says otherwise: the pipeline's own default.
POINTS_PER_CROP: Final = 32

_Area = Annotated[Finite, Field(ge=0, le=1_000_000_000)]


class _ImageScores(Parameters):
    """What both tasks that label images or videos take."""

    top_k: Ranked = left_out("How many labels to return, best first.")
    function_to_apply: ScoreFunction = left_out(
        "What turns the logits into scores; left out, the model's configuration decides."
    )


class ImageClassification(_ImageScores):
    """Parameters of ``image-classification``."""


class VideoClassification(_ImageScores):
    """Parameters of ``video-classification``."""

    num_frames: int = left_out("Frames taken from the video; left out, as many as the model takes.", ge=1, le=256)
    frame_sampling_rate: int = left_out("Take one frame of so many; 1 takes each.", ge=1, le=1_000)


class ImageFeatureExtraction(Parameters):
    """Parameters of ``image-feature-extraction``."""

    pool: bool = left_out("Return the model's one pooled vector instead of all.")


class ImageSegmentation(Parameters):
    """Parameters of ``image-segmentation``."""

    subtask: Literal["semantic", "instance", "panoptic"] = left_out(
        "What the segments are; left out, the most that the model can do."
    )
    threshold: Share = left_out("Leave out segments with a lower score.")
    mask_threshold: Share = left_out("Score from which a pixel belongs to a segment.")
    overlap_mask_area_threshold: Share = left_out("Leave out segments of which others hide all but this share.")


class ObjectDetection(Parameters):
    """Parameters of ``object-detection``."""

    threshold: Share = left_out("Leave out objects with a lower score.")


class KeypointMatching(Parameters):
    """Parameters of ``keypoint-matching``."""

    threshold: Share = left_out("Leave out matches with a lower score.")


class ZeroShotImageClassification(Parameters):
    """Parameters of ``zero-shot-image-classification``."""

    candidate_labels: LabelList = candidate_labels()
    hypothesis_template: Template = hypothesis_template()


class ZeroShotObjectDetection(Parameters):
    """Parameters of ``zero-shot-object-detection``."""

    candidate_labels: Labels = candidate_labels()
    threshold: Share = left_out("Leave out objects with a lower score.")
    top_k: Ranked = left_out("How many objects to return, best first; left out, all.")


class MaskGeneration(Parameters):
    """Parameters of ``mask-generation``."""

    points_per_batch: int = left_out("Points looked at together: more is faster and takes more memory.", ge=1, le=1_024)
    points_per_crop: int = left_out("Points along the side of an image or crop.", ge=1, le=128)
    crops_n_layers: int = left_out(
        "Look at crops of the image too: 4 of them with 1, 20 with 2, 84 with 3.", ge=0, le=3
    )
    crop_overlap_ratio: Annotated[Finite, Field(ge=0, le=0.9)] = left_out(
        "Share of the image's shorter side by which crops overlap."
    )
    crop_n_points_downscale_factor: int = left_out("Divides points_per_crop in each further layer.", ge=1, le=8)
    pred_iou_thresh: Annotated[Finite, Field(ge=-1, le=1)] = left_out(
        "Leave out masks that the model itself thinks less well of; its guesses may be below 0."
    )
    stability_score_thresh: Share = left_out("Leave out masks that change more when the cut-off moves.")
    stability_score_offset: Annotated[Finite, Field(ge=0, le=100)] = left_out("How far the cut-off moves for that.")
    mask_threshold: Annotated[Finite, Field(ge=-100, le=100)] = left_out("Logit from which a pixel belongs to a mask.")
    max_hole_area: _Area = left_out("Fill holes of up to so many pixels, where the model's processor can.")
    max_sprinkle_area: _Area = left_out("Drop specks of up to so many pixels, where the model's processor can.")
    crops_nms_thresh: Share = left_out("Leave out masks that overlap a better one by more.")
    output_rle_mask: bool = left_out("Return masks run-length encoded too.")
    output_bboxes_mask: bool = left_out("Return each mask's box too.")

    @model_validator(mode="after")
    def _points_fit(self) -> Self:
        side = self.points_per_crop or POINTS_PER_CROP  # None when left out
        crops = sum(4**layer for layer in range((self.crops_n_layers or 0) + 1))
        if side * side * crops > MAX_POINTS:
            most = int((MAX_POINTS / crops) ** 0.5)
            raise about(
                "points_per_crop",
                f"{side} times {side} points on {crops} crops are more than {MAX_POINTS}",
                f"give at most {most}, or fewer crops_n_layers",
            )
        return self
