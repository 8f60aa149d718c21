"""Prompts are read: a model's first pass over each, as much of it as fits between two steps of what is written."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch

from pipemill_worker.pipelines.writing.lean import Lean
from pipemill_worker.pipelines.writing.prompt import AnyPrompt
from pipemill_worker.pipelines.writing.slab import Slab, part_of

#: Tokens of prompts read between two steps, padding included: texts that are being written never stall for long.
READ_AT_ONCE: Final = 256
#: Most tokens computed per token given when prompts are read together.
PADDED: Final = 1.5
#: Fewest tokens that a prompt must have in common with another for them to be copied instead of read.
COMMON: Final = 16


def in_common(one: torch.Tensor, other: torch.Tensor) -> int:
    """How many tokens two texts have in common at their beginnings."""
    length = min(len(one), len(other))
    return int((one[:length] == other[:length]).cumprod(0).sum())


def read_together(lengths: Sequence[int | None], most: int) -> list[int]:
    """Which prompts, by their tokens, are read with the first one; ``None`` is one that is read by itself.

    Those with the nearest lengths, while all are, padded, within ``most`` and little more than theirs.
    """
    length = lengths[0]
    if length is None or length > most:
        return [0]
    others = [(index, own) for index, own in enumerate(lengths) if index and own is not None]
    chosen, longest, total = [0], length, length
    for index, own in sorted(others, key=lambda other: abs(other[1] - length)):
        padded = (len(chosen) + 1) * max(longest, own)
        if padded <= most and padded <= PADDED * (total + own):
            chosen.append(index)
            longest, total = max(longest, own), total + own
    return chosen


def read_end_to_end(lengths: Sequence[int | None], most: int) -> list[int]:
    """Which prompts, by their tokens as for ``read_together``, are read with the first one, in their order."""
    first = lengths[0]
    if first is None:
        return [0]
    chosen, left = [0], most - first
    for index, own in enumerate(lengths[1:], 1):
        if own is not None and own <= left:
            chosen.append(index)
            left -= own
    return chosen


class Reader:
    """Reads prompts of models that have a decoder only. Used by one thread."""

    def __init__(self, model: Any, slab: Slab, lean: Lean | None) -> None:
        self._model, self._slab, self._lean = model, slab, lean
        self._head = model.get_output_embeddings()
        #: What isn't read to its end.
        self.waiting: list[AnyPrompt] = []

    @property
    def kept_bytes(self) -> int:
        """What keys and values of prompts take that aren't read to their end."""
        caches = {id(each.cache): each.cache for each in self.waiting}.values()
        layers = [layer for cache in caches for layer in cache.layers if layer.is_initialized]
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)

    def leave(self, keys: Collection[Hashable]) -> None:
        """Stop reading these."""
        self.waiting = [each for each in self.waiting if each.key not in keys]

    def read(self, written: Sequence[AnyPrompt]) -> tuple[list[AnyPrompt], list[torch.Tensor]]:
        """Read as much as fits between two steps; the prompts that were read to their end, and each row's logits.

        ``written``: those that are in the slab.
        """
        read: list[AnyPrompt] = []
        logits: list[torch.Tensor] = []
        left = READ_AT_ONCE
        while self.waiting and left > 0:
            self._copy_beginnings([each for each in written if not each.apart])
            prompts = self._next(left)
            prompt, lengths = prompts[0], [each.draft.ids.shape[1] for each in prompts]
            if self._lean is not None and self._joint(prompt) and lengths[0] <= left:
                left -= sum(lengths)
                logits += self._pass_end_to_end(self._lean, prompts)
            elif len(prompts) > 1:
                left -= len(prompts) * max(lengths)
                logits += self._pass_together(prompts)
            else:
                most = lengths[0] if prompt.apart else prompt.read + left
                until = min(most, lengths[0])
                left -= (until - prompt.read) * prompt.read_rows
                outputs = self._pass(prompt, until)
                if prompt.read < lengths[0]:
                    continue
                logits.append(outputs.logits[:, -1])
            read += prompts
            self.waiting = [each for each in self.waiting if each not in prompts]
        return read, [each.expand(prompt.rows, -1) for prompt, each in zip(read, logits, strict=True)]

    @staticmethod
    def _joint(prompt: AnyPrompt) -> bool:
        """Whether it may be read beside others; not if it was read in part."""
        return not prompt.read and not prompt.apart

    def _next(self, most: int) -> list[AnyPrompt]:
        """The prompts that are read next, in a pass of so many tokens at most."""
        lengths = [each.draft.ids.shape[1] if self._joint(each) else None for each in self.waiting]
        if self._lean is not None:
            chosen = read_end_to_end(lengths, most)
        else:
            chosen = [0] if self._head is None else read_together(lengths, most)
        return [self.waiting[index] for index in chosen]

    def _pass_end_to_end(self, lean: Lean, prompts: Sequence[AnyPrompt]) -> list[torch.Tensor]:
        """Read whole prompts without padding."""
        logits, caches = lean.read([each.draft.ids[0] for each in prompts])
        for prompt, cache in zip(prompts, caches, strict=True):
            prompt.cache, prompt.read = cache, prompt.draft.ids.shape[1]
        return list(torch.split(logits, 1))

    def _copy_beginnings(self, others: Sequence[AnyPrompt]) -> None:
        """Copy keys and values of prompts that begin as one does that is being written: they needn't be read again."""
        for prompt in self.waiting:
            if prompt.compared or not self._joint(prompt) or not others:
                continue
            prompt.compared, ids = True, prompt.draft.ids[0]
            places = {in_common(each.draft.ids[0], ids[:-1]): each.places[0] for each in others}
            common = max(places)
            if common >= COMMON:
                for layer, own in enumerate(self._slab.cache.layers):
                    keys, values = (each[places[common], None, :, :common] for each in (own.keys, own.values))
                    prompt.cache.update(keys, values, layer)
                prompt.read = common

    def _pass_together(self, prompts: Sequence[AnyPrompt]) -> list[torch.Tensor]:
        """Read whole prompts, padded behind their ends, where no token of theirs looks."""
        lengths = [each.draft.ids.shape[1] for each in prompts]
        first = prompts[0].draft
        ids = padded([each.draft.ids[0] for each in prompts])
        positions = torch.arange(max(lengths), device=ids.device).expand_as(ids)
        cache = first.model_kwargs["past_key_values"]
        given = {"input_ids": ids, "position_ids": positions, "past_key_values": cache, "use_cache": True}
        with self._ends_only(torch.tensor(lengths, device=ids.device) - 1):
            outputs = self._model(**given, return_dict=True)
        for row, prompt in enumerate(prompts):
            prompt.cache, prompt.read = part_of(cache, row, lengths[row]), lengths[row]
        return list(outputs.logits.split(1))

    @contextmanager
    def _ends_only(self, ends: torch.Tensor) -> Iterator[None]:
        """Let the model compute the logits of one place in each row only: ``[rows, vocabulary]``."""
        rows = torch.arange(len(ends), device=ends.device)
        hook = self._head.register_forward_pre_hook(lambda _, inputs: (inputs[0][rows, ends],))
        try:
            yield
        finally:
            hook.remove()

    def _pass(self, prompt: AnyPrompt, until: int) -> Any:
        """Read a prompt on, up to some token."""
        rows, draft = prompt.read_rows, prompt.draft
        given = {**draft.model_kwargs, "position_ids": draft.model_kwargs["position_ids"][:rows, :until]}
        inputs = self._model.prepare_inputs_for_generation(
            draft.ids[:rows, :until],
            next_sequence_length=until - prompt.read,
            is_first_iteration=prompt.read == 0,
            **given,
        )
        outputs = self._model(**inputs, return_dict=True)
        prompt.read = until
        return outputs


def padded(texts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Texts of one dimension as rows, filled up with zeros behind their ends."""
    return torch.nn.utils.rnn.pad_sequence(list(texts), batch_first=True)
