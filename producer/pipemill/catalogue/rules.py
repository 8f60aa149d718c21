"""Rules of a queue that concern more than one field."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from pipemill.parameters import find_parameter_mistakes
from pipemill.validation import Explanation, did_you_mean, mistaken, several, shown

#: Models that the worker's package brings along, and the task each is for.
BUILTIN_MODELS: Final[Mapping[str, str]] = MappingProxyType(
    {"builtin:sentiment": "text-classification", "builtin:generator": "text-generation"}
)
#: How a model may be named, in words.
MODEL_FORMS: Final = (
    "a hub id such as org/name, a directory that starts with ./ ../ or / "
    f"(relative to the catalogue), or {' or '.join(BUILTIN_MODELS)}"
)
#: How an adapter may be named, in words.
ADAPTER_FORMS: Final = (
    "a hub id such as org/name, or a directory that starts with ./ ../ or / (relative to the catalogue)"
)

_QUEUE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_COMMIT: Final = re.compile(r"[0-9a-f]{7,40}")


def check_queue_name(name: str) -> str:
    """Check a queue's name, which is also the name of its list in Redis.

    Raises
    ------
    PydanticCustomError
        With the problem and the mend.

    """
    if name == "celery":
        raise mistaken("the name of Celery's own default queue", "choose another name")
    if not _QUEUE_NAME.fullmatch(name):
        raise mistaken(
            "not a queue's name", "use 1 to 64 letters, digits, dots, dashes and underscores, a letter or digit first"
        )
    return name


class Source(StrEnum):
    """Where a queue's model comes from."""

    #: The Hugging Face hub, at a pinned commit.
    HUB = "hub"
    #: A directory of this machine.
    DIRECTORY = "directory"
    #: The worker's own package.
    BUILTIN = "builtin"
    #: There is no model.
    NONE = "none"


def source_of(model: str | None) -> Source:
    """Where a model comes from, by the form of its name."""
    if model is None:
        return Source.NONE
    if model.startswith("builtin:"):
        return Source.BUILTIN
    return Source.DIRECTORY if model.startswith(("./", "../", "/")) or model in {".", ".."} else Source.HUB


def check_model(model: str | None, task: str | None, *, folder: Path | None) -> str | None:
    """Check a model's name against its queue's task; return it, a directory as an absolute path.

    Raises
    ------
    PydanticCustomError
        With the problem and the mend.

    """
    if task == "echo":
        if model is not None:
            raise mistaken("echo has no model", "remove this line")
        return None
    if model is None:
        if task is None:
            return None  # an unknown task is a mistake of its own, and might have been echo
        raise mistaken("missing", f"give {MODEL_FORMS}")
    source = source_of(model)
    if source is Source.BUILTIN:
        _check_builtin(model, task)
    elif source is Source.HUB and not _HUB_ID.fullmatch(model):
        raise mistaken(f"{shown(model)} is neither a hub id nor a directory", f"give {MODEL_FORMS}")
    elif source is Source.DIRECTORY and folder is not None:
        return str((folder / model).resolve())
    return model


def _check_builtin(model: str, task: str | None) -> None:
    meant = BUILTIN_MODELS.get(model)
    if meant is None:
        kind, _, name = model.partition(":")
        close = did_you_mean(name, (known.partition(":")[2] for known in BUILTIN_MODELS))
        mend = f"did you mean {kind}:{close}?" if close else f"use {' or '.join(BUILTIN_MODELS)}"
        raise mistaken(f"there is no {shown(model)}", mend)
    if task not in {meant, None}:
        raise mistaken(f"{model} is for {meant}, not for {task}", f"set task to {meant} or name another model")


def check_revision(revision: Any, model: str | None) -> None:
    """Check that a hub model is pinned to a commit, and that no other model claims a revision.

    Raises
    ------
    PydanticCustomError
        With the problem and the mend.

    """
    source = source_of(model)
    if source is not Source.HUB:
        if revision is not None:
            what = {Source.NONE: "echo has no model", Source.BUILTIN: "a builtin model has no revision"}
            raise mistaken(what.get(source, "a directory has no revision"), "remove this line")
        return
    mend = f"give the commit hash that the hub shows in the history of {model}, 7 to 40 hex digits"
    if revision is None:
        raise mistaken("missing", mend)
    if isinstance(revision, int | float):
        raise mistaken("YAML reads it as a number", "put the commit hash in quotes")
    if isinstance(revision, str) and not _COMMIT.fullmatch(revision):
        raise mistaken(f"{shown(revision)} is not a commit hash, and a branch or tag can move", mend)


def check_adapter(adapter: str | None, task: str | None, *, folder: Path | None) -> str | None:
    """Check an adapter's name against its queue's task; return it, a directory as an absolute path.

    Raises
    ------
    PydanticCustomError
        With the problem and the mend.

    """
    if adapter is None:
        return None
    if task == "echo":
        raise mistaken("echo has no model", "remove this line")
    source = source_of(adapter)
    if source is Source.DIRECTORY:
        return str((folder / adapter).resolve()) if folder is not None else adapter
    if source is not Source.HUB or not _HUB_ID.fullmatch(adapter):
        raise mistaken(f"{shown(adapter)} is neither a hub id nor a directory", f"give {ADAPTER_FORMS}")
    return adapter


def check_adapter_revision(revision: Any, adapter: str | None) -> None:
    """Check that a hub adapter is pinned to a commit, and that none else claims a revision.

    Raises
    ------
    PydanticCustomError
        With the problem and the mend.

    """
    if adapter is None and revision is not None:
        raise mistaken("there is no adapter", "remove this line, or name an adapter")
    check_revision(revision, adapter)


def check_remote_code(model: str | None, *, trusted: bool) -> None:
    """Check that only a model that may bring code is trusted with it.

    Raises
    ------
    PydanticCustomError
        With the problem and the mend.

    """
    what = {Source.NONE: "echo has no model", Source.BUILTIN: "a builtin model brings no code"}
    if trusted and (problem := what.get(source_of(model))) is not None:
        raise mistaken(problem, "remove this line")


def check_some(hosts: tuple[str, ...]) -> tuple[str, ...]:
    """Check that there is a host; pydantic's own bound would count a wrong one as missing, too.

    Raises
    ------
    PydanticCustomError
        With the problem and the mend.

    """
    if not hosts:
        raise mistaken("empty", "name at least one host, or remove the section")
    return hosts


def check_device_map(device_map: str | None, device: str | None) -> None:
    """Check that a model isn't both spread and put on one device.

    Raises
    ------
    PydanticCustomError
        With the problem and the mend.

    """
    if device_map is not None and device not in {None, "auto"}:
        raise mistaken(f"excludes device, which is {device}", "keep one of the two")


def check_engine(engine: str, settings: Mapping[str, Any]) -> None:
    """Check that an engine suits the rest of its queue's settings, as far as those are right.

    Raises
    ------
    PydanticCustomError
        With the problem and the mend.

    """
    if engine == "exact":
        return
    if settings.get("task") not in {None, "text-generation"}:
        raise mistaken(f"is for text-generation, and the task is {settings['task']}", "leave it out")
    excluded = ("quantisation", "device_map", "adapter", "trust_remote_code") if engine == "vllm" else ("compile",)
    for name in excluded:
        if settings.get(name):
            raise mistaken(f"excludes {name}", "keep one of the two")


def check_vllm_python(python: str | None, engine: str | None) -> None:
    """Check that vLLM's Python is named only where vLLM is chosen.

    Raises
    ------
    PydanticCustomError
        With the problem and the mend.

    """
    if python is not None and engine not in {None, "vllm"}:
        raise mistaken(f"is for engine vllm, and the engine is {engine}", "leave it out, or set engine: vllm")


def check_parameters(task: str, parameters: Mapping[str, Any]) -> None:
    """Check a queue's default parameters by its task's allow-list.

    Raises
    ------
    PydanticCustomError
        With every mistake.

    """
    found = find_parameter_mistakes(task, parameters)
    if found:
        raise several(found)


def find_missing_models(data: Mapping[str, Any], folder: Path) -> list[Explanation]:
    """The directories that queues name as models or adapters and that hold none, whatever else is wrong with them."""
    queues = data.get("queues")
    found = []
    for name, queue in queues.items() if isinstance(queues, Mapping) else ():
        for key, missing in (("model", _missing), ("adapter", _missing_adapter)):
            named = queue.get(key) if isinstance(queue, Mapping) else None
            if isinstance(named, str) and source_of(named) is Source.DIRECTORY:
                problem = missing(folder / named)
                if problem:
                    mend = "name the directory that save_pretrained wrote"
                    found.append(Explanation(keys=("queues", str(name), key), problem=problem, mend=mend))
    return found


def _missing_adapter(directory: Path) -> str | None:
    if not directory.is_dir():
        return "there is no such directory"
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if not (directory / name).is_file():
            return f"the directory holds no {name}"
    return None


def _missing(directory: Path) -> str | None:
    if not directory.is_dir():
        return "there is no such directory"
    if not (directory / "config.json").is_file():
        return "the directory holds no config.json"
    if next(directory.glob("*.safetensors"), None) is None:
        return "the directory holds no *.safetensors, the only weights that are loaded"
    return None
