"""Beams look at their source together: its keys and values are kept, and read, once for all of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

#: How transformers calls this attention.
NAME: Final = "pipemill_sources"


class Groups:
    """Which rows look at which source, by these keys of the layers."""

    def __init__(self, sources: Sequence[int], keys: Sequence[torch.Tensor]) -> None:
        device = keys[0].device
        self._keys = frozenset(map(id, keys))
        members: list[list[int]] = [[] for _ in range(max(sources) + 1)]
        for row, source in enumerate(sources):
            members[source].append(row)
        self._most = max(map(len, members))
        #: Each source's rows, filled up with one that is computed for nothing.
        rows = [row for own in members for row in own + own[:1] * (self._most - len(own))]
        #: Where each row is in that.
        places = [source * self._most + members[source].index(row) for row, source in enumerate(sources)]
        self._rows, self._places = torch.tensor(rows, device=device), torch.tensor(places, device=device)

    def holds(self, keys: torch.Tensor) -> bool:
        """Whether these are a layer's keys of sources."""
        return id(keys) in self._keys

    def gather(self, queries: torch.Tensor) -> torch.Tensor:
        """``[rows, heads, 1, size]`` to ``[sources, heads, beams, size]``."""
        rows = queries[self._rows, :, 0]
        return rows.view(-1, self._most, *rows.shape[1:]).transpose(1, 2)

    def scatter(self, attended: torch.Tensor) -> torch.Tensor:
        """``[sources, beams, heads, size]`` to ``[rows, 1, heads, size]``."""
        return attended.flatten(0, 1)[self._places, None]


class _Current(threading.local):
    #: Those of the step that runs in this thread.
    groups: Groups | None = None


_current: Final = _Current()


@contextmanager
def grouped(groups: Groups | None) -> Iterator[None]:
    """Meanwhile rows look at their sources so."""
    _current.groups = groups
    try:
        yield
    finally:
        _current.groups = None


def share(model: Any) -> bool:
    """Let a model's decoder look at sources so, where it uses torch's own attention; whether it does."""
    if model.config._attn_implementation == "sdpa":  # noqa: SLF001 - there is no public way
        AttentionInterface.register(NAME, _attend)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        model.set_attn_implementation(NAME)
    return bool(model.config._attn_implementation == NAME)  # noqa: SLF001 - as above


def share_again(model: Any) -> None:
    """The same for a model that did: for the times of words, Whisper's ``generate`` changes it for good."""
    if model.config._attn_implementation != NAME:  # noqa: SLF001 - there is no public way
        model.set_attn_implementation(NAME)


def unshare(model: Any) -> None:
    """Let it look as ever."""
    if model.config._attn_implementation == NAME:  # noqa: SLF001 - there is no public way
        model.set_attn_implementation("sdpa")


def _attend(  # noqa: PLR0913, PLR0917 - transformers' signature
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Torch's own attention as transformers calls it; of all rows of a source at once where there are several."""
    plain: Any = sdpa_attention_forward  # Its hints don't fit its callers.
    groups = _current.groups
    if groups is None or not groups.holds(key):
        attended, _ = plain(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options)
        return attended, None
    options["is_causal"] = False
    gathered = groups.gather(query)
    attended, _ = plain(module, gathered, key, value, attention_mask, dropout=dropout, scaling=scaling, **options)
    return groups.scatter(attended), None
