"""A job's own chance: torch's random numbers from its seed, as in a direct call of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from pipemill_worker.pipelines.collate import Payload


@contextlib.contextmanager
def seeded(payload: Payload, device: Any) -> Iterator[None]:
    """Torch's random numbers from a payload's seed, and as they were afterwards; nothing without a seed."""
    if payload.seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(payload.seed)
        if payload.loads:  # A direct call's data loader draws a seed for workers that it doesn't have.
            torch.empty((), dtype=torch.int64).random_()
        yield
