"""Prompts given to another engine as far as it knows their parameters, and to our own writer else."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Hashable, Sequence
from dataclasses import replace
from itertools import count
from typing import Final

import torch
from transformers.generation.stopping_criteria import EosTokenCriteria, MaxLengthCriteria

from pipemill_worker.pipelines.inputs import shorten
from pipemill_worker.pipelines.writing.draft import Draft
from pipemill_worker.pipelines.writing.engines.rows import EngineFailedError, News, Row, RowEngine, choice_of
from pipemill_worker.pipelines.writing.writer import Writer

log = logging.getLogger("pipemill.worker")

#: Rows are called by numbers that never come again: what is still told of one that was dropped is nobody else's.
_NAMES: Final = map(str, count())
#: Seconds between two looks at an engine that all that is to be written waits for.
_LOOK_SECONDS: Final = 0.05


class _Text:
    """A prompt that the engine continues: a row of it for each answer."""

    def __init__(self, key: Hashable, draft: Draft, generator: torch.Generator | None) -> None:
        self.key, self.draft, self.generator = key, draft, generator
        self.written: list[list[int]] = [[] for _ in range(draft.ids.shape[0])]
        self.over = [False] * len(self.written)
        kinds = {type(each) for each in draft.criteria}
        #: Whether there is more that ends it than the engine knows.
        self._own_ends = not kinds <= {EosTokenCriteria, MaxLengthCriteria}

    def rows(self) -> list[Row]:
        """As the engine is given them."""
        draft, seed = self.draft, None if self.generator is None else self.generator.initial_seed()
        choice = choice_of(draft, seed) or {}
        ends = draft.config._eos_token_tensor  # noqa: SLF001 - where generate itself keeps it
        first = Row(
            name="",
            ids=draft.ids[0].tolist(),
            most=draft.most_tokens - draft.ids.shape[1],
            ends=() if ends is None else ends.reshape(-1).tolist(),
            choice=choice,
        )
        seeds = [
            choice if "seed" not in choice else {**choice, "seed": choice["seed"] + row}
            for row in range(len(self.over))
        ]
        return [replace(first, name=next(_NAMES), choice=each) for each in seeds]

    def anew(self) -> _Text:
        """The same, of which nothing is written."""
        return _Text(self.key, self.draft, self.generator)

    def take(self, row: int, news: News) -> Sequence[int]:
        """Note what was written; as much of it as belongs to the text."""
        if not self._own_ends:
            self.written[row] += news.tokens
            self.over[row] = news.over
            return news.tokens
        for number, token in enumerate(news.tokens, 1):
            self.written[row].append(token)
            ids = torch.cat([self.draft.ids[row], torch.tensor(self.written[row])])
            if bool(self.draft.criteria(ids[None], None).all()):
                self.over[row] = True
                return news.tokens[:number]
        self.over[row] = news.over
        return news.tokens

    def ids(self) -> torch.Tensor:
        """All tokens, [rows, tokens], filled up to the longest row."""
        longest = max(map(len, self.written))
        pad = self.draft.config._pad_token_tensor  # noqa: SLF001 - as above
        filling = 0 if pad is None else int(pad)
        new = [row + [filling] * (longest - len(row)) for row in self.written]
        return torch.cat([self.draft.ids, torch.tensor(new, dtype=self.draft.ids.dtype)], dim=1)


class Routed:
    """What ``Writer`` does, by an engine and by a ``Writer``. Used by one thread."""

    def __init__(self, engine: RowEngine, ours: Writer, *, max_rows: int, vocabulary: int) -> None:
        self._engine, self._ours = engine, ours
        engine.clear()  # What was written for another is nobody's.
        self._max_rows, self._vocabulary = max_rows, vocabulary
        self._texts: dict[Hashable, _Text] = {}
        self._rows: dict[str, tuple[_Text, int]] = {}
        #: Texts that the engine failed in, to be written from their beginnings.
        self._displaced: list[_Text] = []
        self.followed = ours.followed
        self.told: list[tuple[Hashable, int]] = []

    @property
    def busy(self) -> bool:
        """Whether there is anything to write."""
        return bool(self._texts or self._displaced or self._ours.busy)

    def can_ever(self, draft: Draft, copies: int = 1) -> bool:
        """Whether so many of a prompt fit at all."""
        return self._suits(draft) or self._ours.can_ever(draft, copies)

    def has_room(self, draft: Draft) -> bool:
        """Whether a prompt can join now."""
        if not self._suits(draft) or (not self._engine.ready and self._ours.can_ever(draft)):
            return self._ours.has_room(draft)
        return self._engine.ready and (not self._rows or len(self._rows) + draft.ids.shape[0] <= self._max_rows)

    def join(self, key: Hashable, draft: Draft, generator: torch.Generator | None = None) -> None:
        """Let a prompt take part from the next step on."""
        if not self._suits(draft) or not self._engine.ready:
            self._ours.join(key, draft, generator)
            return
        self._add(_Text(key, draft, generator))

    def leave(self, keys: Collection[Hashable]) -> None:
        """Stop writing these."""
        self._ours.leave(keys)
        self._displaced = [each for each in self._displaced if each.key not in keys]
        self._drop([self._texts[key] for key in keys if key in self._texts])

    def step(self) -> list[tuple[Hashable, torch.Tensor]]:
        """Some tokens more; the prompts that have ended with them, as ``Writer.step`` gives them.

        Raises
        ------
        EngineFailedError
            When the engine refuses a text for which there is no room elsewhere.

        """
        self._place()
        ended = self._ours.step() if self._ours.busy else []
        self.told = list(self._ours.told) if self._ours.busy or ended else []
        if self._texts:
            try:
                news = self._engine.news(wait=not self._ours.busy)
            except EngineFailedError as error:
                self._displace(error)
            else:
                ended += self._heed(news)
        elif not self._ours.busy and self._displaced:
            time.sleep(_LOOK_SECONDS)
        return ended

    def _suits(self, draft: Draft) -> bool:
        """Whether the engine would write as the draft says."""
        choice = choice_of(draft, None)
        if draft.sees or choice is None or not self._engine.knows(choice):
            return False
        return draft.most_tokens <= self._engine.max_tokens and int(draft.ids.max()) < self._vocabulary

    def _add(self, text: _Text) -> None:
        rows = text.rows()
        self._texts[text.key] = text
        self._rows.update((row.name, (text, index)) for index, row in enumerate(rows))
        try:
            self._engine.add(rows)
        except EngineFailedError as error:
            self._displace(error)

    def _heed(self, news: Sequence[News]) -> list[tuple[Hashable, torch.Tensor]]:
        ended: list[tuple[Hashable, torch.Tensor]] = []
        for each in news:
            if each.name not in self._rows:
                continue
            text, row = self._rows[each.name]
            if each.refused:
                why = shorten(each.refused)
                log.warning(
                    "the writing engine refuses a prompt: %s; it is written without",
                    why,
                    extra={"event": "engine_refused"},
                )
                self._drop([text])
                if not self._ours.can_ever(text.draft):
                    raise EngineFailedError(f"it refuses a prompt: {why}")
                self._displaced.append(text.anew())
                continue
            tokens = text.take(row, each)
            if text.key in self.followed:
                self.told += [(text.key, token) for token in tokens]
            if all(text.over):
                ended.append((text.key, text.ids()))
                self._drop([text])
        return ended

    def _drop(self, texts: Collection[_Text]) -> None:
        keys = {text.key for text in texts}
        names = [name for name, (text, _) in self._rows.items() if text.key in keys]
        for name in names:
            del self._rows[name]
        for key in keys:
            del self._texts[key]
        try:
            self._engine.drop(names)
        except EngineFailedError as error:
            self._displace(error)

    def _displace(self, error: EngineFailedError) -> None:
        """What the engine was writing is written anew, with what it told so far void."""
        text = "the writing engine failed (%s): %d texts begin anew"
        log.warning(text, shorten(error), len(self._texts), extra={"event": "engine_failed"})
        self._displaced += [each.anew() for each in self._texts.values()]
        self._texts.clear()
        self._rows.clear()
        self.followed.difference_update(each.key for each in self._displaced)

    def _place(self) -> None:
        """Give displaced texts to our own writer as it has room; those too long for it wait for the engine."""
        waiting, self._displaced = self._displaced, []
        for text in waiting:
            if not self._ours.can_ever(text.draft) and self._engine.ready:
                self._add(text)
            elif self._ours.has_room(text.draft):
                self._ours.join(text.key, text.draft, text.generator)
            else:
                self._displaced.append(text)
