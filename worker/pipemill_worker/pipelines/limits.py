"""How many tokens a model takes, told before it fails.

A model with learned positions has a table of them; past its end a CPU raises an unclear ``IndexError`` for the whole
batch, and a GPU's context is lost for good. Models with relative or rotary positions have no such end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

import torch

from pipemill.errors import InputTooLong, InvalidInput, InvalidParameter

#: What transformers' models call their table of positions.
_POSITION_TABLES: Final = frozenset({"embed_positions", "position_embedding", "position_embeddings", "wpe"})

#: The parts of a model that count pixels and frames, not tokens.
_OTHER_SENSES: Final = re.compile(r"(^|\.)\w*(vision|visual|image|audio|video)\w*\.")

#: The parameter of each task that takes the tokenizer's options; ``""`` takes them bare, who isn't here takes none.
_CUTTING: Final[Mapping[str, str]] = {
    "feature-extraction": "tokenize_kwargs",
    "fill-mask": "tokenizer_kwargs",
    "rerank": "",
    "sentence-embedding": "",
    "summarization": "",
    "text-classification": "",
    "text2text-generation": "",
    "translation": "",
}


#: Rows that one job may put through the model: its texts, times their labels or their chunks.
MAX_ITEMS: Final = 4096

#: Bytes of one job's model inputs: an hour of sound has half of it as samples or as features.
MAX_JOB_BYTES: Final = 536_870_912

#: Tokens of a text that a model without a table of positions takes, unless it was made for more: it would take any
#: number, but its attention's time and memory go by their square.
MOST_UNTABLED: Final = 4096


def untabled_limit(model: Any) -> int:
    """The tokens that are given to a model whose positions have no end (rotary, relative)."""
    said = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return max(said, MOST_UNTABLED) if isinstance(said, int) else MOST_UNTABLED


def token_limit(model: torch.nn.Module, part: str = "") -> int | None:
    """The tokens that fit into the model's table of positions; ``None`` if it has none.

    ``part`` is ``encoder`` or ``decoder``, where each reads another text: LED's encoder takes 16 times as much.
    """
    tables = [
        module
        for name, module in model.named_modules()
        if name.rpartition(".")[2] in _POSITION_TABLES
        and isinstance(module, torch.nn.Embedding)
        and not _OTHER_SENSES.search(name)
        and (not part or part in name.split("."))
    ]
    return min(map(_usable_rows, tables), default=None)


def _usable_rows(table: torch.nn.Embedding) -> int:
    """BART and OPT keep their first rows free (``offset``), RoBERTa counts from behind its padding row."""
    offset = getattr(table, "offset", None)
    if isinstance(offset, int):
        return table.num_embeddings - offset
    if table.padding_idx is not None:
        return table.num_embeddings - table.padding_idx - 1
    return table.num_embeddings


def check_tokens(task: str, tokens: int, limit: int | None, tokenizer_limit: int) -> None:
    """Refuse a row of more ``tokens`` than the model takes.

    ``tokenizer_limit`` is the length to which the tokenizer truncates when told to, and to no more.

    Raises
    ------
    InputTooLong
        Names the tokens, the limit, and what to do.

    """
    if limit is None or tokens <= limit:
        return
    cut = {"truncation": True} if tokenizer_limit <= limit else {"truncation": True, "max_length": limit}
    option = _CUTTING.get(task)
    mend = "" if option is None else f"pass {json.dumps({option: cut} if option else cut)} to cut it, or "
    raise InputTooLong(
        f"the text has {tokens} tokens, the model takes at most {limit}: {mend}shorten or split the text"
    )


def check_overlap(name: str, overlap: int, chunk_tokens: int, characters: int) -> None:
    """Refuse chunks that overlap by all they hold, on which tokenizers panic, or by so much that there'd be too many.

    ``name`` is the parameter's, ``chunk_tokens`` are those of a chunk that are free for the text, ``characters`` the
    text's: a token has at least one, and the tokenizer makes all chunks before any can be counted.

    Raises
    ------
    InvalidParameter
        Names the largest overlap.

    """
    most = chunk_tokens - 1 - characters // MAX_ITEMS
    if overlap >= chunk_tokens:
        raise InvalidParameter(
            f"{name} {overlap} is no less than the tokens of a chunk: give at most {chunk_tokens - 1}"
        )
    if overlap > most:
        raise InvalidParameter(
            f"{name} {overlap} cuts this text into too many overlapping parts:"
            f" {f'give at most {most}, or ' if most >= 0 else ''}split the text"
        )


def check_answer(limit: int | None, settings: Mapping[str, Any]) -> None:
    """Refuse an answer that can't end within the positions of an encoder-decoder's decoder.

    Raises
    ------
    InputTooLong
        Names the tokens, the limit, and what to do.

    """
    new = settings.get("max_new_tokens") or settings.get("max_length") or 0
    if limit is not None and new > limit:
        raise InputTooLong(
            f"the answer may have {new} tokens, the model writes at most {limit}:"
            f' pass {{"max_new_tokens": {limit}}} or less'
        )


def check_generation(prompt: int, limit: int | None, settings: Mapping[str, Any]) -> None:
    """Refuse a generation that can't end within the model's positions.

    ``prompt`` counts tokens; ``settings`` are the generation settings in force (``max_new_tokens`` or ``max_length``).

    Raises
    ------
    InputTooLong
        Names the tokens, the limit, and what to do.

    """
    if limit is None:
        return
    if prompt > limit:
        raise InputTooLong(f"the prompt has {prompt} tokens, the model takes at most {limit}: shorten the prompt")
    new = settings.get("max_new_tokens")
    if new is None and 0 < settings.get("max_length", 0) + settings.get("prefix_length", 0) <= prompt:
        raise InputTooLong(
            f"the prompt has {prompt} tokens, and max_length leaves none for the answer: pass max_new_tokens instead"
        )
    if new is None:  # `max_length` counts the prompt in, but not a prefix that the pipeline put before it.
        new = max(0, settings.get("max_length", 0) + settings.get("prefix_length", 0) - prompt)
    room = limit - prompt + 1  # The last new token is never read again.
    if new > room:
        raise InputTooLong(
            f"the prompt has {prompt} tokens and may grow by {new}, the model takes at most {limit}:"
            f' pass {{"max_new_tokens": {room}}} or less, or shorten the prompt'
        )


class Allowance:
    """What a job may still put through the model."""

    def __init__(self) -> None:
        self._items = MAX_ITEMS
        self._bytes = MAX_JOB_BYTES
        self._seen: set[int] = set()

    def after(self, chunk: dict[str, Any]) -> dict[str, Any]:
        """Count a chunk, and give it back.

        Raises
        ------
        InvalidInput
            When there are too many, or they are too large together.

        """
        self._items -= 1
        for value in chunk.values():
            if isinstance(value, torch.Tensor) and value.data_ptr() not in self._seen:  # Labels share their image.
                self._seen.add(value.data_ptr())
                self._bytes -= value.nbytes
        if self._items < 0:
            raise InvalidInput(f"the job has over {MAX_ITEMS} forward passes: split it into several jobs")
        if self._bytes < 0:
            raise InvalidInput(
                f"the job's model inputs have over {MAX_JOB_BYTES} bytes: split it, or let its chunks overlap by less"
            )
        return chunk
