"""Jobs that hold texts, for models that read them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from tests.tasks.models.tokens import WORDS
from tests.tasks.rows import Job

_LABELS: Final = ["sport", "politics", "science", "weather", "cooking"]


def sentence(seed: int, words: int | None = None) -> str:
    """A text of random words; their number is random too unless given."""
    rng = random.Random(seed)
    return " ".join(rng.choice(WORDS) for _ in range(words or rng.randint(1, 40)))


#: Texts of equal length, in words as in bytes, which share a pass even where nothing may be padded.
EQUAL: Final = ("river", "stone", "cloud")


def per_text(*parameters: Mapping[str, Any], count: int = 9) -> list[Job]:
    """Texts of mixed lengths, then of equal length, each with the next parameters; and a job of three texts."""
    texts = [*(sentence(seed) for seed in range(count)), *EQUAL]
    jobs = [Job(inputs=text, parameters=parameters[place % len(parameters)]) for place, text in enumerate(texts)]
    return [*jobs, Job(inputs=[sentence(seed) for seed in (90, 91, 92)], parameters=parameters[-1])]


def classify(_: Path) -> list[Job]:
    """Jobs of ``text-classification``; a pair among them."""
    pair = {"text": sentence(80), "text_pair": sentence(81, 5)}
    return [
        *per_text({}, {"top_k": None}, {"top_k": 2, "function_to_apply": "sigmoid"}, {"function_to_apply": "none"}),
        Job(inputs=pair),
        Job(inputs=[pair, pair], parameters={"top_k": 1}),
    ]


def classify_alone(_: Path) -> list[Job]:
    """As above without pairs, for a tokenizer that can't tell the two apart."""
    return per_text({}, {"top_k": None}, {"top_k": 2, "function_to_apply": "sigmoid"}, {"function_to_apply": "none"})


def entities(_: Path) -> list[Job]:
    """Jobs of ``token-classification``; one is a text in several chunks, one a list of words."""
    return [
        *per_text(
            {},
            {"aggregation_strategy": "simple", "ignore_labels": []},
            {"aggregation_strategy": "average"},
            {"aggregation_strategy": "first"},
            {"aggregation_strategy": "max"},
        ),
        Job(inputs=sentence(80, 400), parameters={"aggregation_strategy": "simple", "stride": 16}),
        Job(inputs=sentence(81, 300), parameters={"aggregation_strategy": "first", "stride": 5}),
        Job(inputs=sentence(82, 12).split(), parameters={"is_split_into_words": True}),
    ]


def masks(_: Path) -> list[Job]:
    """Jobs of ``fill-mask``, one with two masks."""

    def masked(seed: int, *places: int) -> str:
        words = sentence(seed, 2 + 3 * seed % 30).split()
        for place in places:
            words[place % len(words)] = "[MASK]"
        return " ".join(words)

    asked: list[dict[str, Any]] = [{}, {"top_k": 2}, {"targets": ["river", "stone", "cloud"]}]
    jobs = [Job(inputs=masked(seed, seed), parameters=asked[seed % 3]) for seed in range(9)]
    return [
        *jobs,
        Job(inputs=masked(20, 1, 7)),
        Job(inputs=[masked(21, 3), masked(22, 5)], parameters={"top_k": 3}),
        Job(inputs=masked(23, 2), parameters={"tokenizer_kwargs": {"truncation": True}}),
    ]


def features(_: Path) -> list[Job]:
    """Jobs of ``feature-extraction``."""
    return per_text({}, {"truncation": True}, {"tokenize_kwargs": {"add_special_tokens": False}})


def zero_shot(_: Path) -> list[Job]:
    """Jobs of ``zero-shot-classification``: other labels, one label or many, another template."""
    return per_text(
        {"candidate_labels": _LABELS[:3]},
        {"candidate_labels": ", ".join(_LABELS), "multi_label": True},
        {"candidate_labels": _LABELS[3:], "hypothesis_template": "is this {}?"},
        {"candidate_labels": ["music"]},
    )


def tables(_: Path) -> list[Job]:
    """Jobs of ``table-question-answering``: tables of one to six rows, one question or several."""

    def table(rows: int) -> dict[str, list[str]]:
        return {"river": [WORDS[row] for row in range(rows)], "paper": [str(3 * row + 1) for row in range(rows)]}

    jobs = [
        Job(inputs={"table": table(1 + seed), "query": f"what is the {sentence(seed, 3 + seed)}?"}) for seed in range(6)
    ]
    several = {"table": table(3), "query": ["what is the river?", "where was the stone of the paper?"]}
    return [
        *jobs,
        Job(inputs=several),
        Job(inputs=several, parameters={"sequential": True}),
        Job(inputs=[jobs[0].inputs, jobs[3].inputs]),
    ]


def questions(_: Path) -> list[Job]:
    """Jobs of ``question-answering``: short texts, one in several spans, several questions."""

    def asked(seed: int, words: int | None = None) -> dict[str, str]:
        return {"question": f"what is the {sentence(seed + 50, 3)}?", "context": sentence(seed, words)}

    parameters: list[dict[str, Any]] = [
        {},
        {"top_k": 3},
        {"max_answer_len": 2},
        {"handle_impossible_answer": True, "top_k": 2},
    ]
    jobs = [Job(inputs=asked(seed, 5 + 4 * seed), parameters=parameters[seed % 4]) for seed in range(9)]
    return [
        *jobs,
        Job(inputs=asked(20, 150), parameters={"max_seq_len": 64, "doc_stride": 16}),
        Job(inputs=[asked(21, 9), asked(22, 14)]),
    ]


def embed(_: Path) -> list[Job]:
    """Jobs of ``sentence-embedding``."""
    return per_text({}, {"normalize": True}, {"pooling": "cls"}, {"pooling": "last"}, {"truncate_dim": 8})


def rank(_: Path) -> list[Job]:
    """Jobs of ``rerank``: one document or many."""

    def query(seed: int) -> dict[str, Any]:
        documents = [sentence(100 * seed + number) for number in range(1 + seed % 5)]
        return {"query": sentence(seed + 50, 4), "documents": documents}

    asked: list[dict[str, Any]] = [{}, {"top_k": 2}, {"return_documents": True, "function_to_apply": "none"}]
    return [Job(inputs=query(seed), parameters=asked[seed % 3]) for seed in range(8)]


JOBS: Final[dict[str, Callable[[Path], list[Job]]]] = {
    "text-classification.bert": classify,
    "text-classification.gpt2": classify_alone,
    "text-classification.bart": classify,
    "token-classification.bert": entities,
    "fill-mask.bert": masks,
    "feature-extraction.bert": features,
    "feature-extraction.gpt2": features,
    "zero-shot-classification.bert": zero_shot,
    "table-question-answering.tapas": tables,
    "question-answering.bert": questions,
    "sentence-embedding.bert": embed,
    "rerank.bert": rank,
}
