"""The loop: prompts join, every step writes one token in each row, and a prompt leaves when its rows have ended."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from typing import Any

import torch

from pipemill_worker.pipelines.writing.beams import followed
from pipemill_worker.pipelines.writing.choosing import next_tokens
from pipemill_worker.pipelines.writing.draft import Draft
from pipemill_worker.pipelines.writing.lean import Lean
from pipemill_worker.pipelines.writing.places import Places
from pipemill_worker.pipelines.writing.prompt import AnyPrompt, Continued, Searched, prompt_of
from pipemill_worker.pipelines.writing.reading import Reader
from pipemill_worker.pipelines.writing.sharing import share_again
from pipemill_worker.pipelines.writing.slab import Room, Slab
from pipemill_worker.pipelines.writing.sources import SourceReader, SourceSlab


class Writer:
    """Continues prompts together. Used by one thread, the one that owns the device."""

    def __init__(
        self, model: Any, *, max_rows: int, max_tokens: int, lean: Lean | None = None, places: Places | None = None
    ) -> None:
        self._model, self._shares = model, places is not None and places.shared
        #: The model's own step in fewer operations.
        self._lean = lean
        #: Most answers that are written, however many beams are searched for each.
        self._max_rows = max_rows
        #: Most tokens whose keys and values are kept, in all rows together.
        self._max_tokens = max_tokens
        self._slab: Slab | SourceSlab
        self._reader: Reader | SourceReader
        if places is None:
            self._slab = Slab(Room(max_tokens))
            self._reader = Reader(model, self._slab, lean)
        else:
            self._slab, self._reader = SourceSlab(max_tokens, places), SourceReader(model)
        self._writing: list[AnyPrompt] = []
        #: Prompts of one row whose tokens are told as they are written; and what the last step wrote there.
        self.followed: set[Hashable] = set()
        self.told: list[tuple[Hashable, int]] = []

    @property
    def busy(self) -> bool:
        """Whether there is anything to write."""
        return bool(self._reader.waiting or self._writing)

    @property
    def kept_bytes(self) -> int:
        """What keys and values of all rows take, and those of prompts that are being read."""
        return self._slab.kept_bytes + self._reader.kept_bytes

    def can_ever(self, draft: Draft, copies: int = 1) -> bool:
        """Whether so many of a prompt fit at all. Alone it may have any number of rows."""
        return self._slab.tokens([draft] * copies) <= self._max_tokens

    def has_room(self, draft: Draft) -> bool:
        """Whether a prompt can join now: memory is set aside for all that it may write, so none is ever sent away."""
        drafts = [draft, *(each.draft for each in (*self._reader.waiting, *self._writing))]
        answers = sum(each.rows // each.beams for each in drafts)
        return (answers <= self._max_rows or len(drafts) == 1) and self._slab.tokens(drafts) <= self._max_tokens

    def join(self, key: Hashable, draft: Draft, generator: torch.Generator | None = None) -> None:
        """Let a prompt take part from the next step on."""
        self._reader.waiting.append(prompt_of(key, draft, generator))

    @torch.inference_mode()
    def leave(self, keys: Collection[Hashable]) -> None:
        """Stop writing these."""
        self._reader.leave(keys)
        for each in [each for each in self._writing if each.key in keys]:
            self._drop(each)

    @torch.inference_mode()
    def step(self) -> list[tuple[Hashable, torch.Tensor]]:
        """One token more in each row; the prompts that have ended with it.

        Each with its tokens, [answers, tokens], the prompt's included, filled up to its longest answer.
        """
        prompts, logits = self._written()
        fresh, first = self._reader.read(self._writing)
        prompts, logits = prompts + fresh, logits + first
        ended = self._take(prompts, logits)
        for prompt in prompts:
            if prompt in ended:
                self._drop(prompt)
            elif not prompt.places:
                self._settle(prompt)
        self.told = [(each.key, each.last[0]) for each in prompts if each.key in self.followed] if self.followed else []
        return [(prompt.key, prompt.written()) for prompt in ended]

    def _take(self, prompts: list[AnyPrompt], logits: list[torch.Tensor]) -> list[AnyPrompt]:
        """Write a token in each row, by its logits; the prompts that have ended with it."""
        ended: list[AnyPrompt] = []
        drawn = [(prompt, own) for prompt, own in zip(prompts, logits, strict=True) if isinstance(prompt, Continued)]
        tokens = next_tokens([prompt for prompt, _ in drawn], [own for _, own in drawn])
        ended += [prompt for (prompt, _), own in zip(drawn, tokens, strict=True) if prompt.take(own)]
        for prompt, own in zip(prompts, logits, strict=True):
            if isinstance(prompt, Searched):
                if prompt.search.step(own):
                    ended.append(prompt)
                elif prompt.places:
                    self._follow(prompt)
        return ended

    def _follow(self, prompt: Searched) -> None:
        """Give each beam a row that holds what it goes on from. What rows have in common isn't copied."""
        search = prompt.search
        rows, copies = followed(search.parents)
        for row, into in copies:
            self._slab.copy(prompt.places[row], prompt.places[into], search.in_common(row, into))
        prompt.places = [prompt.places[row] for row in rows]

    def _written(self) -> tuple[list[AnyPrompt], list[torch.Tensor]]:
        """The logits of the next token of all that is being written."""
        if not self._writing:
            return [], []
        tokens = [0] * self._slab.rows
        for prompt in self._writing:
            for place, token in zip(prompt.places, prompt.last, strict=True):
                tokens[place] = token
        logits = self._logits(tokens)
        self._slab.step()
        return list(self._writing), [_of_rows(logits, prompt.places) for prompt in self._writing]

    def _logits(self, tokens: list[int]) -> torch.Tensor:
        """What the model says to one more token in each row of the slab: ``[rows, vocabulary]``."""
        if self._shares:
            share_again(self._model)
        inputs = self._slab.inputs(tokens)
        if self._lean is not None and isinstance(self._slab, Slab):
            return self._lean(inputs, self._slab)
        with self._slab.placed(tokens, inputs):
            logits: torch.Tensor = self._model(**inputs, use_cache=True, return_dict=True).logits[:, -1]
        return logits

    def _settle(self, prompt: AnyPrompt) -> None:
        """Give a prompt that was read its rows of the slab."""
        for row in range(prompt.rows):
            first = prompt.places[0] if prompt.places else None
            prompt.places.append(self._slab.add(prompt.cache, row if prompt.apart else 0, beside=first))
        prompt.draft.release()
        prompt.cache = None
        self._writing.append(prompt)

    def _drop(self, prompt: AnyPrompt) -> None:
        """Free a prompt's rows."""
        if prompt in self._writing:
            self._writing.remove(prompt)
        while prompt.places:
            place = prompt.places.pop()
            moved = self._slab.drop(place)
            for other in [*self._writing, prompt]:
                other.places = [place if each == moved else each for each in other.places]


def _of_rows(logits: torch.Tensor, places: list[int]) -> torch.Tensor:
    """Some rows of logits; not copied if they lie in order."""
    first = places[0]
    ordered = places == list(range(first, first + len(places)))
    return logits[first : first + len(places)] if ordered else logits[places]
