"""Tokenizers with small vocabularies, built in memory."""

from __future__ import annotations

import string
from typing import Any, Final

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

#: What the texts of the jobs are made of.
WORDS: Final[tuple[str, ...]] = (
    *("river", "stone", "cloud", "winter", "music", "garden", "letter", "window", "bridge", "market", "silver"),
    *("forest", "candle", "harbour", "engine", "paper", "mountain", "clock", "orange", "travel"),
    *("the", "a", "is", "was", "where", "what", "this", "of", "about"),
    *("sport", "politics", "science", "weather", "cooking"),
)
#: Bytes as GPT-2 writes them, as far as they are letters, digits, points, a space or a new line: of any other, a model
#: would write broken characters, and one looks like the other.
BYTES: Final = (*(letter for letter in sorted(pre_tokenizers.ByteLevel.alphabet()) if letter.isascii()), "Ġ", "Ċ")
#: It has no hints.
_Fast: Final[Any] = PreTrainedTokenizerFast


def wordpiece(**options: Any) -> Any:
    """Words as BERT's: pieces behind ``##``, ``[CLS]`` and ``[SEP]`` around, pairs told apart by segment."""
    special = ["[unused]", "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]  # RoBERTa's kin can't have the padding at 0.
    letters = string.ascii_lowercase + string.digits + ".,?"
    vocabulary = [
        *special,
        *WORDS,
        *(letter for letter in letters if letter not in WORDS),
        *(f"##{c}" for c in letters),
    ]
    tokenizer = Tokenizer(models.WordPiece({token: i for i, token in enumerate(vocabulary)}, unk_token="[UNK]"))  # noqa: S106  # not a password
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    ends = [(token, special.index(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    settings: dict[str, Any] = {
        **{f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")},
        "bos_token": "[CLS]",
        "eos_token": "[SEP]",
        "model_max_length": 256,
        "model_input_names": ["input_ids", "attention_mask", "token_type_ids"],
        **options,
    }
    return _Fast(tokenizer_object=tokenizer, **settings)


def of_bytes(*special: str, pads: bool = True, ended: bool = False, **options: Any) -> Any:
    """Bytes as GPT-2's, and some special tokens, one of them for padding if it ``pads``.

    ``ended``: each text is closed by the end token, as T5's.
    """
    end, special = "<|end|>", ("<pad>", *special) if pads else special
    vocabulary = [end, *special, *BYTES]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(vocabulary)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if ended:
        tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {end}", special_tokens=[(end, 0)])
    settings: dict[str, Any] = {
        "eos_token": end,
        **({"pad_token": "<pad>"} if pads else {}),
        "model_max_length": 512,
        "model_input_names": ["input_ids", "attention_mask"],
        **options,
    }
    return _Fast(tokenizer_object=tokenizer, additional_special_tokens=list(special), **settings)


def ids(tokenizer: Any, *names: str) -> dict[str, int | None]:
    """The ids of special tokens by the names that configurations have for them, such as ``pad_token_id``."""
    return {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in names}
