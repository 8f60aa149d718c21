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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.pipelines.base import ChunkPipeline

from pipemill_worker.pipelines.settings import LoadedPipeline


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


class _Planned(Exception):
    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan


class _Probe:
    """Mixed in front of a pipeline's class: ends its ``__call__`` where the model would come in."""

    #: Results to shape; ``None`` while planning.
    staged_results: list[Any] | None

    def run_single(self, inputs: Any, preprocess: Any, forward: Any, postprocess: Any) -> Any:
        return next(self.get_iterator([inputs], 0, 1, preprocess, forward, postprocess))

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
            raise _Planned(Plan(inputs=list(inputs), preprocess=preprocess, forward=forward, postprocess=postprocess))
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
    silently get each other's token ids.
    """

    def __init__(self, pipe: LoadedPipeline) -> None:
        probe = _probe_class(type(pipe))
        self._pipe: Any = object.__new__(probe)
        tokenizer = copy.deepcopy(pipe.tokenizer)
        tokenizer.get_vocab = functools.cache(tokenizer.get_vocab)  # 20 ms for 30,000 words, per job with `targets`.
        self._pipe.__dict__.update(pipe.__dict__, tokenizer=tokenizer, staged_results=None)
        self._chunks = isinstance(pipe, ChunkPipeline)

    def plan(self, inputs: Any, parameters: Mapping[str, Any]) -> Plan:
        """The inputs and stage parameters that the pipeline makes of a job; its own errors come through."""
        self._pipe.call_count = 0  # Above 10, transformers would tell a GPU's owner to batch.
        try:
            self._pipe(inputs, **fresh(parameters))
        except _Planned as planned:
            plan = planned.plan
        else:
            raise RuntimeError(
                f"{type(self._pipe).__name__} didn't reach its model: use the transformers version pinned"
            )
        if plan.forward.get("tokenizer") is self._pipe.tokenizer:
            plan.forward["tokenizer"] = OwnTokenizer
        return plan

    def preprocess(self, plan: Plan) -> Iterator[list[dict[str, Any]]]:
        """Per input, the model inputs of its one or (chunking tasks) several items."""
        for inputs in plan.inputs:
            prepared = self._pipe.preprocess(inputs, **fresh(plan.preprocess))
            yield [dict(chunk) for chunk in prepared] if self._chunks else [dict(prepared)]

    def generation_settings(self, plan: Plan) -> dict[str, Any]:
        """The generation settings in force for a job: its own, over the pipeline's, over the model's."""
        settings = self._pipe._prepare_generate_kwargs(dict(plan.forward))  # noqa: SLF001 - there is no public way
        return dict(self._pipe._get_set_generation_params(settings))  # noqa: SLF001 - as above

    def forward(self, model_inputs: dict[str, Any], parameters: Mapping[str, Any]) -> Any:
        """The model's outputs, on the CPU. ``model_inputs`` stays as it is."""
        arguments = fresh(parameters)
        if arguments.get("tokenizer") is OwnTokenizer:
            arguments["tokenizer"] = self._pipe.tokenizer
        return self._pipe.forward(model_inputs, **arguments)

    def answer(self, plan: Plan, inputs: Any, parameters: Mapping[str, Any], outputs: Sequence[Sequence[Any]]) -> Any:
        """Postprocess each input's outputs (one per item) and shape them as the pipeline's ``__call__`` would."""
        results = [
            self._pipe.postprocess(list(mine) if self._chunks else mine[0], **fresh(plan.postprocess))
            for mine in outputs
        ]
        self._pipe.staged_results = results
        try:
            return self._pipe(inputs, **parameters)
        finally:
            self._pipe.staged_results = None


class StagesPerThread(threading.local):
    """Gives each thread that touches it ``stages`` of its own."""

    def __init__(self, pipe: LoadedPipeline, lock: threading.Lock) -> None:
        with lock:  # A tokenizer is copied by one thread at a time.
            self.stages = Stages(pipe)


def fresh(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """A deep copy: some stages write into what they are given (feature-extraction into ``tokenize_kwargs``)."""
    return copy.deepcopy(dict(parameters)) if parameters else {}
