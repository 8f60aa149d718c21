"""From the scores of tokens to the best spans of a context: plain NumPy, no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Chunk:
    """A stretch of context as the model sees it: what leads from its tokens back to the text."""

    #: The whole context.
    context: str
    #: Each token's first character in the context, and the one behind its last.
    offsets: Sequence[tuple[int, int]]
    #: Each token's word; ``None`` for special tokens.
    words: Sequence[int | None]
    #: Which tokens belong to the context.
    answerable: npt.NDArray[np.bool_]
    #: The token whose score as start and end says that there is no answer.
    null: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """A stretch of tokens, first and last, and its probability."""

    score: float
    first: int
    last: int


def probabilities(logits: npt.ArrayLike, chunk: Chunk) -> Scores:
    """Softmax over the tokens of the context and the null token; 0 for all others."""
    scores = np.asarray(logits, dtype=np.float64)
    allowed = chunk.answerable.copy()
    allowed[chunk.null] = True
    raised = np.exp(scores - scores[allowed].max()) * allowed
    result: Scores = raised / raised.sum()
    return result


def best_spans(starts: Scores, ends: Scores, chunk: Chunk, count: int, max_tokens: int) -> list[Span]:
    """The ``count`` most probable spans of at most ``max_tokens`` tokens in the context, best first."""
    starts = np.where(chunk.answerable, starts, 0.0)
    width = min(max_tokens, len(ends))
    padded = np.concatenate([np.where(chunk.answerable, ends, 0.0), np.zeros(width - 1)])
    products = starts[:, None] * np.lib.stride_tricks.sliding_window_view(padded, width)
    flat = products.ravel()
    if count < len(flat):
        worst = np.partition(flat, len(flat) - count)[len(flat) - count]
        candidates = np.flatnonzero(flat >= worst)
    else:
        candidates = np.arange(len(flat))
    order = candidates[np.argsort(-flat[candidates], kind="stable")][:count]
    return [
        Span(score=float(flat[index]), first=int(index // width), last=int(index // width + index % width))
        for index in order
        if flat[index] > 0
    ]


def characters(chunk: Chunk, span: Span, *, align_to_words: bool) -> tuple[int, int]:
    """The span's first character in the context and the one behind its last, widened to whole words if wanted."""
    first, last = span.first, span.last
    if align_to_words and chunk.words[first] is not None and chunk.words[last] is not None:
        while first > 0 and chunk.answerable[first - 1] and chunk.words[first - 1] == chunk.words[first]:
            first -= 1
        end = len(chunk.words) - 1
        while last < end and chunk.answerable[last + 1] and chunk.words[last + 1] == chunk.words[last]:
            last += 1
    return chunk.offsets[first][0], chunk.offsets[last][1]
