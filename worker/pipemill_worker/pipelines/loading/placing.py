"""On which device a model runs."""

from __future__ import annotations

from typing import Any

import torch

from pipemill_worker.pipelines.loading.refusal import Refusal
from pipemill_worker.pipelines.settings import ModelSettings


def device_of(settings: ModelSettings) -> str | None:
    """The device that a queue names; ``None`` leaves the choice to transformers: the first accelerator, else the CPU.

    Raises
    ------
    Refusal
        When torch finds no such device.

    """
    if settings.device_map is not None or settings.device == "auto":
        return None
    kind = settings.device.partition(":")[0]
    if kind == "cuda" and not torch.cuda.is_available():
        raise Refusal("torch finds no CUDA device", "set device: auto or cpu, or install the driver and a CUDA torch")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise Refusal("torch finds no MPS device", "set device: auto or cpu")
    return "cuda:0" if settings.device == "cuda" else settings.device


def device_ahead(settings: ModelSettings) -> str:
    """Where a queue's model will run, before it is loaded; of a model that is spread out, the first device.

    Raises
    ------
    Refusal
        When torch finds no such device.

    """
    named = device_of(settings)
    if named is not None:
        return named
    if torch.cuda.is_available():
        return "cuda:0"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def placement(settings: ModelSettings) -> dict[str, Any]:
    """Where ``from_pretrained`` is to put the weights; empty is the CPU, from where the pipeline moves them."""
    if settings.device_map is not None:
        return {"device_map": settings.device_map}
    if settings.quantisation is None or not torch.cuda.is_available():
        return {}
    # They are rounded where they will stay: kernels and formats differ between devices.
    device = device_of(settings) or "cuda:0"
    return {"device_map": {"": device}} if device.startswith("cuda") else {}
