"""Models that see images and no words."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch

from tests.tasks.models.parts import IMAGE_SIZE, SIZES, Builder, named_labels, random_model, save, t

_SQUARE: Final = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
_VIT: Final[dict[str, Any]] = {**SIZES, "image_size": IMAGE_SIZE, "patch_size": 8}
#: What the detectors scale an image to: sides stay in proportion, so that batches of mixed shapes don't stack.
_EDGES: Final = {"shortest_edge": IMAGE_SIZE, "longest_edge": 2 * IMAGE_SIZE}
#: A pyramid of four stages, as small as its kernels allow.
_PYRAMID: Final[dict[str, Any]] = {
    "depths": [1, 1, 1, 1],
    "hidden_sizes": [8, 8, 16, 16],
    "num_attention_heads": [1, 1, 2, 2],
    "mlp_ratios": [2, 2, 2, 2],
    "decoder_hidden_size": 16,
}


def classify_vit(folder: Path) -> None:
    """Every image is scaled to one size."""
    model = random_model(t.ViTForImageClassification, t.ViTConfig(**_VIT, **named_labels()))
    save(folder, model, t.ViTImageProcessorPil(size=_SQUARE))


def features_vit(folder: Path) -> None:
    """As above, without labels."""
    save(folder, random_model(t.ViTModel, t.ViTConfig(**_VIT)), t.ViTImageProcessorPil(size=_SQUARE))


def segment_segformer(folder: Path) -> None:
    """One label for each pixel."""
    model = random_model(t.SegformerForSemanticSegmentation, t.SegformerConfig(**_PYRAMID, **named_labels()))
    save(folder, model, t.SegformerImageProcessorPil(size=_SQUARE))


def segment_mask2former(folder: Path) -> None:
    """Queries with a mask each; semantic, instances or panoptic."""
    backbone = t.SwinConfig(
        image_size=IMAGE_SIZE,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=2,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = t.Mask2FormerConfig(
        backbone_config=backbone,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=16,
        dim_feedforward=16,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        num_queries=8,
        **named_labels(),
    )
    size = {edge: 2 * length for edge, length in _EDGES.items()}
    processor = t.Mask2FormerImageProcessorPil(size=size, size_divisor=32)
    save(folder, random_model(t.Mask2FormerForUniversalSegmentation, config), processor)


def detect_yolos(folder: Path) -> None:
    """Tokens that look for objects among the patches."""
    config = t.YolosConfig(**{**_VIT, "image_size": [IMAGE_SIZE, IMAGE_SIZE]}, num_detection_tokens=8, **named_labels())
    save(folder, random_model(t.YolosForObjectDetection, config), t.YolosImageProcessorPil(size=_EDGES))


def detect_detr(folder: Path) -> None:
    """Convolutions, then queries; a mask tells what of a batch is padding."""
    backbone = t.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 8, 16, 16],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage4"],
    )
    config = t.DetrConfig(
        backbone_config=backbone,
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        num_queries=8,
        **named_labels(),
    )
    save(folder, random_model(t.DetrForObjectDetection, config), t.DetrImageProcessorPil(size=_EDGES))


def depth_dpt(folder: Path) -> None:
    """Every image is scaled to one size."""
    config = t.DPTConfig(
        **{**_VIT, "num_hidden_layers": 4},
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=8,
    )
    model = random_model(t.DPTForDepthEstimation, config)
    with torch.no_grad():
        model.head.head[4].weight.abs_().mul_(0.005)  # Its last step cuts off what is below 0.
    save(folder, model, t.DPTImageProcessorPil(size=_SQUARE))


def depth_glpn(folder: Path) -> None:
    """An image keeps its size, but for what is over a multiple of 32."""
    model = random_model(t.GLPNForDepthEstimation, t.GLPNConfig(**_PYRAMID))
    save(folder, model, t.GLPNImageProcessorPil(size_divisor=32))


def masks_sam(folder: Path) -> None:
    """All objects of an image, by a grid of points."""
    config = t.SamConfig(
        vision_config={
            **SIZES,
            "image_size": IMAGE_SIZE,
            "patch_size": 8,
            "output_channels": 16,
            "window_size": 2,
            "global_attn_indexes": [1],
            "num_pos_feats": 8,
        },
        prompt_encoder_config={"hidden_size": 16, "image_size": IMAGE_SIZE, "patch_size": 8, "mask_input_channels": 4},
        mask_decoder_config={"hidden_size": 16, "mlp_dim": 16, "num_attention_heads": 2, "iou_head_hidden_dim": 16},
    )
    size = {"longest_edge": IMAGE_SIZE}
    processor = t.SamImageProcessorPil(size=size, pad_size=_SQUARE)
    save(folder, random_model(t.SamModel, config), processor)


def match_superglue(folder: Path) -> None:
    """Key points of two images, and which of them are the same."""
    detector = t.SuperPointConfig(
        encoder_hidden_sizes=[8, 8, 8, 8],
        decoder_hidden_size=8,
        descriptor_decoder_dim=16,
        keypoint_threshold=0.001,
        max_keypoints=32,
        nms_radius=1,
        border_removal_distance=1,
    )
    config = t.SuperGlueConfig(
        keypoint_detector_config=detector,
        hidden_size=16,
        keypoint_encoder_sizes=[8, 16],
        gnn_layers_types=["self", "cross"],
        num_attention_heads=2,
        sinkhorn_iterations=10,
    )
    processor = t.SuperGlueImageProcessorPil(size=_SQUARE)
    save(folder, random_model(t.SuperGlueForKeypointMatching, config), processor)


def classify_videomae(folder: Path) -> None:
    """Frames of one size."""
    config = t.VideoMAEConfig(**_VIT, num_frames=4, tubelet_size=2, **named_labels())
    processor = t.VideoMAEImageProcessorPil(size={"shortest_edge": IMAGE_SIZE}, crop_size=_SQUARE)
    save(folder, random_model(t.VideoMAEForVideoClassification, config), processor)


BUILDERS: Final[dict[str, Builder]] = {
    "image-classification.vit": classify_vit,
    "image-feature-extraction.vit": features_vit,
    "image-segmentation.segformer": segment_segformer,
    "image-segmentation.mask2former": segment_mask2former,
    "object-detection.yolos": detect_yolos,
    "object-detection.detr": detect_detr,
    "depth-estimation.dpt": depth_dpt,
    "depth-estimation.glpn": depth_glpn,
    "mask-generation.sam": masks_sam,
    "keypoint-matching.superglue": match_superglue,
    "video-classification.videomae": classify_videomae,
}
