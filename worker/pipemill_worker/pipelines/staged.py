"""A transformers pipeline, cut into its stages without writing any of them anew.

Every pipeline class rewrites inputs and answers in its own ``__call__``: a lone text's answer wrapped in a list, a list
of one unwrapped, arguments parsed again. Instead of a copy of each, the real ``__call__`` runs twice with its two ways
to the model (``run_single`` and ``get_iterator``) intercepted: once to learn the inputs and parameters it resolved,
once to shape the finished results. Between the two, the stages run apart.
"""

from __future__ import annotations

import copy
import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import torch
from transformers.pipelines.base import ChunkPipeline

from pipemill_worker.pipelines.settings import LoadedPipeline
from pipemill_worker.pipelines.shortcuts import quicken, reading
from pipemill_worker.pipelines.writing.draft import Draft
from pipemill_worker.pipelines.writing.drafting import Drafter, Past

#: What of a pipeline turns inputs into tensors; each thread has its own.
PREPROCESSORS: Final = ("tokenizer", "processor", "image_processor", "feature_extractor", "video_processor")


class OwnTokenizer:
    """Stands in forward parameters for the tokenizer of the thread that runs them. Never instantiated."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a pipeline's ``__call__`` resolved for one job."""

    #: What ``preprocess`` gets, one call each.
    inputs: list[Any]
    #: Keyword arguments of each stage.
    preprocess: dict[str, Any]
    forward: dict[str, Any]
    postprocess: dict[str, Any]
    #: Whether a direct call goes through a data loader: for a list, and where one input has several items.
    loads: bool


class _Planned(Exception):
    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan


class _Probe:
    """Mixed in front of a pipeline's class: ends its ``__call__`` where the model would come in."""

    #: Results to shape; ``None`` while planning.
    staged_results: list[Any] | None

    def run_single(self, inputs: Any, preprocess: Any, forward: Any, postprocess: Any) -> Any:
        if self.staged_results is None:
            raise _Planned(
                Plan(inputs=[inputs], preprocess=preprocess, forward=forward, postprocess=postprocess, loads=False)
            )
        return self.staged_results[0]

    def get_iterator(  # noqa: PLR0913, PLR0917 - transformers' signature
        self,
        inputs: Any,
        num_workers: int,  # noqa: ARG002 - as above
        batch_size: int,  # noqa: ARG002 - as above
        preprocess: dict[str, Any],
        forward: dict[str, Any],
        postprocess: dict[str, Any],
    ) -> Iterator[Any]:
        if self.staged_results is None:
            raise _Planned(
                Plan(inputs=list(inputs), preprocess=preprocess, forward=forward, postprocess=postprocess, loads=True)
            )
        return iter(self.staged_results)

    def _sanitize_parameters(self, **parameters: Any) -> Any:
        if self.staged_results is not None:  # Resolved when planned; once more would only cost.
            return {}, {}, {}
        return super()._sanitize_parameters(**parameters)  # type: ignore[misc]  # the class it is mixed into has it

    def get_inference_context(self) -> Any:
        return torch.inference_mode


@functools.cache
def _probe_class(pipeline_class: type[Any]) -> type[Any]:
    return type(f"Staged{pipeline_class.__name__}", (_Probe, pipeline_class), {})


class Stages:
    """One thread's way through a pipeline: it shares the model with all, and the tokenizer with none.

    A fast tokenizer keeps truncation and padding as its own state, so that two threads with different parameters
    silently get each other's token ids. A processor holds one, too.
    """

    def __init__(self, pipe: LoadedPipeline) -> None:
        probe = _probe_class(type(pipe))
        self._pipe: Any = object.__new__(probe)
        own = {name: getattr(pipe, name) for name in PREPROCESSORS if getattr(pipe, name, None) is not None}
        own = copy.deepcopy(own)  # At once: a processor's tokenizer stays the pipeline's.
        if (tokenizer := own.get("tokenizer")) is not None:
            quicken(tokenizer)
            if pipe.task == "fill-mask":  # 20 ms for 30,000 words, per job with `targets`.
                tokenizer.get_vocab = functools.cache(tokenizer.get_vocab)
        self._pipe.__dict__.update(pipe.__dict__, staged_results=None, **own)
        self._model, self._read = pipe.model, reading(pipe.model)
        self._chunks = isinstance(pipe, ChunkPipeline)
        self._films = pipe.task == "video-classification"
        self._labels_images = pipe.task == "zero-shot-object-detection"

    def plan(self, inputs: Any, parameters: Mapping[str, Any]) -> Plan:
        """The inputs and stage parameters that the pipeline makes of a job; its own errors come through."""
        self._pipe.call_count = 0  # Above 10, transformers would tell a GPU's owner to batch.
        args, named = _arguments(self._pipe.task, inputs)
        try:
            self._pipe(*args, **named, **fresh(parameters))
        except _Planned as planned:
            plan = planned.plan
        else:
            raise RuntimeError(
                f"{type(self._pipe).__name__} didn't reach its model: use the transformers version pinned"
            )
        for settings in _holders(plan.forward):
            if "tokenizer" in settings:
                settings["tokenizer"] = OwnTokenizer
        return plan

    def preprocess(self, plan: Plan) -> Iterator[Iterator[dict[str, Any]]]:
        """Per input, the model inputs of its one or (chunking tasks) several items, as they are drawn."""
        for inputs in plan.inputs:
            yield self.preprocess_one(inputs, plan.preprocess)

    def preprocess_one(self, inputs: Any, parameters: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """The model inputs of one input's items, as they are drawn: a hostile job may have more than memory holds."""
        if self._films:
            from pipemill_worker.media import preprocess_video  # noqa: PLC0415 - needs PyAV, which other tasks don't

            yield dict(preprocess_video(self._pipe, inputs, **fresh(parameters)))
            return
        if self._labels_images:
            yield from self._preprocess_labels(inputs, parameters)
            return
        prepared = self._pipe.preprocess(inputs, **fresh(parameters))
        yield from map(dict, prepared) if self._chunks else (dict(prepared),)

    def _preprocess_labels(self, inputs: Any, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The items of an image with labels. The pipeline prepares the image for each label anew: 7 MB each."""
        image_processor = self._pipe.image_processor
        self._pipe.image_processor = _once(image_processor)
        try:
            return [dict(chunk) for chunk in self._pipe.preprocess(inputs, **fresh(parameters))]
        finally:
            self._pipe.image_processor = image_processor

    @property
    def tokenizer(self) -> Any:
        """The thread's own tokenizer."""
        return self._pipe.tokenizer

    def generation_settings(self, forward: Mapping[str, Any]) -> dict[str, Any]:
        """The generation settings in force with these forward parameters: a job's own, over the model's."""
        own = forward.get("generate_kwargs")
        settings = self._pipe._prepare_generate_kwargs(dict(forward if own is None else own))  # noqa: SLF001 - there is no public way
        return dict(self._pipe._get_set_generation_params(settings))  # noqa: SLF001 - as above

    def forward(self, model_inputs: dict[str, Any], parameters: Mapping[str, Any]) -> Any:
        """The model's outputs, on the CPU. ``model_inputs`` stays as it is."""
        return self._pipe.forward(model_inputs, **self._forward_arguments(parameters))

    def draft(
        self, model_inputs: Mapping[str, Any], parameters: Mapping[str, Any], past: Past | None = None
    ) -> Draft | None:
        """What ``forward`` would start writing from; ``None`` where it writes otherwise than token after token.

        ``past`` is given by the thread that owns the device, on which it may be run meanwhile.
        """
        return self._drafter.draft(model_inputs, self._forward_arguments(parameters), past)

    def written(self, model_inputs: Mapping[str, Any], parameters: Mapping[str, Any], past: Past) -> Any:
        """What ``forward`` gives when its model writes so; a ``Draft`` if there is more to write."""
        return self._drafter.outputs(model_inputs, self._forward_arguments(parameters), past)

    @functools.cached_property
    def _drafter(self) -> Drafter:
        return Drafter(self._pipe)

    def _forward_arguments(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        arguments = fresh(parameters)
        for settings in _holders(arguments):
            if settings.get("tokenizer") is OwnTokenizer:
                settings["tokenizer"] = self._pipe.tokenizer or self._pipe.processor.tokenizer
        return arguments

    def answer(self, plan: Plan, inputs: Any, parameters: Mapping[str, Any], outputs: Sequence[Sequence[Any]]) -> Any:
        """Postprocess each input's outputs (one per item) and shape them as the pipeline's ``__call__`` would."""
        if self._chunks:
            for output in chain.from_iterable(outputs):
                output.pop("is_last", None)  # As a direct call does: mask-generation would return it.
        args, named = _arguments(self._pipe.task, inputs)
        self._pipe.model = self._read
        try:
            with torch.inference_mode():  # Elsewhere, what was made so can't be written to, nor be given to a layer.
                self._pipe.staged_results = [
                    self._pipe.postprocess(list(mine) if self._chunks else mine[0], **fresh(plan.postprocess))
                    for mine in outputs
                ]
            return self._pipe(*args, **named, **parameters)
        finally:
            self._pipe.model, self._pipe.staged_results = self._model, None


class StagesPerThread(threading.local):
    """Gives each thread that touches it ``stages`` of its own."""

    def __init__(self, pipe: LoadedPipeline, lock: threading.Lock) -> None:
        with lock:  # A tokenizer is copied by one thread at a time.
            self.stages = Stages(pipe)


def _once(image_processor: Callable[..., Any]) -> Callable[..., Any]:
    """The same for one image, which it prepares when it is first asked."""
    prepared: list[Any] = []

    def prepare(image: Any, **options: Any) -> Any:
        if not prepared:
            prepared.append(image_processor(image, **options))
        return prepared[0]

    return prepare


def _holders(forward: dict[str, Any]) -> list[dict[str, Any]]:
    """Where pipelines put the tokenizer that looks for stop strings."""
    own = forward.get("generate_kwargs")
    return [forward] if own is None else [forward, own]


def _arguments(task: str, inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """How a job's inputs are given to a pipeline that takes several arguments."""
    if task == "image-text-to-text" and (
        isinstance(inputs, str) or (isinstance(inputs, list) and isinstance(inputs[0], str))
    ):
        return (), {"text": inputs}  # As the first argument, a string would be an image's path.
    if task == "any-to-any" and isinstance(inputs, dict):
        return (), inputs
    if task == "table-question-answering":  # It writes data frames into what it is given.
        return ([dict(each) for each in inputs] if isinstance(inputs, list) else dict(inputs),), {}
    return (inputs,), {}


def fresh(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """A deep copy: some stages write into what they are given (feature-extraction into ``tokenize_kwargs``)."""
    return copy.deepcopy(dict(parameters)) if parameters else {}
