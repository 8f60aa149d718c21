"""Where the real tokens of a padded batch stand, and tensors of the batch with and without its padding."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import Any, Final, NamedTuple

import torch
from torch import nn

from pipemill_worker.policy.sizes import rounded_up

#: Dimensions of a mask that says which tokens are real: [rows, tokens].
_MASK_DIMENSIONS: Final = 2


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Rows:
    """The rows of a batch, whose real tokens stand side by side in each; packed in order of their lengths."""

    #: Tokens of each row, without padding, in the order in which they are packed.
    lengths: list[int]
    #: Places of a row in the batch, padding included.
    columns: int
    #: Where the real tokens stand, counted through all rows of the batch, in the order in which they are packed.
    places: torch.Tensor
    #: Where each row begins among the packed tokens, and where the last one ends, as torch's kernel for GPUs takes it.
    bounds: torch.Tensor
    #: Where the first token of each row of the batch is packed.
    firsts: torch.Tensor
    #: How many rows there are of each length, as they are packed, and that length.
    counts: list[tuple[int, int]]
    #: Where what is packed is taken from: ``places``, and behind them some of the first tokens again, as fillers.
    taken: torch.Tensor

    def pack(self, padded: torch.Tensor) -> torch.Tensor:
        """``[rows, columns, …]`` to ``[1, tokens and fillers, …]``."""
        return padded.flatten(0, 1).index_select(0, self.taken).unsqueeze(0)

    def join(self, runs: list[torch.Tensor]) -> torch.Tensor:
        """What was computed of rows of each length, ``[tokens of them, …]``, to ``[tokens and fillers, …]``."""
        fillers = len(self.taken) - len(self.places)
        return torch.cat([*runs, runs[0].new_zeros(fillers, *runs[0].shape[1:])] if fillers else runs)

    def pack_positions(self, table: torch.Tensor) -> torch.Tensor:
        """What stands for positions, ``[rows, columns, …]`` or one row for all, to ``[1, tokens and fillers, …]``."""
        one_for_all = table.shape[0] == 1
        places = self.taken % self.columns if one_for_all else self.taken
        return table.flatten(0, 1).index_select(0, places).unsqueeze(0)

    @property
    def begins(self) -> torch.Tensor:
        """Where each row begins among the packed tokens, in the order in which they are packed."""
        return self.bounds[:-1]

    def runs(self, packed: torch.Tensor) -> Iterator[torch.Tensor]:
        """Rows of one length together: ``[heads, tokens, size]`` to ``[rows, heads, length, size]`` of each length."""
        heads, _, size = packed.shape
        start = 0
        for count, length in self.counts:
            end = start + count * length
            yield packed[:, start:end].view(heads, count, length, size).transpose(0, 1)
            start = end

    def unpack(self, packed: torch.Tensor) -> torch.Tensor:
        """``[1, tokens and fillers, …]`` to ``[rows, columns, …]``, zeros where the padding is."""
        sizes = packed.shape[2:]
        padded = packed.new_zeros(len(self.lengths) * self.columns, *sizes)
        return padded.index_copy_(0, self.places, packed[0, : len(self.places)]).view(-1, self.columns, *sizes)


def rows_to_pack(mask: Any, most_filled: int = 0) -> Rows | None:
    """The rows of a batch by its attention mask; ``None`` where there is nothing to gain, or padding to be kept.

    Up to ``most_filled`` tokens, fillers round them to one of a few sizes.

    A batch is as wide as its longest row. Where even that one has padding, the tokenizer put it there: it belongs to
    the inputs, and ``feature-extraction`` answers for it.
    """
    if not isinstance(mask, torch.Tensor) or mask.dim() != _MASK_DIMENSIONS:
        return None
    columns = mask.shape[1]
    real = mask != 0
    counts = real.sum(dim=1)
    sorted_counts, order = counts.sort(stable=True)
    lengths: list[int] = sorted_counts.tolist()
    if not 0 < lengths[0] < lengths[-1] == columns:
        return None
    bounds = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=mask.device)
    rows, columns_of = real[order].nonzero(as_tuple=True)
    places = order[rows] * columns + columns_of
    fillers = rounded_up(len(places)) - len(places) if len(places) <= most_filled else 0
    return Rows(
        lengths=lengths,
        columns=columns,
        places=places,
        bounds=bounds,
        firsts=bounds[:-1].index_select(0, order.argsort()),
        counts=[(len(list(run)), length) for length, run in groupby(lengths)],
        taken=torch.cat([places, places[:fillers]]) if fillers else places,
    )


class Looking(NamedTuple):
    """A last layer that looks from first tokens only."""

    #: Rows and places of what it looks at.
    shape: tuple[int, int]
    #: What would have made keys and values of it, if they were left out; empty where they were made.
    left_out: tuple[nn.Linear, ...] = ()


class _Pass(threading.local):
    """The pass that this thread runs."""

    #: Its rows while they are laid end to end; else ``None``.
    rows: Rows | None = None
    #: Whether of the last layer's output only each row's first token is read.
    first_only: bool = False
    #: While that layer looks from first tokens only.
    looking: Looking | None = None


#: The attention is a function that only transformers calls, so what it needs to know lies here.
current: Final = _Pass()
