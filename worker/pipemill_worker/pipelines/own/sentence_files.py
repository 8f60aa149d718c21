"""What a sentence-transformers repository says beside its weights: how tokens become one vector or one score."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from huggingface_hub import constants, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

#: The library's list of modules, in order.
MODULES: Final = "modules.json"

#: The library's settings for the whole model: prompts, the activation of a cross-encoder.
SETTINGS: Final = "config_sentence_transformers.json"

#: Its settings of the transformer; older versions named the file after the model type.
_TRANSFORMER_SETTINGS: Final = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)

_LIBRARY: Final = "sentence_transformers."

#: The library's names of poolings, and ours for those we have.
_POOLINGS: Final = {"mean": "mean", "cls": "cls", "lasttoken": "last"}

#: Its older flags of poolings: ``pooling_mode_<flag>``.
_POOLING_FLAGS: Final = {
    "cls_token": "cls",
    "max_tokens": "max",
    "mean_tokens": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "weightedmean_tokens": "weightedmean",
    "lasttoken": "lasttoken",
}

#: Reads a file of a repository by name; ``None`` if there is none.
_Read = Callable[[str], Any]


def sentence_defaults(files: Mapping[str, Any]) -> dict[str, Any]:
    """How a repository's model embeds sentences.

    ``files`` maps names of files to their parsed JSON; without ``modules.json`` the model is no sentence-transformers
    model, and nothing is said. May hold ``pooling`` ("mean", "cls", "last"), ``normalize``, ``max_length`` (tokens),
    ``lower_case``, ``prompts``, ``prompt`` (the default one), ``truncate_dim``.

    Raises
    ------
    ValueError
        Names the module or the pooling that isn't supported.

    """
    if MODULES not in files:
        return {}
    found: dict[str, Any] = {"pooling": "mean", "normalize": False}
    for kind, path in _modules(files[MODULES]):
        if kind == "Transformer":
            found |= _transformer(files, path)
        elif kind == "Pooling":
            found["pooling"] = _pooling(files.get(_within(path, "config.json"), {}))
        elif kind == "Normalize":
            found["normalize"] = True
        else:
            raise ValueError(f"its module {kind!r} isn't supported: choose a model of Transformer, Pooling, Normalize")
    return found | _settings(files.get(SETTINGS, {}))


def rerank_defaults(files: Mapping[str, Any]) -> dict[str, Any]:
    """How a repository's cross-encoder scores: may hold ``activation_fn`` (a dotted name), ``max_length`` (tokens).

    Raises
    ------
    ValueError
        Names the module or the setting that isn't supported.

    """
    found: dict[str, Any] = {}
    for kind, path in _modules(files.get(MODULES, [])):
        if kind != "Transformer":
            raise ValueError(f"its module {kind!r} isn't supported: choose a sequence classifier with one label")
        found |= _transformer(files, path, task="sequence-classification")
    settings = files.get(SETTINGS, {})
    if settings.get("default_prompt_name") is not None:
        raise ValueError("its default prompt isn't supported: choose a cross-encoder without one")
    if settings.get("activation_fn") is not None:
        found["activation_fn"] = settings["activation_fn"]
    return found


def read_sentence_files(source: str, revision: str | None = None) -> dict[str, Any]:
    """The parsed JSON files of a local folder or a repository of the hub that the functions above look at.

    Raises
    ------
    ValueError
        When a file isn't JSON.
    huggingface_hub.errors.HfHubHTTPError, LocalEntryNotFoundError
        When the hub doesn't answer. Offline, a file that isn't in the cache counts as missing.

    """
    folder = Path(source)
    read = (
        _reader(lambda name: folder / name)
        if folder.is_dir()
        else _reader(lambda name: _of_hub(source, name, revision))
    )
    files = {name: content for name in (MODULES, SETTINGS) if (content := read(name)) is not None}
    for kind, path in _modules(files.get(MODULES, [])):
        names: Iterable[str] = _TRANSFORMER_SETTINGS if kind == "Transformer" else ("config.json",)
        for name in names:
            content = read(_within(path, name)) if kind in {"Transformer", "Pooling"} else None
            if content is not None:
                files[_within(path, name)] = content
                break
    return files


def _reader(locate: Callable[[str], Path | None]) -> _Read:
    def read(name: str) -> Any:
        path = locate(name)
        if path is None or not path.is_file():
            return None
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{name} isn't JSON: copy or download the model again") from error

    return read


def _of_hub(repository: str, name: str, revision: str | None) -> Path | None:
    try:
        return Path(hf_hub_download(repository, name, revision=revision))
    except LocalEntryNotFoundError:
        if constants.is_offline_mode():
            return None
        raise
    except EntryNotFoundError:
        return None


def _modules(listed: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Kind and folder of each module; those of other packages keep their full name, since we can't know them."""
    modules = []
    for module in listed:
        kind = str(module["type"])
        modules.append((kind.rpartition(".")[2] if kind.startswith(_LIBRARY) else kind, str(module.get("path", ""))))
    return modules


def _within(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _transformer(files: Mapping[str, Any], folder: str, *, task: str = "feature-extraction") -> dict[str, Any]:
    paths = [_within(folder, name) for name in _TRANSFORMER_SETTINGS]
    settings: Mapping[str, Any] = next((files[path] for path in paths if path in files), {})
    if settings.get("transformer_task", task) != task:
        raise ValueError(f"its transformer_task {settings['transformer_task']!r} isn't supported: only {task!r} is")
    found: dict[str, Any] = {}
    if settings.get("max_seq_length") is not None:
        found["max_length"] = int(settings["max_seq_length"])
    if settings.get("do_lower_case"):
        found["lower_case"] = True
    return found


def _pooling(settings: Mapping[str, Any]) -> str:
    modes = settings.get("pooling_mode")
    if modes is None:
        modes = [mode for flag, mode in _POOLING_FLAGS.items() if settings.get(f"pooling_mode_{flag}")] or ["mean"]
    modes = [modes] if isinstance(modes, str) else modes
    if len(modes) > 1 or modes[0] not in _POOLINGS:
        raise ValueError(f"its pooling {'+'.join(modes)!r} isn't supported: choose a model with {', '.join(_POOLINGS)}")
    if not settings.get("include_prompt", True):
        raise ValueError("its pooling leaves the prompt out, which isn't supported: choose another model")
    return _POOLINGS[modes[0]]


def _settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    prompts = {name: prompt for name, prompt in (settings.get("prompts") or {}).items() if prompt}
    found: dict[str, Any] = {"prompts": prompts} if prompts else {}
    prompt = prompts.get(settings.get("default_prompt_name") or "")
    if prompt is not None:
        found["prompt"] = prompt
    if settings.get("truncate_dim") is not None:
        found["truncate_dim"] = int(settings["truncate_dim"])
    return found
