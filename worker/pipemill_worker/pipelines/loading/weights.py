"""A model with all its weights: from safetensors only, and none made up."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import transformers
from transformers.decision import DecisionConfig
from transformers.decision.modeling_utils import DecisionMixin
from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_TO_SPECTROGRAM_MAPPING_NAMES

from pipemill_worker.pipelines.hub import ADAPTER_WEIGHTS
from pipemill_worker.pipelines.loading.adapters import add_adapter
from pipemill_worker.pipelines.loading.classes import model_class
from pipemill_worker.pipelines.loading.dynamic import round_layers
from pipemill_worker.pipelines.loading.placing import placement
from pipemill_worker.pipelines.loading.quantising import DYNAMIC, compute_dtype, quantisation_config
from pipemill_worker.pipelines.loading.refusal import Refusal
from pipemill_worker.pipelines.settings import ModelSettings

#: Missing weights that an error names.
_NAMED_WEIGHTS: Final = 3

#: Keys of weights that no answer depends on.
_UNUSED: Final = (
    re.compile(r"(^|\.)masked_spec_embed$"),  # stands for masked frames, and frames are masked in training only
    re.compile(r"embeddings\.mask_token$"),  # stands for masked patches, as above
    re.compile(r"\.num_batches_tracked$"),  # counts a normalisation's batches in training
    re.compile(r"(^|\.)position_ids$"),  # 0, 1, 2, …: made, not learnt
)

#: As above for tasks that read the last hidden state, and the one that loses a pooler that isn't trained.
_POOLER: Final = re.compile(r"(^|\.)pooler\.")
_WITHOUT_POOLER: Final = frozenset({"feature-extraction", "image-feature-extraction", "sentence-embedding"})

#: A folder beside a model that makes spectrograms; in it lies the model that makes sound of them.
VOCODER: Final = "vocoder"


def load_model(settings: ModelSettings, folder: Path) -> Any:
    """The model of a folder for a queue's task, its adapter in it, in evaluation mode.

    Raises
    ------
    Refusal
        When it has no part in the task, or lacks weights.

    """
    task, with_code = settings.task, settings.trust_remote_code
    config: Any = transformers.AutoConfig.from_pretrained(str(folder), trust_remote_code=with_code)
    loader = model_class(task, config, folder, with_code=with_code)
    quantisation = quantisation_config(settings, config)
    options: dict[str, Any] = {
        "dtype": compute_dtype(settings),
        "trust_remote_code": with_code,
        **({} if quantisation is None else {"quantization_config": quantisation}),
        **placement(settings),
    }
    model, missing = _from_pretrained(loader, folder, options)
    missing -= add_adapter(model, settings)
    _check_missing(task, model, missing)
    if task == "image-feature-extraction" and any(map(_POOLER.search, missing)):
        model.pooler = None  # `pool` is then refused, instead of answered with random numbers.
    if settings.quantisation == DYNAMIC:
        round_layers(model)
    return model.eval()


def load_vocoder(model: Any, folder: Path) -> Any:
    """What makes sound of a model's spectrograms; ``None`` for a model that makes sound itself.

    Raises
    ------
    Refusal
        When there is none: transformers would take one from the hub, at no pinned revision.

    """
    if type(model).__name__ not in MODEL_FOR_TEXT_TO_SPECTROGRAM_MAPPING_NAMES.values():
        return None
    if not (folder / VOCODER / "config.json").is_file():
        raise Refusal(
            f"it makes spectrograms, and has no {VOCODER}/ beside it that makes sound of them",
            f"save a SpeechT5HifiGan into {VOCODER}/ of a folder with the model (save_pretrained), and name the folder",
        )
    vocoder, missing = _from_pretrained(transformers.SpeechT5HifiGan, folder / VOCODER, {})
    _check_missing("text-to-audio", vocoder, missing)
    return vocoder.eval()


def check_decision_adapter(model: Any, folder: Path) -> None:
    """Refuse the adapter that a model for decisions brings unless it is safetensors: its pipeline reads pickles, too.

    Raises
    ------
    Refusal
        When its weights are anything else.

    """
    decides = isinstance(model, DecisionMixin)
    adapter = (model.decision_config if decides else DecisionConfig.from_pretrained(str(folder))).adapter
    if adapter and not (folder / adapter / ADAPTER_WEIGHTS).is_file():
        raise Refusal(f"its adapter {adapter!r} holds no {ADAPTER_WEIGHTS}", "save the adapter as safetensors")


def _from_pretrained(loader: type[Any], folder: Path, options: Mapping[str, Any]) -> tuple[Any, set[str]]:
    """The model, and the keys of the weights that the folder doesn't hold."""
    arguments = {"use_safetensors": True, "output_loading_info": True, **options}
    if issubclass(loader, DecisionMixin):  # Its own from_pretrained can't tell what is missing.
        head: Any = loader
        config, decision_config = head.checkpoint_config(str(folder))
        model, report = super(DecisionMixin, head).from_pretrained(str(folder), config=config, **arguments)
        model.decision_config = decision_config or DecisionConfig.from_pretrained(str(folder))
    else:
        model, report = loader.from_pretrained(str(folder), **arguments)
    return model, set(report["missing_keys"])


def _check_missing(task: str, model: Any, missing: Iterable[str]) -> None:
    needed = sorted(key for key in missing if not _is_unused(task, key))
    if needed:
        more = len(needed) - _NAMED_WEIGHTS
        named = ", ".join(needed[:_NAMED_WEIGHTS]) + (f" and {more} more" if more > 0 else "")
        raise Refusal(
            f"it wasn't trained for this task: its weights lack {named}",
            f"choose a model for {task!r}, or another task for this one (it is a {_architecture(model)})",
        )


def _is_unused(task: str, key: str) -> bool:
    unused = (*_UNUSED, _POOLER) if task in _WITHOUT_POOLER else _UNUSED
    return any(pattern.search(key) for pattern in unused)


def _architecture(model: Any) -> str:
    return ", ".join(model.config.architectures or [type(model).__name__])
