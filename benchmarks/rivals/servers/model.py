"""The model, as every rival calls it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.rivals.servers.settings import Settings

Answers = list[dict[str, Any]]
#: They have no hints.
_build: Any = transformers.pipeline
_set_threads: Any = torch.set_num_threads


def load(settings: Settings) -> Callable[[Sequence[str]], Answers]:
    """Load the pipeline and note that this process computes; what is returned answers the texts of one batch."""
    _set_threads(1)
    pipe = _build("text-classification", model=settings.model, device="cpu")
    with Path(settings.computing).open("a", encoding="utf-8") as file:
        file.write(f"{os.getpid()}\n")

    def answer(texts: Sequence[str]) -> Answers:
        answers: Answers = pipe(list(texts), batch_size=len(texts))
        return answers

    return answer
