"""The shared worker, and direct calls to compare its answers with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from pipemill import Client
from tests.e2e.rig import Process

#: Its queues: one for each task, and some without a model; ``small`` and ``unserved`` are left out.
CATALOGUE: Final = """
worker: {lease_seconds: 5, torch_threads: 1}
queues:
  text-classification: {task: text-classification, model: ./text-classification, device: cpu}
  token-classification: {task: token-classification, model: ./token-classification, device: cpu}
  fill-mask: {task: fill-mask, model: ./fill-mask, device: cpu}
  feature-extraction: {task: feature-extraction, model: ./feature-extraction, device: cpu}
  zero-shot-classification: {task: zero-shot-classification, model: ./zero-shot-classification, device: cpu}
  text-generation: {task: text-generation, model: ./text-generation, device: cpu}
  generator: {task: text-generation, model: "builtin:generator", device: cpu}
  poisoned: {task: text-classification, model: ./poisoned, device: cpu}
  echo: {task: echo, limits: {max_input_bytes: 100000}}
  single: {task: echo, batch: {max_items: 1}, prefetch: 1}
  unserved: {task: echo}
  small: {task: echo, limits: {max_depth: 5}}
"""
UNSERVED: Final = {"unserved", "small"}


@cache
def direct_pipeline(task: str, model: str) -> Any:
    """A pipeline as transformers itself makes it."""
    import transformers  # noqa: PLC0415  # it loads torch, which most of these tests leave to workers

    build: Any = transformers.pipeline
    return build(task, model=model, device="cpu")


@dataclass(frozen=True, kw_only=True)
class Mill:
    """A broker of its own and one worker on it that serves every pipeline; tests share it and leave it as it was."""

    url: str
    client: Client
    worker: Process
    #: Where the models of its queues lie, by task.
    models: Path
    catalogue: Path

    def pipeline(self, task: str, model: str | Path | None = None) -> Any:
        """The pipeline that transformers itself makes of a queue's model, for direct calls."""
        return direct_pipeline(task, str(model or self.models / task))
