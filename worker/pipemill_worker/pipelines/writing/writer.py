"""The loop: prompts join, every step writes one token in each row, and a prompt leaves when its rows have ended."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch
from transformers.generation.stopping_criteria import EosTokenCriteria, MaxLengthCriteria

from pipemill_worker.pipelines.writing.choosing import alike, next_tokens
from pipemill_worker.pipelines.writing.draft import Draft
from pipemill_worker.pipelines.writing.lean import Lean
from pipemill_worker.pipelines.writing.slab import Slab

#: Tokens of prompts read between two steps, padding included: texts that are being written never stall for long.
READ_AT_ONCE: Final = 256
#: Most tokens computed per token given when prompts are read together.
PADDED: Final = 1.5
#: Fewest tokens that a prompt must have in common with another for them to be copied instead of read.
COMMON: Final = 16


class _Prompt:
    """A prompt that is being read or continued."""

    def __init__(self, key: Hashable, draft: Draft, generator: torch.Generator | None) -> None:
        rows, length = draft.ids.shape
        self.key = key
        self.draft = draft
        self.generator = generator
        self.processors = draft.processors
        self.draws = bool(draft.config.do_sample)
        self.alike = alike(draft.processors, draws=self.draws)
        #: Whether it is read at once and by itself, and nothing of it is another's: its tokens don't tell all of it.
        self.apart = draft.sees
        #: Tokens of the prompt that were read, and whether it was looked who has read its beginning before.
        self.read, self.compared = 0, False
        #: The keys and values that reading it made, and which rows of them are its own.
        self.cache = draft.model_kwargs["past_key_values"]
        self.cache_rows = range(rows)
        #: Rows of the slab, once it is read.
        self.places: list[int] = []
        self.ended = [False] * rows
        self._length = length
        #: Tokens by step that aren't in ``_ids`` yet: most of the time nobody looks there before the end.
        self._unwritten: list[list[int]] = []
        self._last: list[int] = []
        self._ids = draft.ids.new_empty((rows, max(draft.most_tokens, length + 1)))
        self._ids[:, :length] = draft.ids
        kinds = {type(each) for each in draft.criteria}
        self._plain = kinds <= {EosTokenCriteria, MaxLengthCriteria}
        ends = draft.config._eos_token_tensor  # noqa: SLF001 - where generate itself keeps it
        self._ends = frozenset() if ends is None else frozenset(ends.reshape(-1).tolist())
        pad = draft.config._pad_token_tensor  # noqa: SLF001 - as above
        self._pad = int(pad) if pad is not None and EosTokenCriteria in kinds else None

    @property
    def rows(self) -> int:
        return len(self.ended)

    @property
    def joint_rows(self) -> int:
        """Rows that may be read beside others'; none of a prompt that was read in part."""
        return 0 if self.read or self.apart else self.rows

    @property
    def ids(self) -> torch.Tensor:
        if self._unwritten:
            steps = torch.tensor(self._unwritten, device=self._ids.device)
            self._ids[:, self._length - len(steps) : self._length] = steps.T
            self._unwritten = []
        return self._ids[:, : self._length]

    @property
    def last(self) -> list[int]:
        """Each row's last token."""
        return self._last

    def take(self, tokens: Sequence[int]) -> bool:
        """Write a token in each row; whether all rows have ended."""
        if self._pad is not None:
            tokens = [self._pad if over else token for token, over in zip(tokens, self.ended, strict=True)]
        self._last = list(tokens)
        self._unwritten.append(self._last)
        self._length += 1
        if self._plain:
            full = self._length >= self.draft.most_tokens
            now = [full or token in self._ends for token in tokens]
        else:
            now = self.draft.criteria(self.ids, None).tolist()
        self.ended = [before or after for before, after in zip(self.ended, now, strict=True)]
        return all(self.ended)


def in_common(one: torch.Tensor, other: torch.Tensor) -> int:
    """How many tokens two texts have in common at their beginnings."""
    length = min(len(one), len(other))
    return int((one[:length] == other[:length]).cumprod(0).sum())


def read_together(shapes: Sequence[tuple[int, int]], most: int) -> list[int]:
    """Which prompts, by their rows and tokens, are read with the first one; one that was read in part has 0 rows.

    Those of one row with the nearest lengths, while all are, padded, within ``most`` and little more than theirs.
    """
    rows, length = shapes[0]
    if rows != 1 or length > most:
        return [0]
    others = [index for index, (rows, _) in enumerate(shapes) if index and rows == 1]
    chosen, longest, total = [0], length, length
    for index in sorted(others, key=lambda index: abs(shapes[index][1] - length)):
        own = shapes[index][1]
        padded = (len(chosen) + 1) * max(longest, own)
        if padded <= most and padded <= PADDED * (total + own):
            chosen.append(index)
            longest, total = max(longest, own), total + own
    return chosen


def read_end_to_end(shapes: Sequence[tuple[int, int]], most: int) -> list[int]:
    """Which prompts, by their rows and tokens as for ``read_together``, are read with the first one, in their order."""
    chosen, left = [0], most - shapes[0][1]
    if shapes[0][0] != 1 or left < 0:
        return chosen
    for index, (rows, length) in enumerate(shapes[1:], 1):
        if rows == 1 and length <= left:
            chosen.append(index)
            left -= length
    return chosen


class Writer:
    """Continues prompts together. Used by one thread, the one that owns the device."""

    def __init__(self, model: Any, *, max_rows: int, max_tokens: int, lean: Lean | None = None) -> None:
        self._model = model
        #: The model's own step in fewer operations.
        self._lean = lean
        self._head = model.get_output_embeddings()
        self._max_rows = max_rows
        #: Most tokens whose keys and values are kept, in all rows together.
        self._max_tokens = max_tokens
        self._slab = Slab(max_tokens)
        self._reading: list[_Prompt] = []
        self._writing: list[_Prompt] = []
        #: Prompts of one row whose tokens are told as they are written; and what the last step wrote there.
        self.followed: set[Hashable] = set()
        self.told: list[tuple[Hashable, int]] = []

    @property
    def busy(self) -> bool:
        """Whether there is anything to write."""
        return bool(self._reading or self._writing)

    @property
    def kept_bytes(self) -> int:
        """What keys and values of all rows take, and those of prompts that are being read."""
        reading = {id(each.cache): each.cache for each in self._reading}.values()
        return sum(
            layer.keys.nbytes + layer.values.nbytes
            for cache in (self._slab.cache, *reading)
            for layer in cache.layers
            if layer.is_initialized
        )

    def can_ever(self, draft: Draft) -> bool:
        """Whether a prompt fits at all. Alone it may have any number of rows."""
        rows: int = draft.ids.shape[0]
        return rows * draft.most_tokens <= self._max_tokens

    def has_room(self, draft: Draft) -> bool:
        """Whether a prompt can join now: memory is set aside for all that it may write, so none is ever sent away."""
        prompts = [*self._reading, *self._writing]
        rows = sum(each.rows for each in prompts) + draft.ids.shape[0]
        longest = max([draft.most_tokens, *(each.draft.most_tokens for each in prompts)])
        return (rows <= self._max_rows or not prompts) and rows * longest <= self._max_tokens

    def join(self, key: Hashable, draft: Draft, generator: torch.Generator | None = None) -> None:
        """Let a prompt take part from the next step on."""
        self._reading.append(_Prompt(key, draft, generator))

    @torch.inference_mode()
    def leave(self, keys: Collection[Hashable]) -> None:
        """Stop writing these."""
        self._reading = [each for each in self._reading if each.key not in keys]
        for each in [each for each in self._writing if each.key in keys]:
            self._drop(each)

    @torch.inference_mode()
    def step(self) -> list[tuple[Hashable, torch.Tensor]]:
        """One token more in each row; the prompts that have ended with it.

        Each with its tokens, [rows, tokens], the prompt's included, filled up to its longest row.
        """
        prompts, logits = self._written()
        fresh, first = self._read()
        prompts, logits = prompts + fresh, logits + first
        ended: list[tuple[Hashable, torch.Tensor]] = []
        for prompt, tokens in zip(prompts, next_tokens(prompts, logits), strict=True):
            if prompt.take(tokens):
                ended.append((prompt.key, prompt.ids.clone()))
                self._drop(prompt)
            elif not prompt.places:
                self._settle(prompt)
        self.told = [(each.key, each.last[0]) for each in prompts if each.key in self.followed] if self.followed else []
        return ended

    def _written(self) -> tuple[list[_Prompt], list[torch.Tensor]]:
        """The logits of the next token of all that is being written."""
        if not self._writing:
            return [], []
        tokens = [0] * self._slab.rows
        for prompt in self._writing:
            for place, token in zip(prompt.places, prompt.last, strict=True):
                tokens[place] = token
        logits = self._logits(tokens)
        self._slab.step()
        order = [place for prompt in self._writing for place in prompt.places]
        if order != sorted(order):
            logits = logits[order]
        return list(self._writing), list(torch.split(logits, [prompt.rows for prompt in self._writing]))

    def _logits(self, tokens: list[int]) -> torch.Tensor:
        """What the model says to one more token in each row of the slab: ``[rows, vocabulary]``."""
        inputs = self._slab.inputs(tokens)
        if self._lean is not None:
            return self._lean(inputs, self._slab)
        logits: torch.Tensor = self._model(**inputs, use_cache=True, return_dict=True).logits[:, -1]
        return logits

    def _read(self) -> tuple[list[_Prompt], list[torch.Tensor]]:
        """Read prompts, as much as fits between two steps; those that were read to their end, and their logits."""
        read: list[_Prompt] = []
        logits: list[torch.Tensor] = []
        left = READ_AT_ONCE
        while self._reading and left > 0:
            self._copy_beginnings()
            prompts = self._next(left)
            prompt, lengths = prompts[0], [each.draft.ids.shape[1] for each in prompts]
            if self._lean is not None and prompt.joint_rows == 1 and lengths[0] <= left:
                left -= sum(lengths)
                logits += self._pass_end_to_end(self._lean, prompts)
            elif len(prompts) > 1:
                left -= len(prompts) * max(lengths)
                logits += self._pass_together(prompts)
            else:
                most = lengths[0] if prompt.apart else prompt.read + max(left // prompt.rows, 1)
                until = min(most, lengths[0])
                left -= (until - prompt.read) * prompt.rows
                outputs = self._pass(prompt, until)
                if prompt.read < lengths[0]:
                    continue
                logits.append(outputs.logits[:, -1])
            read += prompts
            self._reading = [each for each in self._reading if each not in prompts]
        return read, logits

    def _next(self, most: int) -> list[_Prompt]:
        """The prompts that are read next, in a pass of so many tokens at most."""
        shapes = [(each.joint_rows, each.draft.ids.shape[1]) for each in self._reading]
        if self._lean is not None:
            chosen = read_end_to_end(shapes, most)
        else:
            chosen = [0] if self._head is None else read_together(shapes, most)
        return [self._reading[index] for index in chosen]

    def _pass_end_to_end(self, lean: Lean, prompts: Sequence[_Prompt]) -> list[torch.Tensor]:
        """Read whole prompts of one row each, without padding."""
        logits, caches = lean.read([each.draft.ids[0] for each in prompts])
        for prompt, cache in zip(prompts, caches, strict=True):
            prompt.cache, prompt.read = cache, prompt.draft.ids.shape[1]
        return list(torch.split(logits, 1))

    def _copy_beginnings(self) -> None:
        """Copy keys and values of prompts that begin as one does that is being written: they needn't be read again."""
        for prompt in self._reading:
            others = [each for each in self._writing if not each.apart]
            if prompt.compared or prompt.joint_rows != 1 or not others:
                continue
            prompt.compared, ids = True, prompt.draft.ids[0]
            places = {in_common(each.draft.ids[0], ids[:-1]): each.places[0] for each in others}
            common = max(places)
            if common >= COMMON:
                for layer, own in enumerate(self._slab.cache.layers):
                    keys, values = (each[places[common], None, :, :common] for each in (own.keys, own.values))
                    prompt.cache.update(keys, values, layer)
                prompt.read = common

    def _pass_together(self, prompts: Sequence[_Prompt]) -> list[torch.Tensor]:
        """Read whole prompts of one row each, padded behind their ends, where no token of theirs looks."""
        lengths = [each.draft.ids.shape[1] for each in prompts]
        first = prompts[0].draft
        ids = first.ids.new_zeros((len(prompts), max(lengths)))
        for row, prompt in enumerate(prompts):
            ids[row, : lengths[row]] = prompt.draft.ids[0]
        positions = torch.arange(max(lengths), device=ids.device).expand_as(ids)
        cache = first.model_kwargs["past_key_values"]
        given = {"input_ids": ids, "position_ids": positions, "past_key_values": cache, "use_cache": True}
        with self._ends_only(torch.tensor(lengths, device=ids.device) - 1):
            outputs = self._model(**given, return_dict=True)
        for row, prompt in enumerate(prompts):
            prompt.cache, prompt.cache_rows, prompt.read = cache, range(row, row + 1), lengths[row]
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

    def _pass(self, prompt: _Prompt, until: int) -> Any:
        """Read a prompt on, up to some token."""
        draft = prompt.draft
        given = {**draft.model_kwargs, "position_ids": draft.model_kwargs["position_ids"][:, :until]}
        inputs = self._model.prepare_inputs_for_generation(
            draft.ids[:, :until],
            next_sequence_length=until - prompt.read,
            is_first_iteration=prompt.read == 0,
            **given,
        )
        outputs = self._model(**inputs, return_dict=True)
        prompt.read = until
        return outputs

    def _settle(self, prompt: _Prompt) -> None:
        """Give a prompt that was read its rows of the slab."""
        prompt.places = [self._slab.add(prompt.cache, row, prompt.read) for row in prompt.cache_rows]
        prompt.draft.model_kwargs, prompt.cache = {}, None
        self._writing.append(prompt)

    def _drop(self, prompt: _Prompt) -> None:
        """Free a prompt's rows."""
        if prompt in self._writing:
            self._writing.remove(prompt)
        while prompt.places:
            place = prompt.places.pop()
            moved = self._slab.drop(place)
            for other in [*self._writing, prompt]:
                other.places = [place if each == moved else each for each in other.places]
