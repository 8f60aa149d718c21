"""Byte-level pieces for both demo models: any text can be written with them, and their training is repeatable.

The WordPiece training of `tokenizers` isn't: pieces of equal count come in another order at each run.
"""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast


def train_pieces(texts: Sequence[str], *, vocabulary: int, special: Sequence[str], any_case: bool) -> Tokenizer:
    """Learn at most `vocabulary` pieces from the texts; the special ones get the ids from 0 in their order.

    With `any_case` the pieces are lower-case, and a text's first word is like any other.
    """
    tokenizer = Tokenizer(models.BPE())
    if any_case:
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=any_case)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def frame(tokenizer: Tokenizer, single: str, pair: str, special: Sequence[str]) -> None:
    """Put special pieces around texts: the templates are those of `TemplateProcessing`."""
    named = [(piece, tokenizer.token_to_id(piece)) for piece in special]
    tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=named)


def wrap(tokenizer: Tokenizer, *, context: int, inputs: Sequence[str], **options: str) -> PreTrainedTokenizerFast:
    """The tokenizer as transformers takes it; the options name the special pieces and the padding side."""
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # it has no hints
        tokenizer_object=tokenizer,
        model_max_length=context,
        model_input_names=list(inputs),
        clean_up_tokenization_spaces=False,
        **options,
    )
