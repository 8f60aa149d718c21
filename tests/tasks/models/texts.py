"""Models that read texts: labels, words, features, cells of a table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tests.tasks.models.parts import SIZES, Builder, named_labels, random_model, save, t
from tests.tasks.models.tokens import ids, of_bytes, wordpiece

_ENTITIES: Final = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
_ENTAILMENT: Final = ("contradiction", "neutral", "entailment")
_GPT2: Final[dict[str, Any]] = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}
_BART: Final[dict[str, Any]] = {
    "d_model": 32,
    "max_position_embeddings": 256,
    **{f"{side}_layers": 2 for side in ("encoder", "decoder")},
    **{f"{side}_attention_heads": 4 for side in ("encoder", "decoder")},
    **{f"{side}_ffn_dim": 37 for side in ("encoder", "decoder")},
}


def bert(head: Callable[[Any], Any], **options: Any) -> Builder:
    """A builder of the encoder that most are kin to, with the head."""

    def build(folder: Path) -> None:
        tokenizer = wordpiece()
        config = t.BertConfig(**SIZES, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **options)
        save(folder, random_model(head, config), tokenizer)

    return build


def gpt2(head: Callable[[Any], Any], **options: Any) -> Builder:
    """A builder of a decoder whose tokenizer has no padding."""

    def build(folder: Path) -> None:
        tokenizer = of_bytes(pads=False)
        config = t.GPT2Config(**_GPT2, vocab_size=len(tokenizer), **ids(tokenizer, "bos", "eos"), **options)
        save(folder, random_model(head, config), tokenizer)

    return build


def classify_bart(folder: Path) -> None:
    """It reads its label off the last end token, of which every row must have equally many."""
    tokenizer = wordpiece()
    special = ids(tokenizer, "pad", "eos")
    config = t.BartConfig(
        **_BART, **special, **named_labels(), vocab_size=len(tokenizer), decoder_start_token_id=tokenizer.eos_token_id
    )
    save(folder, random_model(t.BartForSequenceClassification, config), tokenizer)


def answer_tapas(folder: Path) -> None:
    """It chooses cells of a table, and what to make of them."""
    folder.mkdir(parents=True, exist_ok=True)
    words = wordpiece()
    vocabulary = [*sorted(words.get_vocab(), key=words.get_vocab().get), "[EMPTY]"]
    path = folder / "vocab.txt"
    path.write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    tokenizer = t.TapasTokenizer(str(path), model_max_length=256, max_row_id=8, max_column_id=8)
    config = t.TapasConfig(
        **SIZES,
        vocab_size=len(vocabulary),
        pad_token_id=tokenizer.pad_token_id,
        max_position_embeddings=256,
        type_vocab_sizes=[3, 9, 9, 2, 9, 9, 10],
        max_num_rows=8,
        max_num_columns=8,
        num_aggregation_labels=4,
        aggregation_labels={0: "NONE", 1: "SUM", 2: "AVERAGE", 3: "COUNT"},
    )
    save(folder, random_model(t.TapasForQuestionAnswering, config, seed=8, gain=2.5), tokenizer)


BUILDERS: Final[dict[str, Builder]] = {
    "text-classification.bert": bert(t.BertForSequenceClassification, **named_labels()),
    "text-classification.gpt2": gpt2(t.GPT2ForSequenceClassification, **named_labels()),
    "text-classification.bart": classify_bart,
    "token-classification.bert": bert(t.BertForTokenClassification, **named_labels(_ENTITIES)),
    "fill-mask.bert": bert(t.BertForMaskedLM),
    "feature-extraction.bert": bert(t.BertModel),
    "feature-extraction.gpt2": gpt2(t.GPT2Model),
    "zero-shot-classification.bert": bert(t.BertForSequenceClassification, **named_labels(_ENTAILMENT)),
    "table-question-answering.tapas": answer_tapas,
    "question-answering.bert": bert(t.BertForQuestionAnswering),
    "sentence-embedding.bert": bert(t.BertModel),
    "rerank.bert": bert(t.BertForSequenceClassification, num_labels=1),
}
