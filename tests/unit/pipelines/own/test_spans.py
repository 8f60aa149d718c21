"""The best spans of a context, against all spans tried one by one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pipemill_worker.pipelines.own.spans import Chunk, Span, best_spans, characters, probabilities

RNG = np.random.default_rng(5)


def chunk_of(tokens: int, context_from: int) -> Chunk:
    """A chunk whose first token is the null token; its context begins at a token and has words of two tokens."""
    return Chunk(
        context="x" * tokens * 3,
        offsets=[(3 * i, 3 * i + 3) for i in range(tokens)],
        words=[None, *(i // 2 for i in range(tokens - 1))],
        answerable=np.arange(tokens) >= context_from,
        null=0,
    )


def test_probabilities_leave_the_question_out() -> None:
    """The softmax is over the context and the null token; the question has probability 0."""
    chunk = chunk_of(8, 5)
    logits = RNG.normal(size=8)
    scores = probabilities(logits, chunk)
    kept = [0, 5, 6, 7]
    expected = np.exp(logits[kept]) / np.exp(logits[kept]).sum()
    assert np.allclose(scores[kept], expected)
    assert not scores[1:5].any()


@pytest.mark.parametrize("count", [1, 4, 1000])
@pytest.mark.parametrize("most", [1, 3, 50])
def test_best_spans_are_those_of_trying_all(count: int, most: int) -> None:
    """Spans, their order and their scores are those of a search through all pairs of tokens."""
    chunk = chunk_of(20, 4)
    starts, ends = (probabilities(RNG.normal(size=20), chunk) for _ in range(2))
    tried = [
        (starts[first] * ends[last], first, last)
        for first, last in itertools.product(range(4, 20), repeat=2)
        if 0 <= last - first < most
    ]
    expected = sorted(tried, reverse=True)[:count]
    found = best_spans(starts, ends, chunk, count, most)
    assert [(span.first, span.last) for span in found] == [(first, last) for _, first, last in expected]
    assert np.allclose([span.score for span in found], [score for score, _, _ in expected])


def test_spans_widen_to_words() -> None:
    """A span that begins or ends within a word covers it whole, if wanted."""
    chunk = chunk_of(9, 3)
    span = Span(score=1.0, first=4, last=5)
    assert chunk.words[3] == chunk.words[4]
    assert chunk.words[5] == chunk.words[6]
    assert characters(chunk, span, align_to_words=False) == (12, 18)
    assert characters(chunk, span, align_to_words=True) == (9, 21)
