"""PEFT adapters: small weights on top of a model's own."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from safetensors import safe_open

from pipemill.errors import MissingExtra
from pipemill_worker.pipelines.hub import ADAPTER_WEIGHTS
from pipemill_worker.pipelines.loading.refusal import Refusal
from pipemill_worker.pipelines.loading.sources import adapter_folder
from pipemill_worker.pipelines.settings import ModelSettings

#: What PEFT puts before the keys of a model's weights, and within those of layers that it replaces.
_PREFIX: Final = "base_model.model."
_REPLACED: Final = ".modules_to_save"

_OTHER_BASE: Final = "name the model that the adapter was trained on as model:"


def add_adapter(model: Any, settings: ModelSettings) -> set[str]:
    """Put a queue's adapter into its model, if it has one; returns the keys of the model's weights that it brings.

    Raises
    ------
    Refusal
        When PEFT isn't installed, or the adapter is another model's.

    """
    if settings.adapter is None:
        return set()
    if find_spec("peft") is None:
        raise Refusal("an adapter needs PEFT, which isn't installed", 'pip install "pipemill[adapters]"', MissingExtra)
    from peft.utils.error import NoMatchingPeftModuleError  # noqa: PLC0415  # an extra, and slow to load

    folder = adapter_folder(settings.adapter, settings.adapter_revision)
    try:
        report = model.load_adapter(str(folder), use_safetensors=True)
    except NoMatchingPeftModuleError as error:
        raise Refusal(f"the adapter {settings.adapter!r} fits none of its layers", _OTHER_BASE) from error
    except RuntimeError as error:
        if "mismatched" not in str(error):
            raise
        raise Refusal(
            f"the weights of the adapter {settings.adapter!r} have other shapes",
            f"{_OTHER_BASE}, saved with as many labels as the adapter has (num_labels)",
        ) from error
    if report.missing_keys or report.unexpected_keys:
        strange = sorted([*report.missing_keys, *report.unexpected_keys])
        raise Refusal(f"the adapter {settings.adapter!r} and the model differ in {strange[0]}", _OTHER_BASE)
    return _brought(folder)


def _brought(folder: Path) -> set[str]:
    with safe_open(str(folder / ADAPTER_WEIGHTS), framework="pt") as weights:
        keys: Iterable[str] = weights.keys()
        return {key.removeprefix(_PREFIX).replace(_REPLACED, "") for key in keys}
