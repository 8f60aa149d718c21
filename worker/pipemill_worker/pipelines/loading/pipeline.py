"""From a queue's settings to a loaded pipeline, or one error that says what to do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
import transformers

from pipemill_worker.pipelines.loading.allocator import keep_freed_memory
from pipemill_worker.pipelines.loading.classes import pipeline_class
from pipemill_worker.pipelines.loading.compiling import compile_model
from pipemill_worker.pipelines.loading.components import load_components
from pipemill_worker.pipelines.loading.needs import check_needs
from pipemill_worker.pipelines.loading.placing import device_of
from pipemill_worker.pipelines.loading.refusal import Refusal, explain, load_error
from pipemill_worker.pipelines.loading.sources import model_folder
from pipemill_worker.pipelines.loading.weights import check_decision_adapter, load_model, load_vocoder
from pipemill_worker.pipelines.own import OWN_PIPELINES
from pipemill_worker.pipelines.settings import LoadedPipeline, ModelSettings


def load_pipeline(queue: str, settings: ModelSettings, *, threads: int | None = None) -> LoadedPipeline:
    """Load the pipeline of a queue, ready to run: on its device, in evaluation mode.

    Raises
    ------
    ModelLoadError
        Names the queue, the model, the cause, and what to do.
    MissingExtra
        The same, when what is missing is an extra.

    """
    # Its own threads would add to torch's and the workers', and warn at every fork. Read when it first tokenizes.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    own_log: Any = transformers.utils.logging  # It has no hints.
    own_log.disable_progress_bar()  # A bar's lines would break up the worker's log.
    own_log.set_verbosity_error()  # Its warnings repeat what stands in jobs.
    keep_freed_memory()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        pipe = _load(settings)
        if settings.compile:
            compile_model(queue, settings, pipe)
    except Refusal as refusal:
        raise load_error(queue, settings, refusal) from refusal.__cause__
    except Exception as error:  # transformers, safetensors, hub and torch raise whatever they like
        raise load_error(queue, settings, explain(error, settings)) from error
    return pipe


def _load(settings: ModelSettings) -> LoadedPipeline:
    build = pipeline_class(settings.task)
    check_needs(settings.task)
    device = device_of(settings)
    folder = model_folder(settings)
    model = load_model(settings, folder)
    parts = load_components(build, settings, folder)
    parts.update(_parts_of_task(settings.task, model, folder))
    try:
        pipe: LoadedPipeline = build(model=model, task=settings.task, device=device, **parts)
    except ValueError as error:
        if settings.task not in OWN_PIPELINES:
            raise
        cause, _, mend = str(error).partition(": ")  # Ours say what to do themselves.
        raise Refusal(cause, mend or "choose another model") from error
    pipe.model.eval()
    if (vocoder := parts.get("vocoder")) is not None:
        vocoder.to(pipe.device)
    return pipe


def _parts_of_task(task: str, model: Any, folder: Path) -> dict[str, Any]:
    """What a task's pipeline would else get for itself, from where nothing is pinned."""
    if task == "decision":
        check_decision_adapter(model, folder)
    if task == "text-to-audio" and (vocoder := load_vocoder(model, folder)) is not None:
        return {"vocoder": vocoder}
    return {}
