"""Train the demo's sentiment classifier: a small BERT on byte-level pieces of its own.

About 13,000 rated snippets are few for a transformer that starts from nothing. What made it learn, in order of
effect: one embedding channel starts as each piece's naive-Bayes weight, three in ten pieces are masked in every batch,
and the target is the rating, softly, rather than its sign.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from pipemill_worker.demo.pieces import frame, train_pieces, wrap
from pipemill_worker.demo.snippets import Snippet
from pipemill_worker.demo.training import (
    CONTEXT_TOKENS,
    Trained,
    chains,
    length_batches,
    pad,
    repeatable,
    train_epochs,
)

#: Special pieces in the order of their ids, 0 upwards.
SPECIAL: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD, _, CLS, SEP, MASK = range(len(SPECIAL))
#: Pieces, bytes included: enough that most words are whole.
VOCABULARY: Final = 8000
#: Shape of the encoder: 1.3 million weights, most of them embeddings.
WIDTH, INNER_WIDTH, LAYERS, HEADS = 128, 256, 2, 4
#: Times each snippet starts a chain.
EPOCHS: Final = 7
#: Chains in a batch.
BATCH: Final = 64
#: Probability that a chain goes on after each snippet.
CHAIN: Final = 0.35
#: Share of the pieces that a batch hides: without it the model knows the snippets by heart after two epochs.
HIDDEN: Final = 0.3
#: Peak learning rate and weight decay.
RATE: Final = 5e-4
DECAY: Final = 0.1
#: Steepness of the target: a rating r becomes the probability sigmoid(STEEPNESS * r).
STEEPNESS: Final = 1.5
#: How strongly the naive-Bayes weights mark the embeddings; their other channels start with a deviation of 0.02.
PRIOR_SCALE: Final = 0.2
#: Rows of one forward pass when measuring.
MEASURE_BATCH: Final = 128


@dataclass(frozen=True, kw_only=True, slots=True)
class _Examples:
    """The snippets to train on, as pieces without specials, and their ratings."""

    pieces: list[list[int]]
    ratings: list[float]


def train_sentiment(snippets: Sequence[Snippet], out: Path, seed: int) -> Trained:
    """Train on all that isn't held out, write model and tokenizer into `out`, and measure on the rest."""
    started = time.process_time()
    training = [snippet for snippet in snippets if not snippet.held_out]
    tokenizer = _train_tokenizer([snippet.text for snippet in training])
    encodings = tokenizer.encode_batch([snippet.text for snippet in training], add_special_tokens=False)
    examples = _Examples(pieces=[row.ids for row in encodings], ratings=[snippet.rating for snippet in training])
    with repeatable(seed) as rng:
        model = _build_model(tokenizer.get_vocab_size(), examples)
        train_epochs(model, _epochs(model, examples, rng), total_epochs=EPOCHS, peak_rate=RATE, weight_decay=DECAY)
    seconds = time.process_time() - started

    model.save_pretrained(out)
    _wrap(tokenizer).save_pretrained(out)
    return Trained(
        figures=_figures(model, tokenizer, snippets),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        seconds=seconds,
    )


def _train_tokenizer(texts: Sequence[str]) -> Tokenizer:
    tokenizer = train_pieces(texts, vocabulary=VOCABULARY, special=SPECIAL, any_case=True)
    # Both texts of a pair have type 0: training sees no other.
    frame(tokenizer, "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:0 [SEP]:0", ("[CLS]", "[SEP]"))
    return tokenizer


def _wrap(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    inputs = ("input_ids", "token_type_ids", "attention_mask")
    return wrap(tokenizer, context=CONTEXT_TOKENS, inputs=inputs, **names)


def _build_model(vocabulary: int, examples: _Examples) -> BertForSequenceClassification:
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        intermediate_size=INNER_WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        max_position_embeddings=CONTEXT_TOKENS,
        pad_token_id=PAD,
        hidden_dropout_prob=0.3,
        classifier_dropout=0.3,
        id2label={0: "NEGATIVE", 1: "POSITIVE"},
        label2id={"NEGATIVE": 0, "POSITIVE": 1},
    )
    model = BertForSequenceClassification(config)
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight[:, 0] = PRIOR_SCALE * _naive_bayes(vocabulary, examples)
    return model


def _naive_bayes(vocabulary: int, examples: _Examples) -> Tensor:
    """For each piece, the log of how much likelier it is in positive snippets than in negative ones: [vocabulary]."""
    seen = torch.ones(2, vocabulary)
    for pieces, rating in zip(examples.pieces, examples.ratings, strict=True):
        seen[int(rating > 0), sorted(set(pieces))] += 1
    shares = seen / seen.sum(dim=1, keepdim=True)
    return torch.log(shares[1] / shares[0])


def _epochs(
    model: BertForSequenceClassification, examples: _Examples, rng: random.Random
) -> Iterator[list[Callable[[], Tensor]]]:
    for _ in range(EPOCHS):
        rows, targets = [], []
        for chain in chains(len(examples.pieces), CHAIN, rng):
            pieces = [piece for index in chain for piece in examples.pieces[index]]
            rows.append([CLS, *pieces[: CONTEXT_TOKENS - 2], SEP])
            targets.append(sum(examples.ratings[index] for index in chain))
        yield [
            lambda batch=batch, rows=rows, targets=targets: _loss(  # type: ignore[misc]  # bound early
                model, pad([rows[index] for index in batch], PAD), torch.tensor([targets[index] for index in batch])
            )
            for batch in length_batches([len(row) for row in rows], BATCH, rng)
        ]


def _loss(model: BertForSequenceClassification, ids: Tensor, ratings: Tensor) -> Tensor:
    positive = torch.sigmoid(STEEPNESS * ratings)
    hidden = (torch.rand(ids.shape) < HIDDEN) & (ids >= len(SPECIAL))
    logits = model(ids.masked_fill(hidden, MASK), attention_mask=(ids != PAD).long()).logits
    return functional.cross_entropy(logits, torch.stack([1 - positive, positive], dim=1))


def _figures(model: BertForSequenceClassification, tokenizer: Tokenizer, snippets: Sequence[Snippet]) -> dict[str, str]:
    measured = [snippet for snippet in snippets if snippet.held_out and snippet.clear]
    right = [
        (score > 0) == (snippet.rating > 0)
        for score, snippet in zip(_scores(model, tokenizer, measured), measured, strict=True)
    ]
    positive = sum(snippet.rating > 0 for snippet in measured) / len(measured)
    figures = {
        "Snippets trained on": f"{sum(not snippet.held_out for snippet in snippets):,}",
        "Held-out accuracy": f"{sum(right) / len(right):.3f} of {len(right):,}",
    }
    for source in sorted({snippet.source for snippet in measured}):
        part = [ok for ok, snippet in zip(right, measured, strict=True) if snippet.source == source]
        figures[f"– of those, {source}"] = f"{sum(part) / len(part):.3f} of {len(part):,}"
    return figures | {"Always saying the commoner label": f"{max(positive, 1 - positive):.3f}"}


@torch.inference_mode()
def _scores(model: BertForSequenceClassification, tokenizer: Tokenizer, snippets: Sequence[Snippet]) -> list[float]:
    """For each snippet, how far the positive logit is above the negative one."""
    scores: list[float] = []
    for start in range(0, len(snippets), MEASURE_BATCH):
        encodings = tokenizer.encode_batch([snippet.text for snippet in snippets[start : start + MEASURE_BATCH]])
        ids = pad([row.ids[:CONTEXT_TOKENS] for row in encodings], PAD)
        logits = model(ids, attention_mask=(ids != PAD).long()).logits
        scores += (logits[:, 1] - logits[:, 0]).tolist()
    return scores
