"""Items of a generating pipeline, continued together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from pipemill.errors import InvalidInput
from pipemill_worker.pipelines.collate import Payload
from pipemill_worker.pipelines.loading.refusal import Refusal, load_error
from pipemill_worker.pipelines.memory import ALL_OF_IT, Share
from pipemill_worker.pipelines.prepacked import prepack, restore
from pipemill_worker.pipelines.settings import LoadedPipeline, ModelSettings
from pipemill_worker.pipelines.staged import Stages
from pipemill_worker.pipelines.writing.draft import Draft, continues
from pipemill_worker.pipelines.writing.drafting import Past
from pipemill_worker.pipelines.writing.engines.continuous import Continuous
from pipemill_worker.pipelines.writing.engines.routed import Routed
from pipemill_worker.pipelines.writing.engines.rows import RowEngine
from pipemill_worker.pipelines.writing.engines.vllm_engine import open_vllm
from pipemill_worker.pipelines.writing.lean import lean
from pipemill_worker.pipelines.writing.places import Places
from pipemill_worker.pipelines.writing.proof import proven_places
from pipemill_worker.pipelines.writing.writer import Writer
from pipemill_worker.seams import Item


class Writes(Protocol):
    """What continues drafts together: ``Writer``, or another engine beside it."""

    #: Prompts of one row whose tokens are told as they are written.
    followed: set[Hashable]
    #: And what the last step wrote there.
    told: list[tuple[Hashable, int]]

    @property
    def busy(self) -> bool:
        """Whether there is anything to write."""
        ...

    def can_ever(self, draft: Draft, copies: int = 1) -> bool:
        """Whether so many of a prompt fit at all."""
        ...

    def has_room(self, draft: Draft) -> bool:
        """Whether a prompt can join now."""
        ...

    def join(self, key: Hashable, draft: Draft, generator: torch.Generator | None = None) -> None:
        """Let a prompt take part from the next step on."""
        ...

    def leave(self, keys: Collection[Hashable]) -> None:
        """Stop writing these."""
        ...

    def step(self) -> list[tuple[Hashable, torch.Tensor]]:
        """One token more in each row; the prompts that have ended with it, and their tokens: [rows, tokens] each."""
        ...


@dataclass(slots=True, eq=False)
class _Course:
    """An item that is written."""

    item: Item
    generator: torch.Generator | None
    past: Past = field(default_factory=Past)


class PipelineWriter:
    """An ``ItemWriter`` over one pipeline's model, and over another engine that has it as well."""

    def __init__(  # noqa: PLR0913 - its bounds, and what writes besides the model
        self,
        model: Any,
        stages: Callable[[], Stages],
        *,
        max_rows: int,
        max_tokens: int,
        engine: RowEngine | None = None,
        places: Places | None = None,
        share: Share = ALL_OF_IT,
    ) -> None:
        self._model, self._engine, self._places = model, engine, places
        #: What multiplies, by layer.
        self.products = prepack(model, writes=True, share=share)
        self._lean = None if places else lean(model, self.products)
        #: The calling thread's own.
        self._stages = stages
        self._max_rows, self._max_tokens = max_rows, max_tokens
        self._writer = self._new()
        self._courses: dict[Hashable, _Course] = {}
        #: The item that last found no room, and its draft: it is offered again at every step.
        self._waiting: tuple[_Course, Draft] | None = None
        #: Items that have written a part, and what they go on with as soon as there is room.
        self._going_on: list[tuple[_Course, Draft]] = []
        #: Whether the model listened for a language since the last step: once, so that all others get on.
        self._listened = False
        #: The followers of items with one row, and the token that each item was given by the last step.
        self.told: Sequence[tuple[Any, int]] = ()

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        return self._writer.busy or bool(self._going_on)

    @property
    def is_beside(self) -> bool:
        """Whether another engine writes what it knows: then what this one writes together isn't what one sees first."""
        return self._engine is not None

    def multiply_plainly(self) -> None:
        """From now on, torch multiplies. Called before the first item is offered."""
        restore(self._model)
        self.products, self._lean = {}, None
        self._writer = self._new()

    def takes(self, model_inputs: Mapping[str, Any], forward: Mapping[str, Any]) -> bool:
        """Whether a prompt can be continued beside others. Called from any thread.

        Raises
        ------
        InvalidInput
            When its keys and values would never fit.

        """
        draft = self._stages().draft(model_inputs, forward)
        if draft is None or not draft.may_join():
            return False
        if draft.source is not None or draft.beams > 1:
            return self._writer.can_ever(draft, 2)  # Else a batch of its own kind is better.
        if not self._writer.can_ever(draft):
            most = max(self._max_tokens, 0 if self._engine is None else self._engine.max_tokens)
            raise InvalidInput(
                f"{draft.rows} answers of up to {draft.most_tokens} tokens, the prompt's included, don't fit into the"
                f" {most} tokens that are kept: ask for fewer, or lower max_new_tokens"
            )
        return True

    def offer(self, item: Item) -> bool:
        """Let an item take part from the next step on; False when there is no room for it now."""
        if self._listened or self._going_on:  # Who has begun goes on first.
            return False
        waiting = self._waiting
        course, draft = waiting if waiting is not None and waiting[0].item is item else self._begun(item)
        self._waiting = None if self._writer.has_room(draft) else (course, draft)
        if self._waiting:
            return False
        if item.follower is not None and draft.rows == 1:
            self._writer.followed.add(id(item))
        self._join(course, draft)
        return True

    def step(self) -> Sequence[tuple[Item, Any]]:
        """Go one token further in every item; those that have ended with it, and their outputs."""
        self._listened = False
        waiting, self._going_on = self._going_on, []
        for course, draft in waiting:
            if self._writer.has_room(draft):
                self._join(course, draft)
            else:
                self._going_on.append((course, draft))
        ended = self._writer.step()
        self.told = [(self._courses[key].item.follower, token) for key, token in self._writer.told]
        self._writer.followed.difference_update(key for key, _ in ended)
        outputs: list[tuple[Item, Any]] = []
        for key, ids in ended:
            outputs += self._written(self._courses.pop(key), ids)
        return outputs

    def leave(self, items: Collection[Item]) -> None:
        """Stop writing these."""
        keys = {id(item) for item in items}
        self._writer.leave(keys)
        self._writer.followed -= keys
        self._going_on = [each for each in self._going_on if id(each[0].item) not in keys]
        for key in keys:
            self._courses.pop(key, None)

    def clear(self) -> None:
        """Forget all items, after a step that failed."""
        self._writer = self._new()
        self._courses.clear()
        self._going_on.clear()
        self._waiting = None
        self.told = ()

    def write_all(self, items: Sequence[Item]) -> list[Any]:
        """The outputs of items that are written from beginning to end, as many together as fit."""
        waiting, outputs = list(items), dict[int, Any]()
        while waiting or self.busy:
            while waiting and self.offer(waiting[0]):
                del waiting[0]
            outputs.update((id(item), output) for item, output in self.step())
        return [outputs[id(item)] for item in items]

    def _new(self) -> Writes:
        bounds = {"max_rows": self._max_rows, "max_tokens": self._max_tokens}
        ours = Writer(self._model, **bounds, lean=self._lean, places=self._places)
        if self._engine is None:
            return ours
        vocabulary = self._model.get_input_embeddings().num_embeddings
        return Routed(self._engine, ours, max_rows=self._max_rows, vocabulary=vocabulary)

    def _begun(self, item: Item) -> tuple[_Course, Draft]:
        payload, past = item.payload.parts[0], Past()
        draft = self._stages().draft(payload.inputs, payload.forward, past)
        if draft is None:
            raise RuntimeError("a prompt that could join can't any more: use the transformers version pinned")
        self._listened = past.languages is not None
        return _Course(item, _generator(item.payload, draft), past), draft

    def _join(self, course: _Course, draft: Draft) -> None:
        key = id(course.item)
        self._courses[key] = course
        self._writer.join(key, draft, course.generator)

    def _written(self, course: _Course, ids: torch.Tensor) -> list[tuple[Item, Any]]:
        """An item and its outputs, when a loop has written these; nothing if there is more to write."""
        item, payload = course.item, course.item.payload.parts[0]
        course.past.written.append(ids)
        outputs = self._stages().written(payload.inputs, payload.forward, course.past)
        if isinstance(outputs, Draft):
            if outputs.may_join() and self._writer.can_ever(outputs):
                self._going_on.append((course, outputs))
                return []
            raise RuntimeError("a prompt can't go on beside others: it is written alone, from the beginning")
        return [(item, [outputs] if item.payload.bundle else outputs)]


def writer_for(
    queue: str, settings: ModelSettings, pipe: LoadedPipeline, stages: Callable[[], Stages], share: Share
) -> PipelineWriter | None:
    """Within a queue's bounds of rows and memory; ``None`` for models that don't continue texts token by token.

    Raises
    ------
    ModelLoadError
        When the queue's own choice of an engine can't be had.

    """
    model, batch = pipe.model, settings.batch
    can = continues(settings.task, model.config) and model.can_generate() and not settings.compile
    if settings.engine != "exact" and (not can or model.config.is_encoder_decoder):
        refusal = Refusal(f"engine {settings.engine} is for models that write on from a prompt", "remove engine")
        raise load_error(queue, settings, refusal)
    if not can:
        return None
    if model.config.is_encoder_decoder:
        found = proven_places(model)
        if found is None:
            return None
        places, token_bytes = found
        max_tokens = batch.cache_bytes // token_bytes
        return PipelineWriter(
            model, stages, max_rows=batch.max_items, max_tokens=max_tokens, places=places, share=share
        )
    max_bytes = batch.cache_bytes if settings.engine == "exact" else batch.cache_bytes // 2
    max_rows, max_tokens = batch.max_items, max_bytes // bytes_per_token(model)
    engine: RowEngine | None = None
    if settings.engine == "continuous":
        engine = Continuous(model, max_rows=max_rows, max_tokens=max_tokens)
    elif settings.engine == "vllm":
        try:
            engine = open_vllm(settings, model, max_rows=max_rows, cache_bytes=max_bytes, max_tokens=max_tokens)
        except Refusal as refusal:
            raise load_error(queue, settings, refusal) from refusal.__cause__
    return PipelineWriter(model, stages, max_rows=max_rows, max_tokens=max_tokens, engine=engine, share=share)


def bytes_per_token(model: Any) -> int:
    """Bytes of one token's keys and values in all layers of a model."""
    config = model.config.get_text_config(decoder=True)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * size * model.dtype.itemsize)


def _generator(payload: Payload, draft: Draft) -> torch.Generator | None:
    """Where a seeded item's chance comes from: as after ``torch.manual_seed`` and the direct call."""
    if payload.seed is None:
        return None
    generator = torch.Generator(draft.ids.device).manual_seed(payload.seed)
    if payload.loads:  # A direct call's data loader draws a seed for workers that it doesn't have.
        torch.empty((), dtype=torch.int64).random_(generator=generator)
    return generator
