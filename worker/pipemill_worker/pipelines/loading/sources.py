"""Where a queue's model and its adapter lie: in a folder, always, into which the hub's files are downloaded first.

So all parts of a model come from one pinned revision, and no library can reach for another.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pipemill_worker
from pipemill_worker.pipelines.hub import ADAPTER_CONFIG, ADAPTER_WEIGHTS, download_adapter, download_model
from pipemill_worker.pipelines.loading.refusal import Refusal
from pipemill_worker.pipelines.settings import ModelSettings

#: The models that come with the package, one folder each.
BUILTIN_MODELS: Final = Path(pipemill_worker.__file__).parent / "demo" / "models"

_BUILTIN: Final = "builtin:"


def model_folder(settings: ModelSettings) -> Path:
    """The folder of a queue's model, on this machine.

    Raises
    ------
    Refusal
        When there is none, or it isn't a model's.
    OSError
        When the hub has it not, or can't be reached.

    """
    model = settings.model
    if not model:
        raise Refusal("no model is named", "set model: to a hub id, a folder, or builtin:NAME")
    if model.startswith(_BUILTIN):
        return _builtin_folder(model.removeprefix(_BUILTIN))
    folder = _local_folder(model, "", "config.json and model.safetensors")
    if folder is None:
        if settings.trust_remote_code and settings.revision is None:
            raise Refusal("its code would be run, but no revision pins it", "set revision: to the commit that you read")
        folder = download_model(model, settings.revision, with_code=settings.trust_remote_code)
    if not (folder / "config.json").is_file():
        raise Refusal("the folder holds no config.json", "name the folder that save_pretrained wrote")
    if (folder / ADAPTER_CONFIG).is_file():
        # With PEFT installed, transformers would follow it to a model that no revision pins.
        raise Refusal(
            f"it holds an adapter ({ADAPTER_CONFIG})",
            "name the adapter's base as model: and this as adapter:, or remove the file",
        )
    _check_code_is_its_own(folder)
    return folder


def adapter_folder(adapter: str, revision: str | None) -> Path:
    """The folder of an adapter, on this machine.

    Raises
    ------
    Refusal
        When there is none, or its weights aren't safetensors.
    OSError
        When the hub has it not, or can't be reached.

    """
    subject = f"the adapter {adapter!r}: "
    folder = _local_folder(adapter, subject, f"{ADAPTER_CONFIG} and {ADAPTER_WEIGHTS}")
    if folder is None:
        folder = download_adapter(adapter, revision)
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        if not (folder / name).is_file():
            raise Refusal(
                f"{subject}the folder holds no {name}", "name one that PEFT's save_pretrained wrote, as safetensors"
            )
    return folder


def _local_folder(name: str, subject: str, files: str) -> Path | None:
    """The folder of that name, ``None`` if it is a hub id; ``subject`` and ``files`` are words for a refusal."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise Refusal(f"{subject}this is a file", f"name the folder that holds {files}")
    if folder.is_absolute() or name.startswith(("./", "../", "~")):
        raise Refusal(f"{subject}there is no such folder", "correct the path, or mount the volume that holds it")
    return None


def _builtin_folder(name: str) -> Path:
    known = sorted(path.name for path in BUILTIN_MODELS.iterdir() if path.is_dir()) if BUILTIN_MODELS.is_dir() else []
    if name not in known:
        there = ", ".join(_BUILTIN + other for other in known) or "none in this installation"
        raise Refusal("there is no such built-in model", f"choose one that is there: {there}")
    return BUILTIN_MODELS / name


def _check_code_is_its_own(folder: Path) -> None:
    """Refuse a model whose code lies in another repository, which its revision doesn't pin."""
    for file in folder.glob("*config.json"):
        for reference in _code_references(_read(file)):
            repository, _, _ = reference.partition("--")
            if repository != reference:
                raise Refusal(
                    f"its code lies in another repository, {repository}, at no pinned revision",
                    "copy that code beside the model in a folder of your own, and name the folder",
                )


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return None  # If it is one that counts, whoever reads it tells.


def _code_references(content: Any) -> Iterator[str]:
    found = content.get("auto_map") if isinstance(content, Mapping) else None
    for value in found.values() if isinstance(found, Mapping) else ():
        for reference in value if isinstance(value, list) else [value]:
            if isinstance(reference, str):
                yield reference
