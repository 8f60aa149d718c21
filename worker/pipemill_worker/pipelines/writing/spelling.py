"""Text from tokens as they come: the pieces joined are what the tokenizer makes of all of them."""

from __future__ import annotations

from functools import partial
from typing import Any

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream
from transformers import PreTrainedTokenizerFast

from pipemill_worker.seams import Speller


def token_speller(backend: Any, *, skip_special_tokens: bool) -> Speller:
    """What spells one text. A piece is whole: what half a character spells waits for its other half.

    It raises at tokens that change what was spelt before.
    """
    return partial(DecodeStream(skip_special_tokens=skip_special_tokens).step, backend)


def speller(tokenizer: Any, *, skip_special_tokens: bool, clean_up: bool | None) -> Speller | None:
    """What spells a text as ``decode`` would; ``None`` where what was spelt may change with what comes."""
    backend = getattr(tokenizer, "_tokenizer", None)
    own: Any = getattr(type(tokenizer), "_decode", None)
    if not isinstance(backend, Tokenizer) or own is not PreTrainedTokenizerFast._decode:  # noqa: SLF001 - all else decodes otherwise
        return None
    cleans = tokenizer.clean_up_tokenization_spaces if clean_up is None else clean_up
    spared = type(backend.model).__name__ == "BPE" and not getattr(
        tokenizer, "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output", False
    )
    return None if cleans and not spared else token_speller(backend, skip_special_tokens=skip_special_tokens)
