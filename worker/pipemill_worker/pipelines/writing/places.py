"""Each row at a place of its own, in decoders that know one place for all rows of a pass.

Decoders of encoder-decoders count a pass's place from what the cache holds. For rows of differing lengths the modules
that make something of places are asked what they make of each, through their own code, and are stood in for while a
step runs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import torch

#: What of a decoder counts places by what is in the cache, by the names of transformers.
_COUNTED: Final = "past_key_values_length"


class Places:
    """Where the rows of a step are. Used by the thread that owns the device."""

    def __init__(self, decoder: Any, *, shared: bool = False) -> None:
        #: Whether rows of a prompt look at one source.
        self.shared = shared
        #: Tokens before each row's next, and which that is; none while no step of ours runs.
        self._rows: Sequence[tuple[int, int]] = ()
        #: What an embedding makes of a place, by the module's number, the place, and whether a padding stands there.
        self._vectors: dict[tuple[int, int, bool], torch.Tensor] = {}
        #: What a module adds to scores at a distance: ``[heads, distances]``.
        self._biases: dict[int, torch.Tensor] = {}
        for number, module in enumerate(decoder.modules()):
            own: Any = module
            signature = inspect.signature(type(own).forward)
            if _COUNTED in signature.parameters:
                own.forward = partial(self._embedded, number, own, own.forward, signature)
            elif getattr(own, "has_relative_attention_bias", False) and hasattr(own, "compute_bias"):
                own.compute_bias = partial(self._biased, number, own.compute_bias)

    @contextmanager
    def at(self, lengths: Sequence[int], tokens: Sequence[int]) -> Iterator[None]:
        """Meanwhile a pass has one token in each row, behind so many."""
        self._rows = list(zip(lengths, tokens, strict=True))
        try:
            yield
        finally:
            self._rows = ()

    def _embedded(
        self,
        number: int,
        module: Any,
        forward: Callable[..., torch.Tensor],
        signature: inspect.Signature,
        *arguments: Any,
        **named: Any,
    ) -> torch.Tensor:
        """``[rows, 1, size]`` in a step."""
        if not self._rows:
            return forward(*arguments, **named)
        _, *given = signature.bind(module, *arguments, **named).arguments.items()
        padding = getattr(module, "padding_idx", None)
        vectors = []
        for row, (length, token) in enumerate(self._rows):
            key = (number, length, token == padding)
            if key not in self._vectors:
                self._vectors[key] = forward(**_of_row(dict(given), row, length)).reshape(-1)
            vectors.append(self._vectors[key])
        return torch.stack(vectors)[:, None]

    def _biased(
        self, number: int, compute_bias: Callable[..., torch.Tensor], query_length: int, key_length: int, **named: Any
    ) -> torch.Tensor:
        """``[rows, heads, 1, keys]`` in a step."""
        if not self._rows:
            return compute_bias(query_length, key_length, **named)
        known = self._biases.get(number)
        if known is None or known.shape[1] < key_length:
            longest = 2 * key_length
            made = compute_bias(1, longest, **{**named, "past_seen_tokens": longest - 1})
            known = self._biases[number] = made[0, :, 0].flip(-1).contiguous()
        lengths = torch.tensor([length for length, _ in self._rows], device=known.device)
        distances = lengths[:, None] - torch.arange(key_length, device=known.device)  # Those ahead are hidden.
        return known[:, distances.clamp_(min=0)].transpose(0, 1)[:, :, None]


def _of_row(given: Mapping[str, Any], row: int, length: int) -> dict[str, Any]:
    """The arguments that an embedding of places would be given for one row alone."""
    own = dict(given)
    for name, value in given.items():
        if isinstance(value, torch.Tensor) and value.dim() > 1:
            own[name] = value[row : row + 1]
        elif isinstance(value, torch.Size | tuple):  # Marian's kin are only told the shape.
            own[name] = (1, *value[1:])
    own[_COUNTED] = length
    if isinstance(given.get("position_ids"), torch.Tensor):
        own["position_ids"] = torch.full_like(given["position_ids"].reshape(-1)[:1], length)
    return own
