"""Answers that lie in their contexts, whatever their length."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
import torch

from pipemill_worker.pipelines.own import QuestionAnsweringPipeline
from tests.unit.pipelines.own.models import own_model, own_pipeline, together
from tests.unit.pipelines.tiny import assert_same, sentence, wordpiece_tokenizer

OWN = ("chunk", "is_last")


@pytest.fixture(scope="module")
def pipe() -> Any:
    """A pipeline over a random BERT."""
    return own_pipeline("question-answering", initializer_range=0.6)


def asked(seed: int, low: int = 3, high: int = 60) -> dict[str, str]:
    """A random question and a random context."""
    rng = random.Random(seed)
    return {"question": sentence(rng, 1, 6), "context": sentence(rng, low, high)}


class Finder(torch.nn.Module):
    """Scores the token ``word`` as first and last of the answer, and the null token half as high."""

    def __init__(self, model: Any, word: int) -> None:
        super().__init__()
        self.config, self.device, self._word = model.config, model.device, word
        self.dtype = model.dtype

    def can_generate(self) -> bool:
        """It can't."""
        return False

    def forward(self, input_ids: torch.Tensor, **_: Any) -> dict[str, torch.Tensor]:
        """Logits for a first and a last token."""
        scores = 12.0 * (input_ids == self._word)
        scores[:, 0] = 6.0
        return {"start_logits": scores, "end_logits": scores}


def finder(word: str) -> Any:
    """A pipeline that finds a word."""
    tokenizer = wordpiece_tokenizer()
    model = Finder(own_model("question-answering", "bert", tokenizer), tokenizer.convert_tokens_to_ids(word))
    return QuestionAnsweringPipeline(model=model, tokenizer=tokenizer, device="cpu")


@pytest.mark.parametrize("align", [True, False])
def test_answers_are_pieces_of_their_context(pipe: Any, align: bool) -> None:  # noqa: FBT001  # a parametrised case
    """Each answer is the context between its start and its end."""
    for seed in range(10):
        job = asked(seed, high=300)
        for answer in pipe(job, top_k=3, align_to_words=align, max_seq_len=64, doc_stride=20):
            assert list(answer) == ["score", "start", "end", "answer"]
            assert job["context"][answer["start"] : answer["end"]] == answer["answer"]
            assert answer["answer"]
            assert type(answer["score"]) is float


def test_shapes_of_answers(pipe: Any) -> None:
    """One job gives an answer, a list a list, a list of one an answer, more than one wanted a list."""
    jobs = [asked(1), asked(2)]
    assert pipe(jobs) == [pipe(jobs[0]), pipe(jobs[1])]
    assert pipe(jobs[:1]) == pipe(jobs[0]) == pipe(**jobs[0]) == pipe({**jobs[0], "id": "7"})
    assert len(pipe(jobs[0], top_k=3)) == 3
    assert (
        pipe(jobs[0], top_k=3)[0] == pipe({"question": jobs[0]["question"], "context": jobs[0]["context"]}, top_k=3)[0]
    )


def test_best_comes_first_and_no_text_twice(pipe: Any) -> None:
    """Answers are ordered by score, and spans with equal text count as one."""
    for seed in range(10):
        answers = pipe(asked(seed, high=200), top_k=6, max_seq_len=50, doc_stride=20)
        scores = [answer["score"] for answer in answers]
        assert scores == sorted(scores, reverse=True)
        assert len({answer["answer"].lower() for answer in answers}) == len(answers)


def test_answers_have_at_most_max_answer_len_tokens(pipe: Any) -> None:
    """Longer spans aren't considered."""
    for seed in range(10):
        answer = pipe(asked(seed), max_answer_len=2, align_to_words=False)
        assert len(pipe.tokenizer(answer["answer"], add_special_tokens=False)["input_ids"]) <= 2


def test_a_long_context_gives_the_answer_of_a_short_one() -> None:
    """A word that occurs once is found wherever it stands, with its place in the whole context."""
    rng = random.Random(9)
    pipe = finder("orange")
    filler = sentence(rng, 400, 400).replace("orange", "paper")
    short = pipe({"question": "river", "context": "stone orange cloud"})
    for place in (0, 700, len(filler)):
        context = f"{filler[:place]} orange {filler[place:]}"
        found = pipe({"question": "river", "context": context}, max_seq_len=100, doc_stride=10)
        assert found["answer"] == short["answer"] == "orange"
        assert found["start"] == context.index("orange")


def test_chunks_overlap_and_cover_the_context(pipe: Any) -> None:
    """Each chunk holds at most ``max_seq_len`` tokens, the last is marked, and every token is in one."""
    job = asked(3, 300, 300)
    chunks = list(pipe.preprocess(job, max_seq_len=64, doc_stride=16))
    assert all(chunk["input_ids"].shape[1] <= 64 for chunk in chunks)
    assert [chunk["is_last"] for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    spans = [
        [span for span, own in zip(chunk["chunk"].offsets, chunk["chunk"].answerable, strict=True) if own]
        for chunk in chunks
    ]
    every = pipe.tokenizer(job["context"], add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    assert {span for chunk in spans for span in chunk} == set(every)
    assert all(one[-16:] == other[:16] for one, other in itertools.pairwise(spans))


def test_no_answer_is_an_answer_when_allowed() -> None:
    """Where the word is missing, the answer is empty, with the null token's score; unless it has to be in the text."""
    pipe = finder("orange")
    job = {"question": "river", "context": "stone cloud winter"}
    empty = pipe(job, handle_impossible_answer=True)
    assert (empty["answer"], empty["start"], empty["end"]) == ("", 0, 0)
    assert empty["score"] > 0.9
    assert pipe(job)["answer"]
    there = {"question": "river", "context": "stone orange winter"}
    assert pipe(there, handle_impossible_answer=True)["answer"] == "orange"


def test_rows_of_a_batch_are_those_of_single_runs(pipe: Any) -> None:
    """Padding to a common length changes no answer."""
    jobs = [asked(seed) for seed in range(6)]
    items = [next(iter(pipe.preprocess(job))) for job in jobs]
    answers = [pipe.postprocess([outputs], top_k=3) for outputs in together(pipe, items, OWN)]
    for answer, job in zip(answers, jobs, strict=True):
        assert_same(answer, pipe(job, top_k=3), tolerance=1e-6)


def test_upstream_s_own_batches_agree(pipe: Any) -> None:
    """``batch_size`` in transformers' own loop gives the same answers."""
    jobs = [asked(seed, high=200) for seed in range(5)]
    assert_same(pipe(jobs, batch_size=4, max_seq_len=80), pipe(jobs, max_seq_len=80), tolerance=1e-6)


def test_a_question_is_cut_only_when_asked_for(pipe: Any) -> None:
    """``max_question_len`` keeps so many tokens of the question; without it, all of them."""
    job = {"question": " ".join(["river"] * 70), "context": "stone cloud"}
    whole, cut = (next(iter(pipe.preprocess(job, **given)))["input_ids"] for given in ({}, {"max_question_len": 5}))
    assert (whole.shape[1], cut.shape[1]) == (75, 10)


@pytest.mark.parametrize(
    ("job", "parameters", "message"),
    [
        ({"question": "river"}, {}, "no context"),
        ({"question": "", "context": "stone"}, {}, "no question"),
        ("river", {}, "no question"),
        (asked(1), {"top_k": 0}, "top_k is 0"),
        (asked(1), {"max_answer_len": 0}, "max_answer_len is 0"),
        (asked(1), {"max_seq_len": 5}, "leaves none of 5"),
        (asked(1), {"max_seq_len": 20, "doc_stride": 19}, "doc_stride 19"),
        (asked(1), {"stride": 3}, "no parameter 'stride'"),
    ],
)
def test_what_cannot_be_answered_is_refused(pipe: Any, job: Any, parameters: dict[str, Any], message: str) -> None:
    """Each mistake is named."""
    with pytest.raises(ValueError, match=message):
        pipe(job, **parameters)


def test_a_long_question_leaves_room_for_overlap(pipe: Any) -> None:
    """By default the overlap shrinks to what a chunk has room for."""
    job = {"question": " ".join(["river"] * 40), "context": sentence(random.Random(1), 60, 60)}
    assert pipe(job, max_seq_len=50)["answer"]


def test_slow_tokenizers_are_refused(pipe: Any) -> None:
    """A tokenizer that doesn't know its tokens' places can't answer."""

    class Slow:
        is_fast = False

    with pytest.raises(ValueError, match="needs a fast tokenizer"):
        QuestionAnsweringPipeline(model=pipe.model, tokenizer=Slow(), device="cpu")
