"""The ``PipelineRunner`` over a real transformers pipeline."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from jinja2 import TemplateError
from transformers.pipelines.base import PipelineException

from pipemill.errors import InvalidInput, InvalidParameter
from pipemill_worker.media import MediaDecoder
from pipemill_worker.pipelines import faults, generating
from pipemill_worker.pipelines.calibration import calibrate
from pipemill_worker.pipelines.canaries import GUESSED, canaries, mixture
from pipemill_worker.pipelines.collate import Payload, collate, cost_of, sent, unbatch, unbatch_one
from pipemill_worker.pipelines.grouping import group_key, sharing_rule
from pipemill_worker.pipelines.inputs import check_inputs, shorten
from pipemill_worker.pipelines.inputs.media import opened
from pipemill_worker.pipelines.layout import Layout
from pipemill_worker.pipelines.limits import (
    Allowance,
    check_answer,
    check_generation,
    check_tokens,
    token_limit,
    untabled_limit,
)
from pipemill_worker.pipelines.loading.compiling import compiles_layers
from pipemill_worker.pipelines.memory import ALL_OF_IT, Share
from pipemill_worker.pipelines.overlaps import check_overlaps
from pipemill_worker.pipelines.packing import can_pack
from pipemill_worker.pipelines.plain import to_plain
from pipemill_worker.pipelines.prepacked import Product, described, prepack
from pipemill_worker.pipelines.rules import TASK_RULES, Sharing
from pipemill_worker.pipelines.seeding import seeded
from pipemill_worker.pipelines.settings import LoadedPipeline, ModelSettings, Validate, has_chat_template
from pipemill_worker.pipelines.staged import Plan, Stages, StagesPerThread
from pipemill_worker.pipelines.underway import Underway, watched
from pipemill_worker.pipelines.warming import SelfCheck, warm_up
from pipemill_worker.pipelines.writing.account import account_of, speller_of
from pipemill_worker.pipelines.writing.draft import READING
from pipemill_worker.pipelines.writing.items import writer_for
from pipemill_worker.policy.calibration import Bounds, Calibration
from pipemill_worker.seams import JOINS, Account, Item, Prepared, Speller

#: Characters of a pipeline's own complaint that reach a job's error.
_MAX_COMPLAINT_CHARACTERS: Final = 300


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Notes:
    """What ``finish`` needs of ``prepare``."""

    plan: Plan
    inputs: Any
    parameters: Mapping[str, Any]
    #: How many outputs each of the plan's inputs has.
    counts: Sequence[int]
    #: Whether all of them come from one item.
    bundled: bool


class TransformersRunner:
    """One loaded pipeline in stages; every answer is the one that the pipeline itself would give.

    ``prepare`` and ``finish`` may run in any number of threads, ``forward`` in one.
    """

    def __init__(  # noqa: PLR0913 - each is a part of the worker's that a runner needs
        self,
        name: str,
        pipe: LoadedPipeline,
        settings: ModelSettings,
        *,
        validate: Validate,
        media: MediaDecoder | None = None,
        share: Share = ALL_OF_IT,
    ) -> None:
        self.task = settings.task
        self.pipe = pipe
        self._name = name
        self._check: SelfCheck | None = None
        self._settings = settings
        self._task_rule = TASK_RULES[self.task]
        self._validate = validate
        self._media = media
        self._rule = sharing_rule(self.task, pipe)
        packs = settings.batch.packing and self._rule.sharing is Sharing.PADDED and can_pack(self.task, pipe)
        packs = packs and (not settings.compile or compiles_layers(pipe.model))
        self._generates = self._task_rule.generates and pipe.model.can_generate()
        self._underway = Underway()
        if self._generates:
            watched(pipe.model, self._underway)
        reads_and_writes = self._generates and pipe.model.config.is_encoder_decoder
        #: The most tokens in a row; ``None`` if the model has no such bound.
        self.token_limit = token_limit(pipe.model, "encoder" if reads_and_writes else "")
        self._answer_limit = token_limit(pipe.model, "decoder") if reads_and_writes else None
        self._untabled_limit = untabled_limit(pipe.model)
        self._tokenizer_limit = getattr(pipe.tokenizer, "model_max_length", 0)
        self._chats = has_chat_template(pipe)
        self._threads = StagesPerThread(pipe, threading.Lock())
        #: Continues prompts together; ``None`` where there are none, or their answers then differ.
        self.writer = writer_for(name, settings, pipe, lambda: self._threads.stages, share)
        products: Mapping[int, Product] = {}  # A compiled model's layers can't be others'.
        if not settings.compile:
            products = prepack(pipe.model, share=share) if self.writer is None else self.writer.products
        #: How passes are laid out.
        self.layout = Layout(pipe.model, settings, products, packs=packs)

    @property
    def sharing(self) -> Sharing:
        """How items share a forward pass."""
        return Sharing.PACKED if self.layout.packs else self._rule.sharing

    def prepare(self, inputs: Any, parameters: Mapping[str, Any]) -> Prepared:
        """Validate and preprocess one job. Called from several threads at once."""
        merged = self._validate(self.task, {**self._settings.parameters, **parameters})
        seed = merged.pop("seed", None)
        decoded = inputs if self._media is None else self._media.decode(inputs)
        words = bool(merged.get("is_split_into_words"))
        check_inputs(self.task, decoded, words=words, chats=self._chats)
        return self.prepare_checked(opened(decoded) if self.task == "any-to-any" else decoded, merged, seed)

    def prepare_checked(self, inputs: Any, parameters: dict[str, Any], seed: int | None = None) -> Prepared:
        """Preprocess inputs and parameters that need no check: a job's after it, or the worker's own."""
        stages = self._threads.stages
        check_overlaps(self.task, self.pipe.tokenizer, inputs, parameters)
        plan = self._plan(stages, inputs, parameters)
        items: list[Item] = []
        counts: list[int] = []
        for each in self._items(stages, plan):
            before = len(items)
            items.extend(each)
            counts.append(len(items) - before)
        if seed is not None:  # One row of random numbers goes through all of them.
            bundle = tuple(item.payload for item in items)
            payload = Payload(inputs={}, length=0, forward={}, seed=seed, loads=plan.loads, bundle=bundle)
            joins = len(items) == 1 and items[0].group == JOINS
            items = [Item(JOINS if joins else None, max(item.cost for item in items), payload)]
        notes = _Notes(plan=plan, inputs=inputs, parameters=parameters, counts=counts, bundled=seed is not None)
        return Prepared(items, notes)

    def forward(self, items: Sequence[Item]) -> Sequence[Any]:
        """Run one forward pass over items with equal group keys; one output per item, in order."""
        payloads: list[Payload] = [item.payload for item in items]
        if self.writer is not None and len(items) > 1 and items[0].group == JOINS:
            return self.writer.write_all(items)
        # Speech is cut into windows of its own, and those that are done leave the batch.
        with self._underway.holding(items, by_row=self.task != "automatic-speech-recognition"):
            if bundle := payloads[0].bundle:  # It runs alone.
                with seeded(payloads[0], self.pipe.device):
                    return [[self._forward([each])[0] for each in bundle]]
            return self._forward(payloads)

    def _forward(self, payloads: Sequence[Payload]) -> Sequence[Any]:
        stages = self._threads.stages
        self._underway.step()
        if (raw := payloads[0].raw) is not None:  # It runs alone.
            chunks = map(self._underway.passed, stages.preprocess_one(*raw))
            return [[stages.forward(chunk, payloads[0].forward) for chunk in chunks]]
        outputs = stages.forward(sent(collate(payloads, self._rule), self.pipe.device), payloads[0].forward)
        rule = self._task_rule
        if rule.only is not None:
            return unbatch_one(outputs, payloads, rule.only, per_token=rule.per_token)
        if rule.sharing is Sharing.SOLO:  # One item, whose outputs may nest as they like.
            return [outputs]
        rows = unbatch(outputs, payloads, self._rule)
        for name, renamed in rule.renamed:
            for row, payload in zip(rows, payloads, strict=True):
                row[renamed] = payload.inputs[name]
        if self._generates and len(rows) > 1:
            decodes = self.pipe.model.config.is_encoder_decoder
            starts = [1 if decodes else payload.length for payload in payloads]
            generating.trim_answers(rows, starts, stages.generation_settings(payloads[0].forward))
        return rows

    def finish(self, prepared: Prepared, outputs: Sequence[Any]) -> Any:
        """Postprocess one job's outputs into the pipeline's own answer, as plain Python with arrays and images."""
        notes: _Notes = prepared.state
        remaining = iter(outputs[0] if notes.bundled else outputs)
        grouped = [[next(remaining) for _ in range(count)] for count in notes.counts]
        if self._task_rule.whole:
            grouped = [chunks for one in grouped for chunks in one]
        return to_plain(self._threads.stages.answer(notes.plan, notes.inputs, notes.parameters, grouped))

    def account(self, prepared: Prepared, outputs: Sequence[Any], *, followed: bool) -> Account:
        """What can be told of how one job's outputs were written; its text only if that is ``followed``."""
        notes: _Notes = prepared.state
        if not self._generates or (self.pipe.model.config.is_encoder_decoder and self.task not in READING):
            return Account()
        flat = outputs[0] if notes.bundled else outputs
        lengths = [part.length for item in prepared.items for part in item.payload.parts]
        written = list(zip(lengths, flat, strict=True))
        return account_of(self.task, self._threads.stages, notes.plan, written, followed=followed)

    def spelling(self, prepared: Prepared) -> Speller | None:
        """What spells the text of a job's lone item while it is written; None if only the whole text can be told."""
        return speller_of(self.task, self.pipe.tokenizer, prepared.state.plan)

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether this error of ``forward`` means that a smaller batch could succeed."""
        return faults.is_out_of_memory(error)

    def is_device_lost(self, error: BaseException) -> bool:
        """Whether this error of ``forward`` means that the device is unusable until the process restarts."""
        return faults.is_device_lost(error)

    def is_transient(self, error: BaseException) -> bool:
        """Whether this error may pass by itself, though the device goes on."""
        return faults.is_transient(error)

    @property
    def settled(self) -> bool:
        """Whether the queue has chosen how its items share passes, whatever that makes of answers."""
        return self._settings.engine != "exact"

    def share_less(self) -> None:
        """From now on, items share by the next stricter way: packed, padded, equal shapes, not at all.

        Called before the first job is prepared.
        """
        if self.writer is not None:
            self.writer = None
        elif self.layout.packs:
            self.layout.pad()
        else:
            self._rule = self._rule.narrowed()

    @property
    def multiplies(self) -> bool:
        """Whether other products than torch's are to be tried: what writes is, together, unless that is by others."""
        return bool(self.layout.products) and (self.writer is None or self.writer.is_beside)

    def multiply_plainly(self) -> None:
        """From now on, torch multiplies. Called before the first job is prepared."""
        self.layout.multiply_plainly()
        if self.writer is not None:
            self.writer.multiply_plainly()

    def warm_up(self) -> None:
        """Run jobs of several lengths through all stages, alone and together; share less if the answers differ.

        Raises
        ------
        ModelLoadError
            When the model loaded but can't run.

        """
        jobs = canaries(self.task, self.pipe, self.token_limit)
        tolerance = self._settings.batch.tolerance
        self._check = warm_up(self._name, self._settings.model, self, jobs, tolerance, guessed=self.task in GUESSED)

    def calibrate(self, bounds: Bounds) -> Calibration | None:
        """Measure passes of growing size; ``None`` where a pass's time is not told by the size of its items.

        That is so where they share none, and where the model writes: then the answers' lengths tell.
        """
        if self._task_rule.generates or self.sharing is Sharing.SOLO:
            return None
        alone = self.pipe.device.type == "cpu" and torch.get_num_threads() == 1
        clock = time.thread_time if alone else time.perf_counter  # What else the machine does then doesn't count.
        return calibrate(self, mixture(self.task, self.pipe, self.token_limit), bounds, clock)

    def adopt(self, calibration: Calibration) -> None:
        """Share as a calibration says. Called before the first job is prepared."""
        if self.sharing is Sharing.PACKED and calibration.sharing == Sharing.PADDED.value:
            self.share_less()

    def describe(self) -> dict[str, Any]:
        """Facts for people: task, model, revision, device, dtype; how items share; the most tokens in a row."""
        model = self.pipe.model
        return {
            "task": self.task,
            "model": self._settings.model,
            "revision": getattr(model.config, "_commit_hash", None) or self._settings.revision,
            "device": str(self.pipe.device),
            "dtype": str(model.dtype).removeprefix("torch."),
            "architecture": type(model).__name__,
            "sharing": self.sharing.value,
            "writes_together": self.writer is not None,
            "engine": self._settings.engine,
            "max_tokens": self.token_limit,
            "products": described(self.layout.products),
            "self_check": None if self._check is None else self._check.describe(),
        }

    def _plan(self, stages: Stages, inputs: Any, parameters: Mapping[str, Any]) -> Plan:
        try:
            return stages.plan(inputs, parameters)
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidParameter(
                f"the pipeline refuses the parameters ({type(error).__name__}):"
                f" {shorten(error, _MAX_COMPLAINT_CHARACTERS)}; change or drop the one it names"
            ) from error

    def _items(self, stages: Stages, plan: Plan) -> Iterator[list[Item]]:
        """The items of each input; what the pipeline refuses is the job's own fault."""
        if self._task_rule.whole:
            for inputs in plan.inputs:
                payload = Payload(inputs={}, length=0, forward=plan.forward, raw=(inputs, plan.preprocess))
                yield [Item(None, 1, payload)]
            return
        left = Allowance()
        try:
            for chunks in stages.preprocess(plan):
                yield [self._item(stages, plan, left.after(chunk)) for chunk in chunks]
        except PipelineException as error:
            raise InvalidInput(
                f"there is no mask token in the text: put {self.pipe.tokenizer.mask_token} where the word is missing"
            ) from error
        except (ValueError, TemplateError) as error:
            raise InvalidInput(_complaint(error)) from error
        except BaseException as error:
            # A tokenizer's own errors have no class but `Exception`, and its panics not even that.
            if type(error) is Exception or type(error).__name__ == "PanicException":
                raise InvalidInput(_complaint(error)) from error
            raise

    def _item(self, stages: Stages, plan: Plan, chunk: dict[str, Any]) -> Item:
        ids = chunk.get("input_ids")
        length = int(ids.shape[1]) if isinstance(ids, torch.Tensor) else 0
        alone = False
        if self._generates:
            settings = stages.generation_settings(plan.forward)
            alone = not generating.may_share(settings) or not generating.fits_batches(
                self.pipe.feature_extractor, chunk, plan
            )
            self._check_writing(length, settings)
        elif isinstance(ids, torch.Tensor):
            if length == 0:
                raise InvalidInput("the text has no tokens for this model: give one with words in it")
            self._check_length(length)
        prompt = chunk.get("decoder_input_ids")
        if isinstance(prompt, torch.Tensor):  # Donut writes, and nests what it thought.
            self._check_length(int(prompt.shape[1]))
            alone = True
        self._check_parts(chunk)
        key = None if alone else group_key(chunk, plan.forward, self._rule)
        # For the times of words, Whisper's generate changes how the model attends.
        changes = plan.forward.get("return_timestamps") == "word"
        if self.writer is not None and not changes and self.writer.takes(chunk, plan.forward):
            key = JOINS
        return Item(key, cost_of(chunk, length), Payload(inputs=chunk, length=length, forward=plan.forward))

    def _check_writing(self, length: int, settings: Mapping[str, Any]) -> None:
        if length == 0:
            return
        self._check_length(length)
        if self.pipe.model.config.is_encoder_decoder:
            check_answer(self._answer_limit, settings)
        else:
            check_generation(length, self.token_limit, settings)

    def _check_length(self, length: int) -> None:
        limit = self._untabled_limit if self.token_limit is None else self.token_limit
        check_tokens(self.task, length, limit, self._tokenizer_limit)

    def _check_parts(self, chunk: Mapping[str, Any]) -> None:
        """Labels are tokenized apart from what they are judged on, and a decision's prompts one by one."""
        for texts in [*(chunk.get("text_inputs") or ()), *(inputs for inputs, _ in chunk.get("prompts") or ())]:
            if isinstance(texts, Mapping) and isinstance(texts.get("input_ids"), torch.Tensor):
                self._check_length(int(texts["input_ids"].shape[1]))


def _complaint(error: BaseException) -> str:
    complaint = shorten(error, _MAX_COMPLAINT_CHARACTERS)
    return f"the pipeline can't take this job: {complaint}; change its inputs or parameters"
