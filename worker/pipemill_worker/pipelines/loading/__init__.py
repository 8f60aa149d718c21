"""Loading a queue's pipeline: every part from one folder at one pinned revision.

Weights come as safetensors only; code that comes with a model runs only where its queue says so; and a model whose
head the checkpoint doesn't hold is refused: transformers would fill it with random numbers and answer nonsense with
a log line.
"""

from __future__ import annotations

from pipemill_worker.pipelines.loading.pipeline import load_pipeline
from pipemill_worker.pipelines.loading.sources import BUILTIN_MODELS

__all__ = ["BUILTIN_MODELS", "load_pipeline"]
