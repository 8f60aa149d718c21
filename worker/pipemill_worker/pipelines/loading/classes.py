"""Which class loads a model for a task, decided from the model's configuration alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import transformers
from transformers.models.auto import modeling_auto
from transformers.pipelines import SUPPORTED_TASKS

from pipemill_worker.pipelines.loading.refusal import Refusal
from pipemill_worker.pipelines.own import register

#: Models that a pipeline takes though the task's own classes don't know them; transformers loads them by the name in
#: their configuration, as it would any other.
_ALSO: Final[Mapping[str, frozenset[str]]] = {
    "document-question-answering": frozenset({"VisionEncoderDecoderModel"}),  # Donut
    "image-segmentation": frozenset(
        {
            *modeling_auto.MODEL_FOR_INSTANCE_SEGMENTATION_MAPPING_NAMES.values(),
            *modeling_auto.MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING_NAMES.values(),
        }
    ),
    # It finds words by their boxes.
    "object-detection": frozenset({"LayoutLMv2ForTokenClassification", "LayoutLMv3ForTokenClassification"}),
    # TAPEX reads a table as text.
    "table-question-answering": frozenset(modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES.values()),
    "text-to-audio": frozenset({"DiaForConditionalGeneration"}),
}


def tasks() -> list[str]:
    """Every task there is a pipeline for."""
    register()
    return sorted(SUPPORTED_TASKS)


def pipeline_class(task: str) -> type[Any]:
    """The task's pipeline.

    Raises
    ------
    Refusal
        When there is none.

    """
    known = tasks()
    if task not in known:
        raise Refusal("this task isn't supported", f"use one of {', '.join(known)}")
    named = _spec(task)["impl"]
    found: type[Any] = getattr(transformers, named.rpartition(".")[2]) if isinstance(named, str) else named
    return found


def model_class(task: str, config: Any, folder: Path, *, with_code: bool) -> Any:
    """The class whose ``from_pretrained`` loads the model.

    Of the task's classes, it is the first that knows the configuration, or the one that the checkpoint was saved
    from. ``with_code``: the model's own code may be run.

    Raises
    ------
    Refusal
        When no class makes a model for the task of it.

    """
    named = config.architectures or []
    if task == "decision" and (head := _decision_head(config, folder)) is not None:
        return head
    fitting = [auto for auto in _auto_classes(task) if _knows(auto, config, with_code=with_code)]
    for auto in fitting:
        if any(name in named for name in _names(auto, config)):
            return auto
    if fitting:
        return fitting[0]
    for name in named:
        if name in _ALSO.get(task, ()):
            return getattr(transformers, name)
    code = getattr(config, "auto_map", None) or {}
    if any(auto.__name__ in code for auto in _auto_classes(task)):
        raise Refusal(
            "it is made by Python code that comes with it",
            "read that code and set trust_remote_code: true, or choose a model that has none",
        )
    raise Refusal(
        f"a model of type {config.model_type!r} ({', '.join(named) or 'of no architecture'}) has no part in this task",
        "choose a model for this task, or another task for this model",
    )


def _spec(task: str) -> Mapping[str, Any]:
    spec: Any = SUPPORTED_TASKS[task]  # Its hints say "object".
    found: Mapping[str, Any] = spec
    return found


def _auto_classes(task: str) -> tuple[Any, ...]:
    classes: tuple[Any, ...] = _spec(task)["pt"]
    if task == "decision":  # Its first class is for checkpoints with a head, which were asked before.
        return tuple(auto for auto in classes if auto is not transformers.AutoModelForDecision)
    return classes


def _knows(auto: Any, config: Any, *, with_code: bool) -> bool:
    code = getattr(config, "auto_map", None) or {}
    return type(config) in _mapping(auto) or (with_code and auto.__name__ in code)


def _names(auto: Any, config: Any) -> list[str]:
    """What the class may make of the configuration."""
    if type(config) not in _mapping(auto):
        return []
    found = _mapping(auto)[type(config)]
    return [each.__name__ for each in (found if isinstance(found, list | tuple) else (found,))]


def _mapping(auto: Any) -> Any:
    return auto._model_mapping  # noqa: SLF001  # there is no other way to ask a class what it knows without loading


def _decision_head(config: Any, folder: Path) -> Any:
    """The class of a checkpoint that was trained to decide; any other is asked for its next token."""
    mapping = modeling_auto.MODEL_FOR_DECISION_MAPPING
    if type(config) not in mapping:
        return None
    head: Any = mapping[type(config)]
    if isinstance(config, head.config_class) or head.checkpoint_config(str(folder))[0] is not None:
        return head
    return None
