"""Pipelines that transformers dropped in version 5 or never had, as ordinary subclasses of its own.

After ``register()``, ``transformers.pipeline("summarization", "a-model")`` and its kin build them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import transformers
from transformers import pipelines

from pipemill_worker.pipelines.own.question_answering import QuestionAnsweringPipeline
from pipemill_worker.pipelines.own.rerank import RerankPipeline, check_model
from pipemill_worker.pipelines.own.sentence_embedding import SentenceEmbeddingPipeline
from pipemill_worker.pipelines.own.sentence_files import read_sentence_files, sentence_defaults
from pipemill_worker.pipelines.own.text2text import (
    SummarizationPipeline,
    Text2TextGenerationPipeline,
    TranslationPipeline,
)

#: Each task's pipeline, and transformers' class that loads a model for it.
OWN_PIPELINES: Final[Mapping[str, tuple[type[Any], type[Any]]]] = {
    "question-answering": (QuestionAnsweringPipeline, transformers.AutoModelForQuestionAnswering),
    "rerank": (RerankPipeline, transformers.AutoModelForSequenceClassification),
    "sentence-embedding": (SentenceEmbeddingPipeline, transformers.AutoModel),
    "summarization": (SummarizationPipeline, transformers.AutoModelForSeq2SeqLM),
    "text2text-generation": (Text2TextGenerationPipeline, transformers.AutoModelForSeq2SeqLM),
    "translation": (TranslationPipeline, transformers.AutoModelForSeq2SeqLM),
}


def register() -> None:
    """Make the tasks known to ``transformers.pipeline``; a second call changes nothing."""
    for task, (pipeline_class, model_class) in OWN_PIPELINES.items():
        # Where it stands here, transformers refuses a task before it looks at the registry.
        getattr(pipelines, "REMOVED_TASKS", {}).pop(task, None)
        known = pipelines.PIPELINE_REGISTRY.supported_tasks.get(task, {})
        if known.get("impl") is not pipeline_class:
            pipelines.PIPELINE_REGISTRY.register_pipeline(task, pipeline_class, pt_model=(model_class,), type="text")


__all__ = [
    "OWN_PIPELINES",
    "QuestionAnsweringPipeline",
    "RerankPipeline",
    "SentenceEmbeddingPipeline",
    "SummarizationPipeline",
    "Text2TextGenerationPipeline",
    "TranslationPipeline",
    "check_model",
    "read_sentence_files",
    "register",
    "sentence_defaults",
]
