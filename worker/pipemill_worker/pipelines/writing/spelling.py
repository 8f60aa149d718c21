"""Text from tokens as they come: the pieces joined are what the tokenizer makes of all of them."""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream
from transformers import PreTrainedTokenizerFast


class TokenSpeller:
    """Spells one text. A piece is whole: what half characters spell waits for their other half."""

    __slots__ = ("_backend", "_gave_up", "_stream")

    def __init__(self, backend: Tokenizer, *, skip_special_tokens: bool) -> None:
        self._backend = backend
        self._stream = DecodeStream(skip_special_tokens=skip_special_tokens)
        self._gave_up = False

    def __call__(self, token: int) -> str:
        """What a token adds to the text, if that can be said already."""
        if self._gave_up:
            return ""
        try:
            return self._stream.step(self._backend, token) or ""
        except Exception:  # noqa: BLE001 - tokens that change what was spelt before: the rest is told with the end
            self._gave_up = True
            return ""


def speller(tokenizer: Any, *, skip_special_tokens: bool, clean_up: bool | None) -> TokenSpeller | None:
    """What spells a text as ``decode`` would; ``None`` where what was spelt may change with what comes."""
    backend = getattr(tokenizer, "_tokenizer", None)
    own: Any = getattr(type(tokenizer), "_decode", None)
    if not isinstance(backend, Tokenizer) or own is not PreTrainedTokenizerFast._decode:  # noqa: SLF001 - all else decodes otherwise
        return None
    cleans = tokenizer.clean_up_tokenization_spaces if clean_up is None else clean_up
    spared = type(backend.model).__name__ == "BPE" and not getattr(
        tokenizer, "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output", False
    )
    return None if cleans and not spared else TokenSpeller(backend, skip_special_tokens=skip_special_tokens)
