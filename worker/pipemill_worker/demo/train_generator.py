"""Train the demo's text generator: a small Llama on byte-level pieces of its own, on the snippets' text alone."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

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

#: Special pieces in the order of their ids, 0 upwards. Bytes are pieces too, so none is needed for the unknown.
SPECIAL: Final = ("<pad>", "<s>", "</s>")
PAD, BOS, EOS = range(len(SPECIAL))
#: Pieces, bytes included.
VOCABULARY: Final = 2048
#: Shape of the decoder: 0.7 million weights.
WIDTH, INNER_WIDTH, LAYERS, HEADS = 128, 352, 2, 4
#: Times each snippet starts a chain.
EPOCHS: Final = 6
#: Chains in a batch.
BATCH: Final = 16
#: Probability that a chain goes on after each snippet.
CHAIN: Final = 0.15
#: Share of the pieces read that a batch replaces by random ones, so that the model learns to read past them.
REPLACED: Final = 0.05
#: Peak learning rate and weight decay.
RATE: Final = 2e-3
DECAY: Final = 0.1
#: Rows of one forward pass when measuring.
MEASURE_BATCH: Final = 64
#: Label that the loss doesn't count.
IGNORED: Final = -100


def train_generator(snippets: Sequence[Snippet], out: Path, seed: int) -> Trained:
    """Train on all that isn't held out, write model and tokenizer into `out`, and measure on the rest."""
    started = time.process_time()
    training = [snippet.text for snippet in snippets if not snippet.held_out]
    tokenizer = _train_tokenizer(training)
    rows = [[BOS, *row.ids, EOS] for row in tokenizer.encode_batch(training, add_special_tokens=False)]
    with repeatable(seed) as rng:
        model = _build_model(tokenizer.get_vocab_size())
        train_epochs(model, _epochs(model, rows, rng), total_epochs=EPOCHS, peak_rate=RATE, weight_decay=DECAY)
    seconds = time.process_time() - started

    model.save_pretrained(out)
    _wrap(tokenizer).save_pretrained(out)
    held_out = [snippet.text for snippet in snippets if snippet.held_out]
    return Trained(
        figures={"Snippets trained on": f"{len(rows):,}"} | _figures(model, tokenizer, held_out),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        seconds=seconds,
    )


def _train_tokenizer(texts: Sequence[str]) -> Tokenizer:
    tokenizer = train_pieces(texts, vocabulary=VOCABULARY, special=SPECIAL, any_case=False)
    # No `</s>` at the end: a prompt is there to be gone on with.
    frame(tokenizer, "<s> $A", "<s> $A $B", ("<s>",))
    return tokenizer


def _wrap(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    names = dict(zip(("pad_token", "bos_token", "eos_token"), SPECIAL, strict=True))
    inputs = ("input_ids", "attention_mask")
    return wrap(tokenizer, context=CONTEXT_TOKENS, inputs=inputs, padding_side="left", **names)


def _build_model(vocabulary: int) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        intermediate_size=INNER_WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        max_position_embeddings=CONTEXT_TOKENS,
        tie_word_embeddings=True,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]  # it has no hints
        pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS, max_new_tokens=64
    )
    return model


def _epochs(
    model: LlamaForCausalLM, rows: Sequence[Sequence[int]], rng: random.Random
) -> Iterator[list[Callable[[], Tensor]]]:
    for _ in range(EPOCHS):
        chained = [
            [piece for index in chain for piece in rows[index]][:CONTEXT_TOKENS]
            for chain in chains(len(rows), CHAIN, rng)
        ]
        yield [
            lambda batch=batch, chained=chained: _training_loss(  # type: ignore[misc]  # bound early
                model, pad([chained[index] for index in batch], PAD)
            )
            for batch in length_batches([len(row) for row in chained], BATCH, rng)
        ]


def _training_loss(model: LlamaForCausalLM, ids: Tensor) -> Tensor:
    replaced = (torch.rand(ids.shape) < REPLACED) & (ids >= len(SPECIAL))
    read = torch.where(replaced, torch.randint(len(SPECIAL), model.config.vocab_size, ids.shape), ids)
    return _loss(model, read, ids, reduction="mean")


def _loss(model: LlamaForCausalLM, read: Tensor, ids: Tensor, *, reduction: str) -> Tensor:
    """Cross-entropy of each next piece of `ids`, after what was `read`; both [rows, pieces], padded."""
    # Padding stands on the right, where a causal model doesn't look: no mask is needed.
    logits = model(read, use_cache=False).logits[:, :-1]
    labels = ids[:, 1:].masked_fill(ids[:, 1:] == PAD, IGNORED)
    return functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]), labels.reshape(-1), ignore_index=IGNORED, reduction=reduction
    )


@torch.inference_mode()
def _figures(model: LlamaForCausalLM, tokenizer: Tokenizer, texts: Sequence[str]) -> dict[str, str]:
    """Perplexity over the texts' pieces, their `</s>` included, and the same loss as bits a byte of text."""
    rows = [[*row.ids[: CONTEXT_TOKENS - 1], EOS] for row in tokenizer.encode_batch(list(texts))]
    rows.sort(key=len)
    nats = 0.0
    for start in range(0, len(rows), MEASURE_BATCH):
        ids = pad(rows[start : start + MEASURE_BATCH], PAD)
        nats += _loss(model, ids, ids, reduction="sum").item()
    pieces = sum(len(row) - 1 for row in rows)
    size = sum(len(text.encode()) for text in texts)
    return {
        "Held-out perplexity": f"{math.exp(nats / pieces):.1f} a piece ({pieces:,} pieces of {len(texts):,} snippets)",
        "Held-out bits a byte": f"{nats / math.log(2) / size:.2f}",
    }
