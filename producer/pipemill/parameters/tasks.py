"""The tasks and their allow-lists."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, get_args

from pydantic import BaseModel

from pipemill.parameters.answering import DocumentQuestionAnswering, QuestionAnswering, TableQuestionAnswering
from pipemill.parameters.audio import (
    AudioClassification,
    AutomaticSpeechRecognition,
    TextToAudio,
    ZeroShotAudioClassification,
)
from pipemill.parameters.base import NoParameters
from pipemill.parameters.generation import Rewriting, TextGeneration, Translation
from pipemill.parameters.multimodal import AnyToAny, ImageTextToText
from pipemill.parameters.understanding import (
    FeatureExtraction,
    FillMask,
    Rerank,
    SentenceEmbedding,
    TextClassification,
    TokenClassification,
    ZeroShotClassification,
)
from pipemill.parameters.vision import (
    ImageClassification,
    ImageFeatureExtraction,
    ImageSegmentation,
    KeypointMatching,
    MaskGeneration,
    ObjectDetection,
    VideoClassification,
    ZeroShotImageClassification,
    ZeroShotObjectDetection,
)

#: A pipeline task of transformers, or one that it had or never had and that workers bring along; or ``echo``, which
#: has no model and answers with its inputs.
Task = Literal[
    "any-to-any",
    "audio-classification",
    "automatic-speech-recognition",
    "decision",
    "depth-estimation",
    "document-question-answering",
    "feature-extraction",
    "fill-mask",
    "image-classification",
    "image-feature-extraction",
    "image-segmentation",
    "image-text-to-text",
    "keypoint-matching",
    "mask-generation",
    "object-detection",
    "question-answering",
    "rerank",
    "sentence-embedding",
    "summarization",
    "table-question-answering",
    "text-classification",
    "text-generation",
    "text-to-audio",
    "text2text-generation",
    "token-classification",
    "translation",
    "video-classification",
    "zero-shot-audio-classification",
    "zero-shot-classification",
    "zero-shot-image-classification",
    "zero-shot-object-detection",
    "echo",
]
#: Tasks whose inputs are, or may hold, images, sounds or videos.
MEDIA_TASKS: Final[frozenset[str]] = frozenset(
    {
        "any-to-any",
        "audio-classification",
        "automatic-speech-recognition",
        "decision",
        "depth-estimation",
        "document-question-answering",
        "image-classification",
        "image-feature-extraction",
        "image-segmentation",
        "image-text-to-text",
        "keypoint-matching",
        "mask-generation",
        "object-detection",
        "video-classification",
        "zero-shot-audio-classification",
        "zero-shot-image-classification",
        "zero-shot-object-detection",
    }
)
#: Every task.
TASKS: Final[tuple[Task, ...]] = get_args(Task)
#: What a job of a task may set.
PARAMETERS: Final[Mapping[str, type[BaseModel]]] = MappingProxyType(
    {
        "any-to-any": AnyToAny,
        "audio-classification": AudioClassification,
        "automatic-speech-recognition": AutomaticSpeechRecognition,
        "decision": NoParameters,
        "depth-estimation": NoParameters,
        "document-question-answering": DocumentQuestionAnswering,
        "feature-extraction": FeatureExtraction,
        "fill-mask": FillMask,
        "image-classification": ImageClassification,
        "image-feature-extraction": ImageFeatureExtraction,
        "image-segmentation": ImageSegmentation,
        "image-text-to-text": ImageTextToText,
        "keypoint-matching": KeypointMatching,
        "mask-generation": MaskGeneration,
        "object-detection": ObjectDetection,
        "question-answering": QuestionAnswering,
        "rerank": Rerank,
        "sentence-embedding": SentenceEmbedding,
        "summarization": Rewriting,
        "table-question-answering": TableQuestionAnswering,
        "text-classification": TextClassification,
        "text-generation": TextGeneration,
        "text-to-audio": TextToAudio,
        "text2text-generation": Rewriting,
        "token-classification": TokenClassification,
        "translation": Translation,
        "video-classification": VideoClassification,
        "zero-shot-audio-classification": ZeroShotAudioClassification,
        "zero-shot-classification": ZeroShotClassification,
        "zero-shot-image-classification": ZeroShotImageClassification,
        "zero-shot-object-detection": ZeroShotObjectDetection,
        "echo": NoParameters,
    }
)
#: What a job of a task must have, from itself or from its queue's defaults.
REQUIRED: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    dict.fromkeys(
        (
            "zero-shot-audio-classification",
            "zero-shot-classification",
            "zero-shot-image-classification",
            "zero-shot-object-detection",
        ),
        ("candidate_labels",),
    )
)
