"""What the matrix is made of: a row is a task with one architecture, and the jobs that its queue is given."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.pipelines import SUPPORTED_TASKS


@dataclass(frozen=True, kw_only=True)
class Job:
    """One job as a queue gets it, and the same as the pipeline itself gets it."""

    #: As JSON: media are envelopes.
    inputs: Any
    #: As Python: images, arrays and paths; ``None`` when the inputs hold no media and go in as they are.
    direct: Any = None
    #: What both get, but for ``seed``, which the direct call gets as torch's seed.
    parameters: Mapping[str, Any] = field(default_factory=dict)
    #: Keyword arguments of the direct call alone, where the pipeline takes apart what the job has in one object.
    named: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A task, and a tiny model of one architecture for it."""

    #: Unique; also the name of its queue and of its model's folder.
    key: str
    task: str
    #: Saves the model and what belongs to it into a folder, so that ``transformers.pipeline(task, folder)`` loads it.
    build: Callable[[Path], None]
    #: The jobs; the folder is for files that the direct call reads by their path.
    jobs: Callable[[Path], list[Job]]
    #: Packages without which transformers refuses the task.
    needs: tuple[str, ...] = ()
    #: Greys by which an image in an answer may differ. Depths are scaled to 0-255 and cut to whole numbers, so that a
    #: float's last bit may decide between two neighbours; all other images are equal byte by byte.
    grey_levels: int = 0

    def missing(self) -> str | None:
        """Why this row can't run here, or ``None``."""
        absent = [name for name in self.needs if importlib.util.find_spec(name) is None]
        return f"{self.task} needs {', '.join(absent)}, not installed here" if absent else None


def load_direct(row: Row, folder: Path) -> Any:
    """The pipeline that transformers itself makes of a row's folder."""
    if row.task not in SUPPORTED_TASKS:
        from pipemill_worker.pipelines.own import register  # noqa: PLC0415  # transformers' own tasks need nothing of ours

        register()
    build: Any = transformers.pipeline
    pipe = build(row.task, model=str(folder), device="cpu")
    pipe.model.eval()
    return pipe


def call_directly(pipe: Any, job: Job) -> Any:
    """The pipeline's own answer; it may write into its arguments, so it gets copies."""
    parameters = copy.deepcopy(dict(job.parameters))
    seed = parameters.pop("seed", None)
    if seed is not None:
        torch.manual_seed(seed)
    pipe.call_count = 0  # Above 10, transformers would tell a GPU's owner to batch.
    inputs = [] if job.named else [copy.deepcopy(job.inputs if job.direct is None else job.direct)]
    return pipe(*inputs, **copy.deepcopy(dict(job.named)), **parameters)
