"""Tiny random models on disk."""

from __future__ import annotations

from pathlib import Path

from tests.unit.pipelines.tiny import MODEL_CLASSES, byte_tokenizer, tiny_model, wordpiece_tokenizer


def save_models(folder: Path) -> None:
    """Save one model for each task, and ``poisoned``: its embeddings end before its tokenizer's last word does."""
    for task in MODEL_CLASSES:
        generates = task == "text-generation"
        tokenizer = byte_tokenizer() if generates else wordpiece_tokenizer()
        save(folder / task, tiny_model(task, "gpt2" if generates else "bert", tokenizer), tokenizer)
    tokenizer = wordpiece_tokenizer()
    poisoned = tiny_model("text-classification", "bert", tokenizer, vocab_size=len(tokenizer) - 1)
    save(folder / "poisoned", poisoned, tokenizer)


def save(folder: Path, model: object, tokenizer: object) -> None:
    """Write model and tokenizer as ``save_pretrained`` does."""
    for part in (model, tokenizer):
        part.save_pretrained(folder)  # type: ignore[attr-defined]  # transformers' own are untyped
