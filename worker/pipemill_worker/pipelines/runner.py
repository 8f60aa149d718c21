"""The ``PipelineRunner`` over a real transformers pipeline."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from jinja2 import TemplateError
from transformers.pipelines.base import PipelineException

from pipemill.errors import InvalidInput, InvalidParameter, ModelLoadError
from pipemill_worker.pipelines import faults
from pipemill_worker.pipelines.collate import Payload, collate, unbatch
from pipemill_worker.pipelines.grouping import group_key, sharing_rule
from pipemill_worker.pipelines.inputs import check_inputs, shorten
from pipemill_worker.pipelines.limits import check_generation, check_stride, check_tokens, token_limit
from pipemill_worker.pipelines.plain import to_plain
from pipemill_worker.pipelines.settings import LoadedPipeline, ModelSettings, Validate
from pipemill_worker.pipelines.staged import Plan, Stages, StagesPerThread
from pipemill_worker.pipelines.warming import warm_up_jobs
from pipemill_worker.seams import Item, Prepared

#: Rows that one job may put through the model: its texts, times their labels or their chunks.
MAX_ITEMS: Final = 4096

#: Characters of a pipeline's own complaint that reach a job's error.
_MAX_COMPLAINT_CHARACTERS: Final = 300


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Notes:
    """What ``finish`` needs of ``prepare``."""

    plan: Plan
    inputs: Any
    parameters: Mapping[str, Any]
    #: How many items each of the plan's inputs became.
    counts: Sequence[int]


class TransformersRunner:
    """One loaded pipeline in stages; every answer is the one that the pipeline itself would give.

    ``prepare`` and ``finish`` may run in any number of threads, ``forward`` in one.
    """

    def __init__(self, name: str, pipe: LoadedPipeline, settings: ModelSettings, *, validate: Validate) -> None:
        self._name = name
        self._settings = settings
        self._task = settings.task
        self._generates = self._task == "text-generation"
        self._pipe = pipe
        self._validate = validate
        self._rule = sharing_rule(self._task, pipe)
        self._limit = token_limit(pipe.model)
        self._chunk_tokens = pipe.tokenizer.model_max_length - pipe.tokenizer.num_special_tokens_to_add()
        self._threads = StagesPerThread(pipe, threading.Lock())

    def prepare(self, inputs: Any, parameters: Mapping[str, Any]) -> Prepared:
        """Validate and preprocess one job. Called from several threads at once."""
        merged = self._validate(self._task, {**self._settings.parameters, **parameters})
        return self._prepare(inputs, merged)

    def forward(self, items: Sequence[Item]) -> Sequence[Any]:
        """Run one forward pass over items with equal group keys; one output per item, in order."""
        payloads: list[Payload] = [item.payload for item in items]
        stages = self._threads.stages
        if self._generates:
            return [stages.forward(dict(payload.inputs), payload.forward) for payload in payloads]
        outputs = stages.forward(collate(payloads, self._rule.pad_token_id), payloads[0].forward)
        return unbatch(outputs, payloads, named=self._task != "feature-extraction")

    def finish(self, prepared: Prepared, outputs: Sequence[Any]) -> Any:
        """Postprocess one job's outputs into the pipeline's own answer, as plain Python."""
        notes: _Notes = prepared.state
        remaining = iter(outputs)
        grouped = [[next(remaining) for _ in range(count)] for count in notes.counts]
        return to_plain(self._threads.stages.answer(notes.plan, notes.inputs, notes.parameters, grouped))

    def warm_up(self) -> None:
        """Run a short and a longer job through all stages.

        Raises
        ------
        ModelLoadError
            When the model loaded but can't run.

        """
        for inputs, parameters in warm_up_jobs(self._task, self._pipe.tokenizer, self._limit):
            try:
                prepared = self._prepare(inputs, parameters)
                self.finish(prepared, [output for item in prepared.items for output in self.forward([item])])
            except Exception as error:
                raise ModelLoadError(
                    f"queue {self._name!r}: model {self._settings.model!r} is loaded but can't run"
                    f" {self._task!r}: {type(error).__name__}: {shorten(error, _MAX_COMPLAINT_CHARACTERS)};"
                    " check that model and tokenizer belong together, and that the device has the memory"
                ) from error

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether this error of ``forward`` means that a smaller batch could succeed."""
        return faults.is_out_of_memory(error)

    def is_device_lost(self, error: BaseException) -> bool:
        """Whether this error of ``forward`` means that the device is unusable until the process restarts."""
        return faults.is_device_lost(error)

    def forbid_padding(self) -> None:
        """From now on, items share a batch only when their shapes are equal; for a model that padding disturbs."""
        self._rule = self._rule.without_padding()

    def describe(self) -> dict[str, Any]:
        """Facts for people: task, model, revision, device, dtype; how items share; the most tokens in a row."""
        config = self._pipe.model.config
        return {
            "task": self._task,
            "model": self._settings.model,
            "revision": getattr(config, "_commit_hash", None) or self._settings.revision,
            "device": str(self._pipe.device),
            "dtype": str(self._pipe.model.dtype).removeprefix("torch."),
            "architecture": type(self._pipe.model).__name__,
            "sharing": self._rule.sharing.value,
            "max_tokens": self._limit,
        }

    def _prepare(self, inputs: Any, parameters: dict[str, Any]) -> Prepared:
        tokenizer = self._pipe.tokenizer
        words = bool(parameters.get("is_split_into_words"))
        check_inputs(self._task, inputs, words=words, chats=bool(getattr(tokenizer, "chat_template", None)))
        stages = self._threads.stages
        check_stride(parameters.get("stride"), self._chunk_tokens)
        plan = self._plan(stages, inputs, parameters)
        items: list[Item] = []
        counts: list[int] = []
        for chunks in self._preprocess(stages, plan):
            items.extend(self._item(stages, plan, chunk) for chunk in chunks)
            counts.append(len(chunks))
            if len(items) > MAX_ITEMS:
                raise InvalidInput(f"the job has over {MAX_ITEMS} forward passes: split it into several jobs")
        return Prepared(items, _Notes(plan=plan, inputs=inputs, parameters=parameters, counts=counts))

    def _plan(self, stages: Stages, inputs: Any, parameters: Mapping[str, Any]) -> Plan:
        try:
            return stages.plan(inputs, parameters)
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidParameter(
                f"the pipeline refuses the parameters ({type(error).__name__}):"
                f" {shorten(error, _MAX_COMPLAINT_CHARACTERS)}; change or drop the one it names"
            ) from error

    def _preprocess(self, stages: Stages, plan: Plan) -> Iterator[list[dict[str, Any]]]:
        """What the pipeline makes of each input; what it refuses is the job's own fault."""
        try:
            yield from stages.preprocess(plan)
        except PipelineException as error:
            raise InvalidInput(
                f"there is no mask token in the text: put {self._pipe.tokenizer.mask_token} where the word is missing"
            ) from error
        except (ValueError, TemplateError) as error:
            raise InvalidInput(_complaint(error)) from error
        except BaseException as error:
            # A tokenizer's own errors have no class but `Exception`, and its panics not even that.
            if type(error) is Exception or type(error).__name__ == "PanicException":
                raise InvalidInput(_complaint(error)) from error
            raise

    def _item(self, stages: Stages, plan: Plan, chunk: dict[str, Any]) -> Item:
        length = int(chunk["input_ids"].shape[1])
        if not self._generates:
            if length == 0:
                raise InvalidInput("the text has no tokens for this model: give one with words in it")
            check_tokens(self._task, length, self._limit, self._pipe.tokenizer.model_max_length)
        elif self._limit is not None:
            check_generation(length, self._limit, stages.generation_settings(plan))
        key = group_key(chunk, plan.forward, self._rule)
        return Item(key, max(1, length), Payload(inputs=chunk, length=length, forward=plan.forward))


def _complaint(error: BaseException) -> str:
    complaint = shorten(error, _MAX_COMPLAINT_CHARACTERS)
    return f"the pipeline can't take this job: {complaint}; change its inputs or parameters"
