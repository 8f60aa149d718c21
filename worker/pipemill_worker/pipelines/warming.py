"""Jobs that any model of a task can run, for its first forward passes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

_WORDS: Final = ("the", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog")

#: Words of the longer job: an everyday paragraph.
_MANY_WORDS: Final = 48

#: Tokens that a short word may become, special tokens included, when the tokenizer knows bytes only.
_TOKENS_PER_WORD: Final = 8

_PARAMETERS: Final[dict[str, dict[str, Any]]] = {
    "text-generation": {"max_new_tokens": 2, "do_sample": False},
    "zero-shot-classification": {"candidate_labels": ["animals", "weather"]},
}


def warm_up_jobs(task: str, tokenizer: Any, limit: int | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Inputs and parameters of a short and a longer job; ``limit`` is the most tokens that the model takes."""
    room = _MANY_WORDS if limit is None else min(_MANY_WORDS, limit // _TOKENS_PER_WORD)
    for count in (2, max(2, room)):
        words = [_WORDS[position % len(_WORDS)] for position in range(count)]
        if task == "fill-mask":
            words[-1] = tokenizer.mask_token
        yield " ".join(words), dict(_PARAMETERS.get(task, {}))
