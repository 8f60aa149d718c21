"""Keys and values of all rows that are being written, in tensors that are made once and written in place."""

from __future__ import annotations

from typing import Any, Final

import torch
from transformers.cache_utils import Cache, DynamicLayer

#: Tokens and rows that a slab begins with; it doubles when it grows, since growing copies it.
_TOKENS: Final = 128
_ROWS: Final = 8


class _Layer(DynamicLayer):
    """One layer's part: ``[rows, heads, tokens, size]``, of which rows hold differently many tokens."""

    keys: Any
    values: Any

    def __init__(self, slab: Slab) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # theirs has no hints
        self._slab = slab
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Put each row's new token behind its last; what all rows have, the mask hiding what is beyond their ends."""
        slab = self._slab
        rows, places = slab.new_places
        self.keys[rows, :, places] = key_states[:, :, 0]
        self.values[rows, :, places] = value_states[:, :, 0]
        return self.keys[: len(rows), :, : slab.longest + 1], self.values[: len(rows), :, : slab.longest + 1]

    def get_seq_length(self) -> int:
        """Tokens of the longest row, before the pass."""
        return self._slab.longest


class Slab:
    """Rows ``0`` to ``rows - 1`` hold a text each; ``add`` and ``drop`` between passes, ``step`` after each."""

    def __init__(self, max_tokens: int) -> None:
        #: Most tokens that it has room for, in all rows together.
        self._max_tokens = max_tokens
        self.lengths: list[int] = []
        self.cache: Any = Cache(layers=[])
        #: The same as ``lengths``, and the rows' numbers, where the model is.
        self._lengths = self._rows = torch.empty(0, dtype=torch.long)
        self._capacity = (0, 0)

    @property
    def rows(self) -> int:
        """Rows in use."""
        return len(self.lengths)

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return max(self.lengths, default=0)

    @property
    def new_places(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Where each row's next token goes: its row, and its place in it."""
        return self._rows, self._lengths

    def add(self, cache: Any, row: int, length: int) -> int:
        """Copy so many tokens of one row of prompts' own cache into the next free row; which that is."""
        place = self.rows
        self._reserve(cache, place + 1, length + 1)
        for own, theirs in zip(self.cache.layers, cache.layers, strict=True):
            own.keys[place, :, :length] = theirs.keys[row, :, :length]
            own.values[place, :, :length] = theirs.values[row, :, :length]
        self.lengths.append(length)
        self._note()
        return place

    def drop(self, place: int) -> int:
        """Free a row. The last one moves into its place; the number of the row that moved."""
        last = self.rows - 1
        length = self.lengths.pop()
        if place != last:
            self.lengths[place] = length
            for layer in self.cache.layers:
                layer.keys[place, :, :length] = layer.keys[last, :, :length]
                layer.values[place, :, :length] = layer.values[last, :, :length]
        self._note()
        return last

    def inputs(self, tokens: list[int]) -> dict[str, Any]:
        """What the model is given for one more token in each row."""
        self._reserve(self.cache, self.rows, self.longest + 1)
        device = self._lengths.device
        positions = self._lengths[:, None]
        mask = None
        if min(self.lengths) < self.longest:
            mask = (torch.arange(self.longest + 1, device=device) <= positions)[:, None, None]
        ids = torch.tensor(tokens, device=device)[:, None]
        return {"input_ids": ids, "position_ids": positions, "attention_mask": mask, "past_key_values": self.cache}

    def step(self) -> None:
        """Each row has one token more."""
        self.lengths = [length + 1 for length in self.lengths]
        self._note()

    def _note(self) -> None:
        device = self.cache.layers[0].keys.device
        self._lengths = torch.tensor(self.lengths, device=device)
        self._rows = torch.arange(self.rows, device=device)

    def _reserve(self, like: Any, rows: int, tokens: int) -> None:
        """Grow to hold so many rows of so many tokens."""
        had_rows, had_tokens = self._capacity
        if rows <= had_rows and tokens <= had_tokens:
            return
        capacity = capacity_for(rows, tokens, self._capacity, self._max_tokens)
        layers = self.cache.layers or [_Layer(self) for _ in like.layers]
        for own, theirs in zip(layers, like.layers, strict=True):
            own.keys = _grown(own.keys, theirs.keys, capacity)
            own.values = _grown(own.values, theirs.values, capacity)
        self.cache.layers = layers
        self._capacity = capacity


def capacity_for(rows: int, tokens: int, had: tuple[int, int], most: int) -> tuple[int, int]:
    """Rows and tokens of each for which a slab is to have room: doubled, as far as ``most`` tokens in all allow."""
    own_rows, own_tokens = _doubled(had[0] or _ROWS, rows), _doubled(had[1] or _TOKENS, tokens)
    if own_rows * own_tokens <= most:
        return own_rows, own_tokens
    own_tokens = min(own_tokens, max(most // rows, tokens))
    return max(rows, most // own_tokens), own_tokens


def _doubled(size: int, needed: int) -> int:
    while size < needed:
        size *= 2
    return size


def _grown(old: torch.Tensor | None, like: torch.Tensor, capacity: tuple[int, int]) -> torch.Tensor:
    rows, tokens = capacity
    new = like.new_zeros((rows, like.shape[1], tokens, like.shape[3]))
    if old is not None:
        kept = old[:rows, :, :tokens]
        new[: kept.shape[0], :, : kept.shape[2]] = kept
    return new
