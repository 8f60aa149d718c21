"""Transformers' own continuous batching as an engine: a thread beside ours, over the same weights."""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from typing import Any, Final

import transformers

from pipemill_worker.pipelines.writing.engines.rows import EngineFailedError, News, Row

#: It tells of every start and of every setting.
logging.getLogger("ContinuousBatchingLogger").setLevel(logging.WARNING)

#: Tokens of a block of its memory, and of one pass.
_PAGE_TOKENS: Final = 32
_PASS_TOKENS: Final = 512
#: How often a wait looks whether the thread still lives, in seconds.
_LOOK_SECONDS: Final = 0.5


class Continuous:
    """A ``RowEngine``; it begins again after a failure."""

    def __init__(self, model: Any, *, max_rows: int, max_tokens: int) -> None:
        self._model = sharing(model)
        self._max_rows, self._blocks = max_rows, max(max_tokens // _PAGE_TOKENS, 1)
        #: Tokens told of each row.
        self._told: dict[str, int] = {}
        self._manager: Any = None

    @property
    def ready(self) -> bool:
        """Whether it takes rows now: always, since it begins within a moment."""
        return True

    @property
    def max_tokens(self) -> int:
        """The most tokens of a row, the prompt's included: all of its memory."""
        return self._blocks * _PAGE_TOKENS

    def knows(self, choice: Mapping[str, float]) -> bool:
        """Only to take the best: it has no seeds and no penalties, and one temperature for all."""
        return choice == {"temperature": 0.0}

    def add(self, rows: Sequence[Row]) -> None:
        """Let rows join."""
        if self._manager is None:
            self._begin()
        for row in rows:
            self._told[row.name] = 0
            ends = sorted(row.ends) or -1
            options = {"request_id": row.name, "max_new_tokens": row.most, "streaming": True, "eos_token_id": ends}
            if self._manager.add_request(list(row.ids), **options) is None:
                self._fail()

    def drop(self, names: Collection[str]) -> None:
        """Stop writing these."""
        for name in names:
            if self._told.pop(name, None) is not None:
                self._manager.cancel_request(name)

    def clear(self) -> None:
        """Stop writing all."""
        self.drop(list(self._told))

    def news(self, *, wait: bool) -> Sequence[News]:
        """What was written meanwhile."""
        told: list[News] = []
        while self._told:
            result = self._manager.get_result(timeout=_LOOK_SECONDS if wait and not told else 1e-6)
            if result is None:
                if not self._manager.is_running():
                    self._fail()
                if told or not wait:
                    break
            elif result.request_id in self._told:
                told.append(self._news(result))
        return told

    def close(self) -> None:
        """End its thread."""
        manager, self._manager = self._manager, None
        self._told.clear()
        if manager is not None:
            manager.stop(block=True, hard_stop=True)

    def _news(self, result: Any) -> News:
        name, over = result.request_id, result.is_finished()
        known = self._told[name]
        self._told[name] = len(result.generated_tokens)
        if over:
            del self._told[name]
        return News(name, tuple(result.generated_tokens[known:]), over, result.error or "")

    def _begin(self) -> None:
        library: Any = transformers  # It has few hints.
        bounds = library.ContinuousBatchingConfig(
            num_blocks=self._blocks,
            page_size=_PAGE_TOKENS,
            max_batch_tokens=_PASS_TOKENS,
            max_requests_per_batch=self._max_rows,
        )
        settings = library.GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0)
        self._manager = self._model.init_continuous_batching(settings, bounds)
        # Its thread is a daemon if it is begun by one; else the worker would wait for it when it ends.
        begin = threading.Thread(target=self._manager.start, daemon=True)
        begin.start()
        begin.join()

    def _fail(self) -> None:
        error = self._manager.background_thread_status.fatal_error
        self.close()
        raise EngineFailedError(f"its thread has ended ({error})")


def sharing(model: Any) -> Any:
    """A model of its own over the same weights: its attention may be set to another without touching the first."""
    return copy.deepcopy(model, {id(each): each for each in chain(model.parameters(), model.buffers())})
