"""All that a measurement of a model depends on: what was measured for one identity says nothing of another."""

from __future__ import annotations

import hashlib
import platform
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import torch

from pipemill_worker.pipelines.loading.sources import model_folder
from pipemill_worker.pipelines.settings import ModelSettings

#: What tells the processor on Linux; elsewhere Python's own guess must do.
_CPU_INFO: Final = Path("/proc/cpuinfo")

#: What of it tells processors of one name apart, on x86 and on ARM.
_CPU_FACTS: Final = ("cpu family", "model", "stepping", "flags", "CPU implementer", "CPU part", "Features")

#: What computes; some of it may be missing.
_LIBRARIES: Final = ("pipemill", "torch", "transformers", "torchao", "bitsandbytes")

#: Files of a folder that make a model what it is.
_FILES: Final = ("*.safetensors", "*.json", "*.py")


def identity(settings: ModelSettings, device: str, threads: int | None) -> dict[str, Any]:
    """The identity of a queue's model on this machine, as JSON.

    ``device`` is where it runs, ``threads`` are the CPU threads of one forward pass.
    """
    return {
        "task": settings.task,
        "model": settings.model,
        "version": settings.revision or _digest(model_folder(settings)),
        "adapter": settings.adapter,
        "adapter_version": settings.adapter_revision or (settings.adapter and _digest(Path(settings.adapter))),
        "dtype": settings.dtype,
        "quantisation": settings.quantisation,
        "compile": settings.compile,
        "device": _device_name(device),
        "threads": threads,
        **{library: _version(library) for library in _LIBRARIES},
    }


def _version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


def _digest(folder: Path) -> str:
    """Changes when a folder's model does: names, sizes and times of its files, which is all one can read quickly."""
    files = sorted({file for pattern in _FILES for file in folder.rglob(pattern)})
    told = [(str(file.relative_to(folder)), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(repr(told).encode()).hexdigest()


def _device_name(device: str) -> str:
    if device.startswith("cuda"):
        return str(torch.cuda.get_device_name(device))
    return f"{device} {_processor()}"


def _processor() -> str:
    try:
        lines = _CPU_INFO.read_text("utf-8").splitlines()
    except OSError:
        lines = []
    told = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in reversed(lines))}
    if not told:
        return platform.processor() or platform.machine()
    # A name may stand for generations, which differ in what they can.
    digest = hashlib.sha256(" ".join(told.get(name, "") for name in _CPU_FACTS).encode()).hexdigest()[:12]
    return f"{told.get('model name', platform.machine())} {digest}"
