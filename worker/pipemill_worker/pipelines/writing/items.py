"""Items of a generating pipeline, continued together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import Any

import torch

from pipemill.errors import InvalidInput
from pipemill_worker.pipelines.collate import Payload
from pipemill_worker.pipelines.settings import Tolerant
from pipemill_worker.pipelines.staged import Stages
from pipemill_worker.pipelines.writing.draft import Draft
from pipemill_worker.pipelines.writing.lean import lean
from pipemill_worker.pipelines.writing.prepacked import prepack
from pipemill_worker.pipelines.writing.writer import Writer
from pipemill_worker.seams import Item


class PipelineWriter:
    """An ``ItemWriter`` over one pipeline's model."""

    def __init__(self, model: Any, stages: Callable[[], Stages], *, max_rows: int, max_tokens: int) -> None:
        self._model = model
        self._lean = lean(model, prepack(model))
        #: The calling thread's own.
        self._stages = stages
        self._max_rows, self._max_tokens = max_rows, max_tokens
        self._writer = self._new()
        self._items: dict[Hashable, Item] = {}
        #: The item that last found no room, and its draft: it is offered again at every step.
        self._waiting: tuple[Item, Draft] | None = None
        #: The followers of items with one row, and the token that each item was given by the last step.
        self.told: Sequence[tuple[Any, int]] = ()

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        return self._writer.busy

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
        if not self._writer.can_ever(draft):
            rows = draft.ids.shape[0]
            raise InvalidInput(
                f"{rows} answers of up to {draft.most_tokens} tokens, the prompt's included, don't fit into the"
                f" {self._max_tokens} tokens that are kept: ask for fewer, or lower max_new_tokens"
            )
        return True

    def offer(self, item: Item) -> bool:
        """Let an item take part from the next step on; False when there is no room for it now."""
        waiting = self._waiting
        draft = waiting[1] if waiting is not None and waiting[0] is item else self._draft(item)
        self._waiting = None if self._writer.has_room(draft) else (item, draft)
        if self._waiting:
            return False
        self._items[id(item)] = item
        if item.follower is not None and draft.ids.shape[0] == 1:
            self._writer.followed.add(id(item))
        self._writer.join(id(item), draft, _generator(item.payload, draft))
        return True

    def step(self) -> Sequence[tuple[Item, Any]]:
        """Go one token further in every item; those that have ended with it, and their outputs."""
        ended = self._writer.step()
        self.told = [(self._items[key].follower, token) for key, token in self._writer.told]
        self._writer.followed.difference_update(key for key, _ in ended)
        return [self._finished(self._items.pop(key), ids) for key, ids in ended]

    def leave(self, items: Collection[Item]) -> None:
        """Stop writing these."""
        keys = {id(item) for item in items}
        self._writer.leave(keys)
        self._writer.followed -= keys
        for key in keys:
            self._items.pop(key, None)

    def clear(self) -> None:
        """Forget all items, after a step that failed."""
        self._writer = self._new()
        self._items.clear()
        self.told = ()

    def write_all(self, items: Sequence[Item]) -> list[Any]:
        """The outputs of items that are written from beginning to end, as many together as fit."""
        waiting, outputs = list(items), dict[int, Any]()
        while waiting or self.busy:
            while waiting and self.offer(waiting[0]):
                del waiting[0]
            outputs.update((id(item), output) for item, output in self.step())
        return [outputs[id(item)] for item in items]

    def _new(self) -> Writer:
        return Writer(self._model, max_rows=self._max_rows, max_tokens=self._max_tokens, lean=self._lean)

    def _draft(self, item: Item) -> Draft:
        payload = _only(item.payload)
        draft = self._stages().draft(payload.inputs, payload.forward)
        if draft is None:
            raise RuntimeError("a prompt that could join can't any more: use the transformers version pinned")
        return draft

    def _finished(self, item: Item, ids: torch.Tensor) -> tuple[Item, Any]:
        payload = _only(item.payload)
        outputs = self._stages().written(payload.inputs, payload.forward, ids)
        return item, [outputs] if item.payload.bundle else outputs


def writer_for(model: Any, stages: Callable[[], Stages], batch: Tolerant) -> PipelineWriter:
    """Within a queue's bounds of rows and memory."""
    return PipelineWriter(
        model, stages, max_rows=batch.max_items, max_tokens=batch.cache_bytes // bytes_per_token(model)
    )


def bytes_per_token(model: Any) -> int:
    """Bytes of one token's keys and values in all layers of a model."""
    config = model.config.get_text_config(decoder=True)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * size * model.dtype.itemsize)


def _only(payload: Payload) -> Payload:
    """A seeded item holds its payload in a bundle."""
    return payload.bundle[0] if payload.bundle else payload


def _generator(payload: Payload, draft: Draft) -> torch.Generator | None:
    """Where a seeded item's chance comes from: as after ``torch.manual_seed`` and the direct call."""
    if payload.seed is None:
        return None
    generator = torch.Generator(draft.ids.device).manual_seed(payload.seed)
    if payload.loads:  # A direct call's data loader draws a seed for workers that it doesn't have.
        torch.empty((), dtype=torch.int64).random_(generator=generator)
    return generator
