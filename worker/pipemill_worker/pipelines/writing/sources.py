"""Encoder-decoders: an encoder reads a source once, a decoder writes on, looking at what was read at every step."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch
from transformers.cache_utils import Cache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from pipemill_worker.pipelines.grouping import PADDABLE_WRITERS
from pipemill_worker.pipelines.writing.draft import Draft, Source
from pipemill_worker.pipelines.writing.places import Places
from pipemill_worker.pipelines.writing.prompt import AnyPrompt
from pipemill_worker.pipelines.writing.reading import READ_AT_ONCE, padded, read_together
from pipemill_worker.pipelines.writing.sharing import Groups, grouped
from pipemill_worker.pipelines.writing.slab import Read, Room, Slab, part_of

#: Inputs of an encoder that reads a text; what else it is given are settings, or it reads something else.
_TEXT: Final = ("attention_mask", "input_ids")


class SourceSlab:
    """Rows as in ``Slab``, and the keys and values of their sources: one for all rows of a prompt, or one each."""

    def __init__(self, max_tokens: int, places: Places) -> None:
        room = Room(max_tokens)
        self._own, self._sources, self._places = Slab(room), Slab(room), places
        #: The source of each row, by its number in its slab.
        self._of: list[int] = []

    @property
    def rows(self) -> int:
        """Rows in use."""
        return self._own.rows

    @property
    def kept_bytes(self) -> int:
        """What keys and values take."""
        return self._own.kept_bytes + self._sources.kept_bytes

    def tokens(self, drafts: Sequence[Draft]) -> int:
        """The most that prompts may take together, each row as long as the longest."""
        rows = sum(each.rows for each in drafts)
        sources = len(drafts) if self._places.shared else rows
        longest = max(each.source_tokens for each in drafts) + 1
        return rows * max(each.most_tokens for each in drafts) + sources * longest

    def add(self, cache: Any, row: int = 0, beside: int | None = None) -> int:
        """Copy one row of a prompt's own cache into the next free row; which that is.

        ``beside`` is a row with the same source.
        """
        if beside is None or not self._places.shared:
            self._of.append(self._sources.add(cache.cross_attention_cache, row))
        else:
            self._of.append(self._of[beside])
        return self._own.add(cache.self_attention_cache, row)

    def drop(self, place: int) -> int:
        """Free a row, as ``Slab.drop``."""
        source, last = self._of[place], self._of.pop()
        if place != len(self._of):
            self._of[place] = last
        if source not in self._of:
            moved = self._sources.drop(source)
            self._of = [source if each == moved else each for each in self._of]
        return self._own.drop(place)

    def copy(self, place: int, into: int, start: int) -> None:
        """Make a row what another one with the same source is, from some token on."""
        self._own.copy(place, into, start)

    def inputs(self, tokens: list[int]) -> dict[str, Any]:
        """What the model is given for one more token in each row."""
        own, lengths = self._own.inputs(tokens), self._sources.lengths
        longest, device = max(lengths), own["input_ids"].device
        layers: list[Any] = [
            Read(each.keys[: len(lengths), :, :longest], each.values[: len(lengths), :, :longest])
            for each in self._sources.cache.layers
        ]
        like, mask = layers[0].keys, None
        if min(lengths) < longest:
            mask = torch.arange(longest, device=device) < torch.tensor(lengths, device=device)[:, None]
            mask = _added(mask[:, None, None], like)
        # Only its shape is looked at: all that is made of it is in the cache.
        encoded = like.new_empty(1).expand(self.rows, longest, 1)
        return {
            "decoder_input_ids": own["input_ids"],
            "decoder_attention_mask": _added(own["attention_mask"], like),
            "encoder_outputs": BaseModelOutput(last_hidden_state=encoded),
            "attention_mask": mask,
            "past_key_values": EncoderDecoderCache(own["past_key_values"], Cache(layers=layers)),
        }

    @contextmanager
    def placed(self, tokens: list[int], inputs: Mapping[str, Any]) -> Iterator[None]:
        """Meanwhile a pass may read these inputs, each row at its own place and looking at its own source."""
        groups = None
        if self._of != list(range(self.rows)):
            groups = Groups(self._of, [each.keys for each in inputs["past_key_values"].cross_attention_cache.layers])
        with self._places.at(self._own.lengths, tokens), grouped(groups):
            yield

    def step(self) -> None:
        """Each row has one token more."""
        self._own.step()


def _added(mask: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor | None:
    """A mask as what is added to scores, which every kind of attention takes."""
    if mask is None:
        return None
    return like.new_zeros(()).expand(mask.shape).masked_fill(~mask, torch.finfo(like.dtype).min)


class SourceReader:
    """Reads sources, and the few tokens that decoders begin with. Used by one thread."""

    def __init__(self, model: Any) -> None:
        self._model, self._encoder = model, model.get_encoder()
        self._pads = model.config.model_type in PADDABLE_WRITERS
        #: What isn't read.
        self.waiting: list[AnyPrompt] = []

    @property
    def kept_bytes(self) -> int:
        """Nothing is kept of a prompt before it is read, which takes one pass."""
        return 0

    def leave(self, keys: Collection[Hashable]) -> None:
        """Don't read these."""
        self.waiting = [each for each in self.waiting if each.key not in keys]

    def read(self, written: Sequence[AnyPrompt]) -> tuple[list[AnyPrompt], list[torch.Tensor]]:  # noqa: ARG002 - as other readers
        """Read as much as fits between two steps, or one source that doesn't; those read, and each row's logits."""
        read: list[AnyPrompt] = []
        logits: list[torch.Tensor] = []
        left = READ_AT_ONCE
        while self.waiting and left > 0:
            prompts = self._next(left)
            left -= len(prompts) * max(each.draft.source_tokens for each in prompts)
            logits += self._pass(prompts)
            read += prompts
            self.waiting = [each for each in self.waiting if each not in prompts]
        return read, [each.expand(prompt.rows, -1) for prompt, each in zip(read, logits, strict=True)]

    def _next(self, most: int) -> list[AnyPrompt]:
        """The prompts that are read next: texts of like lengths, whose decoders begin with equally many tokens."""
        begun = self.waiting[0].draft.ids.shape[1]
        lengths = [
            each.draft.source_tokens if self._pads and _is_text(each) and each.draft.ids.shape[1] == begun else None
            for each in self.waiting
        ]
        return [self.waiting[index] for index in read_together(lengths, most)]

    def _pass(self, prompts: Sequence[AnyPrompt]) -> list[torch.Tensor]:
        first, ids = prompts[0].draft, torch.cat([each.draft.ids[:1] for each in prompts])
        source = dict(_source(prompts[0]))
        if len(prompts) > 1:
            source |= {name: padded([_source(each)[name][0] for each in prompts]) for name in _TEXT}
        cache = first.model_kwargs["past_key_values"]
        outputs = self._model(
            encoder_outputs=self._encoder(**source) if first.encoded is None else first.encoded,
            attention_mask=source.get("attention_mask"),
            decoder_input_ids=ids,
            past_key_values=cache,
            use_cache=True,
            return_dict=True,
        )
        for row, prompt in enumerate(prompts):
            prompt.read = ids.shape[1]
            prompt.cache = EncoderDecoderCache(
                part_of(cache.self_attention_cache, row, prompt.read),
                part_of(cache.cross_attention_cache, row, prompt.draft.source_tokens),
            )
        return list(outputs.logits[:, -1].split(1))


def _source(prompt: AnyPrompt) -> Source:
    return prompt.draft.source or Source()


def _is_text(prompt: AnyPrompt) -> bool:
    """Whether the source is nothing but tokens."""
    tensors = sorted(name for name, value in _source(prompt).items() if isinstance(value, torch.Tensor))
    return tuple(tensors) == _TEXT
