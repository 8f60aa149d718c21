"""A prompt while it is read and written: its rows, what was written in them, and whether they have ended."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from typing import TypeAlias

import torch
from transformers.generation.stopping_criteria import EosTokenCriteria, MaxLengthCriteria

from pipemill_worker.pipelines.writing.beams import BeamSearch
from pipemill_worker.pipelines.writing.choosing import alike
from pipemill_worker.pipelines.writing.draft import Draft


class Prompt(ABC):
    """What is common to all ways to write."""

    def __init__(self, key: Hashable, draft: Draft) -> None:
        self.key = key
        self.draft = draft
        #: Whether it is read at once and by itself, and nothing of it is another's: its tokens don't tell all of it.
        self.apart = draft.sees
        #: Tokens of the prompt that were read, and whether it was looked who has read its beginning before.
        self.read, self.compared = 0, False
        #: The keys and values that reading it made, in as many rows as were read.
        self.cache = draft.model_kwargs["past_key_values"]
        #: Rows of the slab, once it is read.
        self.places: list[int] = []

    @property
    def rows(self) -> int:
        """Rows that are written."""
        return self.draft.rows

    @property
    def read_rows(self) -> int:
        """Rows that are read: all begin alike, but images are laid out by rows."""
        return self.rows if self.apart else 1

    @property
    @abstractmethod
    def last(self) -> Sequence[int]:
        """Each row's last token."""

    @abstractmethod
    def written(self) -> torch.Tensor:
        """All tokens, the prompt's included: [answers, tokens], filled up to the longest answer."""


class Continued(Prompt):
    """A prompt that is continued in each of its rows, by the best token or a drawn one."""

    def __init__(self, key: Hashable, draft: Draft, generator: torch.Generator | None) -> None:
        super().__init__(key, draft)
        rows, length = draft.ids.shape
        self.generator = generator
        self.processors = draft.processors
        self.draws = bool(draft.config.do_sample)
        self.alike = alike(draft.processors, draws=self.draws)
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
    def ids(self) -> torch.Tensor:
        """The tokens so far: [rows, tokens]."""
        if self._unwritten:
            steps = torch.tensor(self._unwritten, device=self._ids.device)
            self._ids[:, self._length - len(steps) : self._length] = steps.T
            self._unwritten = []
        return self._ids[:, : self._length]

    @property
    def last(self) -> Sequence[int]:
        """Each row's last token."""
        return self._last

    def written(self) -> torch.Tensor:
        """A copy of all tokens."""
        return self.ids.clone()

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


class Searched(Prompt):
    """A prompt whose rows are the beams of a search."""

    def __init__(self, key: Hashable, draft: Draft) -> None:
        super().__init__(key, draft)
        self.search = BeamSearch(draft.ids, draft.processors, draft.criteria, draft.config)

    @property
    def last(self) -> Sequence[int]:
        """Each beam's last token."""
        return self.search.tokens

    def written(self) -> torch.Tensor:
        """The best answers found."""
        return self.search.answers()


#: A prompt of either way.
AnyPrompt: TypeAlias = Continued | Searched


def prompt_of(key: Hashable, draft: Draft, generator: torch.Generator | None) -> AnyPrompt:
    """A draft, to be written as it says."""
    return Searched(key, draft) if draft.beams > 1 else Continued(key, draft, generator)
