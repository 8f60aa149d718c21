"""Keys and values of all rows that are being written, in tensors that are made once and written in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import torch
from transformers.cache_utils import Cache, DynamicLayer

from pipemill_worker.pipelines.writing.draft import Draft

#: Tokens and rows that a slab begins with; it doubles when it grows, since growing copies it.
_TOKENS: Final = 128
_ROWS: Final = 8


class Read(DynamicLayer):
    """One layer's keys and values of a text that was read: ``[1, heads, tokens, size]``."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # theirs has no hints
        self.keys, self.values, self.is_initialized = keys, values, True


def part_of(cache: Any, row: int, length: int) -> Any:
    """One row of a cache, so many tokens of it."""
    rows = slice(row, row + 1)
    return Cache(layers=[Read(each.keys[rows, :, :length], each.values[rows, :, :length]) for each in cache.layers])


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


class Room:
    """Tokens that slabs may have room for, all together."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._slabs: list[Slab] = []

    def share(self, slab: Slab) -> None:
        """Let a slab have its part."""
        self._slabs.append(slab)

    def left(self, slab: Slab, needed: int) -> int:
        """How many tokens a slab may have room for; if it needs them, the others give back what they don't use."""
        others = [each for each in self._slabs if each is not slab]
        if needed > self._most - sum(each.size for each in others):
            for each in others:
                each.shrink()
        return self._most - sum(each.size for each in others)


class Slab:
    """Rows ``0`` to ``rows - 1`` hold a text each; ``add`` and ``drop`` between passes, ``step`` after each."""

    def __init__(self, room: Room) -> None:
        self._room = room
        room.share(self)
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
    def size(self) -> int:
        """Tokens that it has room for, in all rows together."""
        rows, tokens = self._capacity
        return rows * tokens

    @property
    def kept_bytes(self) -> int:
        """What its keys and values take."""
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self.cache.layers)

    @property
    def new_places(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Where each row's next token goes: its row, and its place in it."""
        return self._rows, self._lengths

    def tokens(self, drafts: Sequence[Draft]) -> int:
        """The most that prompts may take together, each row as long as the longest."""
        return sum(each.rows for each in drafts) * max(each.most_tokens for each in drafts)

    def add(self, cache: Any, row: int = 0, beside: int | None = None) -> int:  # noqa: ARG002 - as for other slabs
        """Copy one row of a prompt's own cache into the next free row; which that is."""
        place, length = self.rows, int(cache.layers[0].keys.shape[2])
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

    def copy(self, place: int, into: int, start: int) -> None:
        """Make a row what another is, from some token on."""
        end = self.lengths[place]
        for layer in self.cache.layers:
            layer.keys[into, :, start:end] = layer.keys[place, :, start:end]
            layer.values[into, :, start:end] = layer.values[place, :, start:end]

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
        capacity = capacity_for(rows, tokens, self._capacity, self._room.left(self, rows * tokens))
        self._lay(capacity, like)

    def shrink(self) -> None:
        """Have no more room than for what it holds."""
        if self.cache.layers:
            self._lay((self.rows, self.longest + 1), self.cache)

    def _lay(self, capacity: tuple[int, int], like: Any) -> None:
        layers = self.cache.layers or [_Layer(self) for _ in like.layers]
        for own, theirs in zip(layers, like.layers, strict=True):
            own.keys = _laid(own.keys, theirs.keys, capacity)
            own.values = _laid(own.values, theirs.values, capacity)
        self.cache.layers = layers
        self._capacity = capacity

    def placed(self, tokens: list[int], inputs: Mapping[str, Any]) -> AbstractContextManager[None]:  # noqa: ARG002 - as for other slabs
        """Meanwhile a pass may read these inputs, which say all of it here."""
        return nullcontext()


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


def _laid(old: torch.Tensor | None, like: torch.Tensor, capacity: tuple[int, int]) -> torch.Tensor:
    rows, tokens = capacity
    new = like.new_zeros((rows, like.shape[1], tokens, like.shape[3]))
    if old is not None:
        kept = old[:rows, :, :tokens]
        new[: kept.shape[0], :, : kept.shape[2]] = kept
    return new
