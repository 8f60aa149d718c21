"""How many tokens a model takes, told before it fails.

A model with learned positions has a table of them; past its end a CPU raises an unclear ``IndexError`` for the whole
batch, and a GPU's context is lost for good. Models with relative or rotary positions have no such end.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import torch

from pipemill.errors import InputTooLong, InvalidParameter

#: What transformers' models call their table of positions.
_POSITION_TABLES: Final = frozenset({"embed_positions", "position_embeddings", "wpe"})

#: The parameter of each task that takes the tokenizer's options; ``""`` takes them bare, who isn't here takes none.
_CUTTING: Final[Mapping[str, str]] = {
    "feature-extraction": "tokenize_kwargs",
    "fill-mask": "tokenizer_kwargs",
    "text-classification": "",
}


def token_limit(model: torch.nn.Module) -> int | None:
    """The tokens that fit into the model's table of positions; ``None`` if it has none."""
    tables = [
        module
        for name, module in model.named_modules()
        if name.rpartition(".")[2] in _POSITION_TABLES and isinstance(module, torch.nn.Embedding)
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


def check_stride(stride: int | None, chunk_tokens: int) -> None:
    """Refuse chunks that overlap by all they hold: the tokenizer panics on them.

    Raises
    ------
    InvalidParameter
        Names the largest stride.

    """
    if stride is not None and stride >= chunk_tokens:
        raise InvalidParameter(
            f"stride {stride} is no less than the tokens of a chunk: give at most {chunk_tokens - 1}"
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
    if new is None:  # `max_length` counts the prompt in, but not a prefix that the pipeline put before it.
        new = max(0, settings.get("max_length", 0) + settings.get("prefix_length", 0) - prompt)
    room = limit - prompt + 1  # The last new token is never read again.
    if new > room:
        raise InputTooLong(
            f"the prompt has {prompt} tokens and may grow by {new}, the model takes at most {limit}:"
            f' pass {{"max_new_tokens": {room}}} or less, or shorten the prompt'
        )
