"""Weights that are rounded while they are loaded."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Any, Final

import torch
import transformers

from pipemill.errors import MissingExtra
from pipemill_worker.pipelines.loading.placing import device_ahead
from pipemill_worker.pipelines.loading.refusal import Refusal
from pipemill_worker.pipelines.settings import ModelSettings

#: What ``dynamic`` does to the loaded model.
DYNAMIC: Final = "int8-dynamic"

#: Weights that share a scale in int4.
_INT4_GROUP: Final = 32


def quantisation_config(settings: ModelSettings, config: Any) -> Any:
    """What tells transformers of a queue's quantisation; ``None`` if there is none, or it is done after loading.

    Raises
    ------
    Refusal
        When the package, the device or the number format isn't there, or the weights are quantised already.

    """
    wanted = settings.quantisation
    if wanted is None:
        return None
    if getattr(config, "quantization_config", None) is not None:
        raise Refusal("its weights were saved quantised", "remove quantisation: it loads as it is")
    if wanted in {"bnb-int8", "bnb-nf4"}:
        return _bitsandbytes(wanted, settings)
    if wanted == DYNAMIC:
        _check_dynamic(settings)
        return None
    _check_package("torchao", 'pip install "pipemill[quantised]"', wanted)
    if wanted == "int4":
        _check_cuda(wanted, settings)
        if settings.dtype not in {"auto", "bfloat16"}:
            raise Refusal(f"int4 computes in bfloat16, and dtype is {settings.dtype}", "set dtype: to auto or bfloat16")
    quantization = importlib.import_module("torchao.quantization")  # An extra, untyped, and slow to load.
    build: Any = transformers.TorchAoConfig  # It has no hints.
    if wanted == "int8":
        return build(quantization.Int8WeightOnlyConfig())
    # The one format whose kernel is torch's own.
    return build(quantization.Int4WeightOnlyConfig(group_size=_INT4_GROUP, int4_packing_format="tile_packed_to_4d"))


def compute_dtype(settings: ModelSettings) -> str | torch.dtype:
    """The number format in which a model computes."""
    if settings.dtype != "auto":
        dtype: torch.dtype = getattr(torch, settings.dtype)
        return dtype
    return torch.bfloat16 if settings.quantisation == "int4" else "auto"  # Its kernel takes no other.


def _bitsandbytes(wanted: str, settings: ModelSettings) -> Any:
    _check_package("bitsandbytes", "pip install bitsandbytes", wanted)
    _check_cuda(wanted, settings)
    build: Any = transformers.BitsAndBytesConfig  # It has no hints.
    if wanted == "bnb-int8":
        return build(load_in_8bit=True)
    dtype = torch.bfloat16 if settings.dtype == "auto" else compute_dtype(settings)
    return build(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


def _check_dynamic(settings: ModelSettings) -> None:
    if settings.device_map is not None or device_ahead(settings) != "cpu":
        raise Refusal(f"quantisation {DYNAMIC} runs on the CPU only", "set device: cpu, or use int8")
    if settings.dtype not in {"auto", "float32"}:
        raise Refusal(
            f"quantisation {DYNAMIC} rounds float32 weights, and dtype is {settings.dtype}",
            "set dtype: float32, or remove one of the two",
        )
    if settings.adapter is not None:
        raise Refusal(
            f"quantisation {DYNAMIC} rounds layers that an adapter needs as they are",
            "use int8, or merge the adapter into the model (PEFT's merge_and_unload)",
        )


def _check_package(package: str, mend: str, wanted: str) -> None:
    if find_spec(package) is None:
        raise Refusal(f"quantisation {wanted} needs {package}, which isn't installed", mend, MissingExtra)


def _check_cuda(wanted: str, settings: ModelSettings) -> None:
    if not torch.cuda.is_available() or settings.device in {"cpu", "mps"}:
        raise Refusal(f"quantisation {wanted} runs on CUDA devices only", "use int8, or a machine with such a device")
