"""What every engine is given and gives: rows of tokens, each with what its next tokens are chosen by."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from pipemill_worker.pipelines.writing.draft import Draft

#: Processors that engines may know, and where each keeps what it was asked for.
_KNOWN: Final = {
    "MinNewTokensLengthLogitsProcessor": ("min_tokens", "min_new_tokens"),
    "MinPLogitsWarper": ("min_p", "min_p"),
    "RepetitionPenaltyLogitsProcessor": ("repetition_penalty", "penalty"),
    "TemperatureLogitsWarper": ("temperature", "temperature"),
    "TopKLogitsWarper": ("top_k", "top_k"),
    "TopPLogitsWarper": ("top_p", "top_p"),
}


class EngineFailedError(Exception):
    """The engine ended, and with it all that it was writing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A text to be continued."""

    name: str
    #: The prompt.
    ids: Sequence[int]
    #: Most new tokens.
    most: int
    #: Tokens that end it.
    ends: Collection[int]
    #: How its tokens are chosen, by vLLM's names; ``temperature`` 0 takes the best.
    choice: dict[str, float]


@dataclass(frozen=True, slots=True)
class News:
    """What an engine wrote in a row, or that it won't write it."""

    name: str
    tokens: Sequence[int] = ()
    over: bool = False
    refused: str = ""


class RowEngine(Protocol):
    """Writes rows; they join and leave between steps. Used by one thread."""

    @property
    def ready(self) -> bool:
        """Whether it takes rows now; one that has failed may come back."""
        ...

    @property
    def max_tokens(self) -> int:
        """The most tokens of a row, the prompt's included."""
        ...

    def knows(self, choice: dict[str, float]) -> bool:
        """Whether it can choose tokens so."""
        ...

    def add(self, rows: Sequence[Row]) -> None:
        """Let rows join; raises ``EngineFailedError``."""
        ...

    def drop(self, names: Collection[str]) -> None:
        """Stop writing these, as far as there still are such; raises ``EngineFailedError``."""
        ...

    def clear(self) -> None:
        """Stop writing all."""
        ...

    def news(self, *, wait: bool) -> Sequence[News]:
        """What was written meanwhile, or first is; nothing if nothing was and nobody waits.

        Raises
        ------
        EngineFailedError
            When it has ended.

        """
        ...

    def close(self) -> None:
        """End it."""
        ...


def choice_of(draft: Draft, seed: int | None) -> dict[str, float] | None:
    """How a draft's tokens are chosen, by vLLM's names; ``None`` for ways that have none there."""
    if draft.beams > 1:
        return None
    choice: dict[str, float] = {}
    for processor in draft.processors:
        if type(processor).__name__ == "MinLengthLogitsProcessor":  # It counts the prompt, and comes with the next.
            least = processor.min_length - draft.ids.shape[1]
            choice["min_tokens"] = max(choice.get("min_tokens", 0), least)
            continue
        known = _KNOWN.get(type(processor).__name__)
        if known is None or getattr(processor, "prompt_ignore_length", None):
            return None
        choice[known[0]] = max(choice.get(known[0], -math.inf), _plain(getattr(processor, known[1])))
    if not draft.config.do_sample:
        return {**choice, "temperature": 0.0}
    return choice if seed is None else {**choice, "seed": seed}


def _plain(value: Any) -> float:
    number = value.item() if hasattr(value, "item") else value
    return number if isinstance(number, int) else float(number)
