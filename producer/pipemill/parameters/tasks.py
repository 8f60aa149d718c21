"""The tasks and their allow-lists."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, get_args

from pydantic import BaseModel

from pipemill.parameters.base import NoParameters
from pipemill.parameters.generation import TextGeneration
from pipemill.parameters.understanding import (
    FeatureExtraction,
    FillMask,
    TextClassification,
    TokenClassification,
    ZeroShotClassification,
)

#: A pipeline task of transformers; or ``echo``, which has no model and answers with its inputs.
Task = Literal[
    "text-classification",
    "token-classification",
    "fill-mask",
    "feature-extraction",
    "zero-shot-classification",
    "text-generation",
    "echo",
]
#: Every task.
TASKS: Final[tuple[Task, ...]] = get_args(Task)
#: What a job of a task may set.
PARAMETERS: Final[Mapping[str, type[BaseModel]]] = MappingProxyType(
    {
        "text-classification": TextClassification,
        "token-classification": TokenClassification,
        "fill-mask": FillMask,
        "feature-extraction": FeatureExtraction,
        "zero-shot-classification": ZeroShotClassification,
        "text-generation": TextGeneration,
        "echo": NoParameters,
    }
)
#: What a job of a task must have, from itself or from its queue's defaults.
REQUIRED: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType({"zero-shot-classification": ("candidate_labels",)})
