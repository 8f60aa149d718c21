"""Attention of rows that lie end to end, each to itself: a call for each length on a CPU, a single one on a GPU."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Final

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from pipemill_worker.pipelines.packing.firsts import look_from_firsts
from pipemill_worker.pipelines.packing.rows import Rows, current

varlen_attn: Any
try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # Before torch 2.10.
    varlen_attn = None

#: Query, key and value as [1, heads, tokens, size], the rows, the scale of the scores, and how far a token sees to
#: either side, ``None`` being without bound; gives [1, tokens, heads, size].
Kernel = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Rows, float | None, int | None], torch.Tensor]

#: Query, key and value of rows of one length, or of a part of each.
_Run = tuple[torch.Tensor, torch.Tensor, torch.Tensor]

#: Tokens that look through one window together: at 64 to either side, the fastest of 64 to 512 (Zen 3).
_BLOCK: Final = 64

#: What torch's kernel for rows of any length computes in, and of which size at most a head may be, in numbers.
_HALVES: Final = frozenset({torch.float16, torch.bfloat16})
_MAX_HEAD_SIZE: Final = 256
#: It loads this many numbers at once.
_HEAD_SIZE_STEP: Final = 8
#: The oldest GPUs that it runs on: Ampere.
_CAPABILITY: Final = (8, 0)

#: What its function must take, some of which came after the function itself.
_ARGUMENTS: Final = frozenset({"enable_gqa", "scale", "window_size"})


def attend(  # noqa: PLR0913, PLR0917 - transformers' signature
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of each row to itself; without a packed pass, torch's own as transformers calls it."""
    rows, looking = current.rows, current.looking
    if looking is not None:
        current.looking = None
        return look_from_firsts(query, key, value, attention_mask, looking, scaling), None
    if rows is None:
        plain: Any = sdpa_attention_forward  # Its hints don't fit its callers.
        return plain(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options)  # type: ignore[no-any-return]  # as above
    window: int | None = options.get("sliding_window")
    kernel = kernel_for(query.device, query.dtype, query.shape[-1]) or run_by_run
    # The layers count the token itself.
    return kernel(query, key, value, rows, scaling, None if window is None else window - 1), None


def mask(*arguments: Any, **options: Any) -> Any:
    """No mask for a packed pass; else transformers' own for torch's attention."""
    return sdpa_mask(*arguments, **options) if current.rows is None else None


def kernel_for(device: torch.device, dtype: torch.dtype, head_size: int) -> Kernel | None:
    """The attention that makes packing faster than padding, if there is one."""
    if device.type == "cpu":
        return run_by_run
    fits = dtype in _HALVES and head_size <= _MAX_HEAD_SIZE and head_size % _HEAD_SIZE_STEP == 0
    return in_one_call if device.type == "cuda" and fits and _has_varlen(device) else None


@cache
def _has_varlen(device: torch.device) -> bool:
    """Whether torch has its kernel for rows of any length, in the form that we call, and the GPU runs it."""
    if varlen_attn is None or not inspect.signature(varlen_attn).parameters.keys() >= _ARGUMENTS:
        return False
    return torch.version.hip is None and torch.cuda.get_device_capability(device) >= _CAPABILITY


def run_by_run(  # noqa: PLR0913, PLR0917 - a kernel's signature
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    rows: Rows,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    """One call of torch's attention for all rows of a length.

    43 rows of 10 tokens took 1.4 ms so, and 2.9 ms one by one (12 heads, Zen 3), with the same numbers.
    """
    shared = query.shape[1] != key.shape[1]
    outputs: list[torch.Tensor] = []
    for run in zip(rows.runs(query[0]), rows.runs(key[0]), rows.runs(value[0]), strict=True):
        parts = [
            scaled_dot_product_attention(*part, attn_mask=seen, scale=scaling, enable_gqa=shared).transpose(1, 2)
            for part, seen in _parts(run, window)
        ]
        # Torch's kernel lays its output out as [rows, tokens, heads, size], so that nothing is moved but whole rows.
        outputs.append((parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)).flatten(0, 1))
    return rows.join(outputs).unsqueeze(0)


def _parts(run: _Run, window: int | None) -> Iterator[tuple[_Run, torch.Tensor | None]]:
    """Rows as they are, if a window spans them; else blocks of them, what they reach, and what each token sees."""
    query, key, value = run
    tokens = query.shape[2]
    if window is None or tokens <= window + 1:
        yield run, None
        return
    places = torch.arange(tokens, device=query.device)
    for start in range(0, tokens, _BLOCK):
        block = slice(start, start + _BLOCK)
        reach = slice(max(0, start - window), start + _BLOCK + window)
        seen = (places[block, None] - places[reach]).abs() <= window
        yield (query[:, :, block], key[:, :, reach], value[:, :, reach]), seen


def in_one_call(  # noqa: PLR0913, PLR0917 - a kernel's signature
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    rows: Rows,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    """Torch's kernel for rows of any length, over all of them at once."""
    longest = max(rows.lengths)
    attended: torch.Tensor = varlen_attn(
        *(each[0].transpose(0, 1) for each in (query, key, value)),
        rows.bounds,
        rows.bounds,
        longest,
        longest,
        scale=scaling,
        window_size=(-1, -1) if window is None else (window, window),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return attended.unsqueeze(0)
