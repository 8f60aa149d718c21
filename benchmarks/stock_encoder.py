"""The rival that people write by hand: a Celery task that calls the pipeline, one call per job."""

import os
from typing import Any

import torch
import transformers

from benchmarks.stock import app

torch.set_num_threads(1)
_build: Any = transformers.pipeline
_pipe = _build("text-classification", model=os.environ["BENCH_MODEL"], device="cpu")


def infer(inputs: str) -> Any:
    """Answer as the pipeline does."""
    return _pipe(inputs)


app.tasks.unregister("pipemill.infer")
app.task(infer, name="pipemill.infer")
