"""``pipemill doctor`` on a machine where workers run: packages, models, devices, and the place of large media."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from pipemill.catalogue import Catalogue, QueueSettings, Source
from pipemill.catalogue.rules import source_of
from pipemill.doctor import Finding, Verdict
from pipemill.errors import ConfigurationError
from pipemill.store.files import files_of

#: Libraries whose versions decide what a worker can load.
LIBRARIES: Final = ("torch", "transformers", "celery")
#: Below this share of a GPU's memory others use it too.
FREE_SHARE: Final = 0.5
#: Where Linux tells of NVIDIA's driver.
_DRIVER: Final = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A GPU that torch sees."""

    name: str
    #: Its memory, in bytes.
    free: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Devices:
    """What there is to compute on."""

    gpus: Sequence[Gpu] = ()
    #: Whether torch can use a Mac's GPU.
    mps: bool = False
    #: Whether the system has a driver of NVIDIA's.
    driver: bool = False


def checks(catalogue: Catalogue) -> Iterator[Finding]:
    """All that a worker of this catalogue needs of this machine.

    Raises
    ------
    ImportError
        When a worker's packages aren't installed.

    """
    import torch  # noqa: F401, PLC0415  # without it, this machine runs no workers

    missing = [name for name in LIBRARIES if find_spec(name) is None]
    if missing:
        seen, mend = f"not installed: {', '.join(missing)}", 'pip install "pipemill[worker]"'
        yield _found("packages", "versions", Verdict.PROBLEM, seen, mend)
        return
    yield _found("packages", "versions", Verdict.OK, ", ".join(f"{name} {version(name)}" for name in LIBRARIES))
    queues = {name: queue for name, queue in catalogue.queues.items() if queue.model is not None}
    yield from check_packages({queue.task for queue in queues.values()})
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    for name, queue in queues.items():
        yield from check_models(name, queue, offline=offline)
    yield from judge_devices(catalogue.queues, look_at_devices())
    yield from check_place(catalogue)


def _found(area: str, name: str, verdict: Verdict, seen: str, mend: str = "") -> Finding:
    return Finding(area=area, name=name, verdict=verdict, seen=seen, mend=mend)


def check_packages(tasks: Iterable[str]) -> Iterator[Finding]:
    """Whether what these tasks need is installed."""
    from pipemill_worker.pipelines.loading.needs import check_needs  # noqa: PLC0415  # loads torch
    from pipemill_worker.pipelines.loading.refusal import Refusal  # noqa: PLC0415  # as above

    having: list[str] = []
    for task in sorted(tasks):
        try:
            check_needs(task)
            having.append(task)
        except Refusal as refusal:
            yield _found("packages", task, Verdict.PROBLEM, refusal.cause, refusal.mend)
    if having:
        yield _found("packages", "tasks", Verdict.OK, f"there is what these need: {', '.join(having)}")


def check_models(name: str, queue: QueueSettings, *, offline: bool) -> Iterator[Finding]:
    """Whether the queue's model and its adapter are on this machine."""
    from pipemill_worker.pipelines.hub import download_adapter, download_model  # noqa: PLC0415  # the hub's client

    model = partial(download_model, with_code=queue.trust_remote_code, cached_only=True)
    yield judge_model(
        name, queue.model or "", queue.revision, find(model, queue.model, queue.revision), offline=offline
    )
    if queue.adapter is not None:
        folder = find(partial(download_adapter, cached_only=True), queue.adapter, queue.adapter_revision)
        yield judge_model(name, queue.adapter, queue.adapter_revision, folder, offline=offline)


def find(download: Callable[[str, str | None], Path], model: str | None, revision: str | None) -> Path | None:
    """The folder of a model, without going to the hub for it; None if it isn't here."""
    from pipemill_worker.pipelines.loading.sources import BUILTIN_MODELS  # noqa: PLC0415  # loads torch

    source = source_of(model)
    if source is Source.BUILTIN:
        return BUILTIN_MODELS / str(model).partition(":")[2]
    if source is not Source.HUB:
        return Path(str(model))
    try:
        return download(str(model), revision)
    except OSError:  # not in the cache
        return None


def judge_model(name: str, model: str, revision: str | None, folder: Path | None, *, offline: bool) -> Finding:
    """Whether a model can be loaded from its folder."""
    at = f"{model}@{revision[:12]}" if revision else model
    if folder is not None:
        lacking = missing_files(folder)
        if not lacking:
            return _found("models", name, Verdict.OK, f"{at} is in {folder}")
        seen, mend = f"{at} lacks {lacking} in {folder}", "copy it again, with model and configuration"
        return _found("models", name, Verdict.PROBLEM, seen, "pipemill fetch" if revision else mend)
    if offline:
        seen = f"{at} isn't in the hub's cache, and HF_HUB_OFFLINE forbids to download it"
        return _found(
            "models", name, Verdict.PROBLEM, seen, "run pipemill fetch with a network, for this cache (HF_HOME)"
        )
    seen = f"{at} isn't in the hub's cache: the first worker that starts downloads it"
    return _found("models", name, Verdict.WARNING, seen, "download it ahead: pipemill fetch")


def missing_files(folder: Path) -> str:
    """What a model's or an adapter's folder lacks, in words; empty if nothing."""
    if not folder.is_dir():
        return "its folder"
    if not any((folder / file).is_file() for file in ("config.json", "adapter_config.json")):
        return "config.json"
    parts = _parts(folder)
    lost = [part for part in parts if not (folder / part).is_file()]
    if lost:
        return f"{len(lost)} of the {len(parts)} files of its weights"
    return "" if parts or any(folder.glob("*.safetensors")) else "its weights (*.safetensors)"


def _parts(folder: Path) -> list[str]:
    """The files into which large weights are split, as their index lists them."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return []
    weights: Any = json.loads(index.read_text("utf-8")).get("weight_map", {})
    return sorted(set(map(str, weights.values())))


def look_at_devices() -> Devices:
    """What torch finds on this machine."""
    import torch  # noqa: PLC0415  # slow

    gpus = []
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        gpus.append(Gpu(name=torch.cuda.get_device_name(number), free=free, total=total))
    return Devices(gpus=gpus, mps=bool(torch.backends.mps.is_available()), driver=_DRIVER.exists())


def judge_devices(queues: Mapping[str, QueueSettings], devices: Devices) -> Iterator[Finding]:
    """Whether each queue's device is there, and what there is."""
    for name, queue in queues.items():
        if queue.device_map is None and not _has(devices, queue.device):
            seen = f"the catalogue names {queue.device}, and torch sees {_what(devices)}"
            mend = "set device: auto or cpu, or install the driver and the torch of this device"
            yield _found("device", name, Verdict.PROBLEM, seen, mend)
    for number, gpu in enumerate(devices.gpus):
        seen = f"{gpu.name}, {gpu.free / 1e9:.1f} of {gpu.total / 1e9:.1f} GB free"
        if gpu.free < FREE_SHARE * gpu.total:
            mend = "see that the models fit beside what runs there already (nvidia-smi lists it)"
            yield _found("device", f"cuda:{number}", Verdict.WARNING, seen, mend)
        else:
            yield _found("device", f"cuda:{number}", Verdict.OK, seen)
    if devices.mps:
        yield _found("device", "mps", Verdict.OK, "torch can use this Mac's GPU")
    if not devices.gpus and devices.driver:
        mend = "install a torch with CUDA, from the index of this driver's version"
        yield _found("device", "gpu", Verdict.WARNING, "there is an NVIDIA driver, and torch sees no GPU", mend)
    elif not devices.gpus and not devices.mps:
        yield _found("device", "gpu", Verdict.SKIPPED, "there is no GPU: device auto is the CPU")


def _has(devices: Devices, device: str) -> bool:
    kind, _, number = device.partition(":")
    if kind == "cuda":
        return int(number or 0) < len(devices.gpus)
    return devices.mps if kind == "mps" else True


def _what(devices: Devices) -> str:
    return f"{len(devices.gpus)} CUDA devices{', and MPS' if devices.mps else ''}"


def check_place(catalogue: Catalogue) -> Iterator[Finding]:
    """Whether the place of large media takes, gives back and forgets a few bytes."""
    try:
        files = files_of(catalogue.blobs)
        if files is None:
            return
        files.check()
    except ConfigurationError as error:
        mend = "see docs/operations.md, Large media and results: rights, and credentials from the environment"
        yield _found("blobs", "location", Verdict.PROBLEM, str(error), mend)
    else:
        yield _found("blobs", "location", Verdict.OK, "it takes, gives back and forgets a few bytes")
