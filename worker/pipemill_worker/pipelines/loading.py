"""From a queue's settings to a loaded pipeline, or one error that says what to do.

Weights come as safetensors only, code never comes with them, and a model whose head the checkpoint doesn't hold is
refused: transformers would fill it with random numbers and answer nonsense with a log line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
import transformers

import pipemill_worker
from pipemill.errors import ModelLoadError
from pipemill_worker.pipelines.inputs import shorten
from pipemill_worker.pipelines.settings import LoadedPipeline, ModelSettings

#: The tasks that can be driven in stages, and transformers' class that loads a model for each.
MODEL_CLASSES: Final[Mapping[str, type[Any]]] = {
    "feature-extraction": transformers.AutoModel,
    "fill-mask": transformers.AutoModelForMaskedLM,
    "text-classification": transformers.AutoModelForSequenceClassification,
    "text-generation": transformers.AutoModelForCausalLM,
    "token-classification": transformers.AutoModelForTokenClassification,
    "zero-shot-classification": transformers.AutoModelForSequenceClassification,
}

#: The models that come with the package, one folder each.
BUILTIN_MODELS: Final = Path(pipemill_worker.__file__).parent / "demo" / "models"

_BUILTIN: Final = "builtin:"

#: Characters of a foreign error's text that our own repeats.
_MAX_CAUSE_CHARACTERS: Final = 400

#: A tokenizer with fewer has no vocabulary, only special tokens; one of bytes has 256.
_FEWEST_TOKENS: Final = 16

#: Missing weights that an error names.
_NAMED_WEIGHTS: Final = 3

#: Endings of weights' keys that a task's answer doesn't depend on: feature-extraction reads the last hidden state.
_UNUSED_WEIGHTS: Final[Mapping[str, re.Pattern[str]]] = {"feature-extraction": re.compile(r"(^|\.)pooler\.")}


def load_pipeline(queue: str, settings: ModelSettings, *, threads: int | None = None) -> LoadedPipeline:
    """Load the pipeline of a queue, ready to run: on its device, in evaluation mode.

    Raises
    ------
    ModelLoadError
        Names the queue, the model, the cause, and what to do.

    """
    # Its own threads would add to torch's and the workers', and warn at every fork. Read when it first tokenizes.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    quiet: Any = transformers.utils.logging.disable_progress_bar  # It has no hints.
    quiet()  # A bar's lines would break up the worker's log.
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        return _load(settings)
    except _Refusal as refusal:
        cause, mend = refusal.cause, refusal.mend
        origin = refusal.__cause__
    except Exception as error:  # noqa: BLE001 - transformers, safetensors, hub and torch raise whatever they like
        cause, mend = _explain(error, settings)
        origin = error
    raise ModelLoadError(
        f"queue {queue!r}: can't load model {settings.model!r} for {settings.task!r}: {cause}; {mend}"
    ) from origin


class _Refusal(Exception):
    def __init__(self, cause: str, mend: str) -> None:
        super().__init__(cause)
        self.cause = cause
        self.mend = mend


def _load(settings: ModelSettings) -> LoadedPipeline:
    task = settings.task
    if task not in MODEL_CLASSES:
        raise _Refusal("this task isn't supported", f"use one of {', '.join(sorted(MODEL_CLASSES))}")
    source = _source(settings.model)
    model = _load_model(task, source, settings)
    tokenizer = _load_tokenizer(source, settings)
    build: Any = transformers.pipeline  # Its 25 overloads don't take a task that is only known at run time.
    pipe: LoadedPipeline = build(
        task, model=model, tokenizer=tokenizer, device=_device(settings), trust_remote_code=False
    )
    pipe.model.eval()
    return pipe


def _load_model(task: str, source: str, settings: ModelSettings) -> Any:
    placement = {} if settings.device_map is None else {"device_map": settings.device_map}
    model, report = MODEL_CLASSES[task].from_pretrained(
        source,
        revision=settings.revision,
        dtype=settings.dtype if settings.dtype == "auto" else getattr(torch, settings.dtype),
        use_safetensors=True,
        trust_remote_code=False,
        output_loading_info=True,
        **placement,
    )
    unused = _UNUSED_WEIGHTS.get(task)
    missing = sorted(key for key in report["missing_keys"] if unused is None or not unused.search(key))
    if missing:
        more = len(missing) - _NAMED_WEIGHTS
        named = ", ".join(missing[:_NAMED_WEIGHTS]) + (f" and {more} more" if more > 0 else "")
        raise _Refusal(
            f"it wasn't trained for this task: its weights lack {named}",
            f"choose a model for {task!r}, or another task for this one (it is a {_architecture(model)})",
        )
    return model


def _load_tokenizer(source: str, settings: ModelSettings) -> Any:
    tokenizer = transformers.AutoTokenizer.from_pretrained(source, revision=settings.revision, trust_remote_code=False)
    if len(tokenizer) < _FEWEST_TOKENS:  # Where its files are missing, transformers makes up one that knows no word.
        raise _Refusal(
            f"its tokenizer knows {len(tokenizer)} tokens, so its files are missing",
            "make sure that the tokenizer's files (tokenizer.json) lie beside the model",
        )
    return tokenizer


def _architecture(model: Any) -> str:
    return ", ".join(model.config.architectures or [type(model).__name__])


def _source(model: str | None) -> str:
    if not model:
        raise _Refusal("no model is named", "set model: to a hub id, a folder, or builtin:NAME")
    if model.startswith(_BUILTIN):
        return _builtin_folder(model.removeprefix(_BUILTIN))
    folder = Path(model).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise _Refusal("the folder holds no config.json", "name the folder that save_pretrained wrote")
        return str(folder)
    if folder.is_file():
        raise _Refusal("this is a file", "name the folder that holds config.json and model.safetensors")
    if folder.is_absolute() or model.startswith(("./", "../", "~")):
        raise _Refusal("there is no such folder", "correct the path, or mount the volume that holds it")
    return model


def _builtin_folder(name: str) -> str:
    known = sorted(path.name for path in BUILTIN_MODELS.iterdir() if path.is_dir()) if BUILTIN_MODELS.is_dir() else []
    if name not in known:
        there = ", ".join(_BUILTIN + other for other in known) or "none in this installation"
        raise _Refusal("there is no such built-in model", f"choose one that is there: {there}")
    return str(BUILTIN_MODELS / name)


def _device(settings: ModelSettings) -> str | None:
    """``None`` leaves the choice to transformers: the first accelerator there is, else the CPU."""
    if settings.device_map is not None or settings.device == "auto":
        return None
    kind = settings.device.partition(":")[0]
    if kind == "cuda" and not torch.cuda.is_available():
        raise _Refusal("torch finds no CUDA device", "set device: auto or cpu, or install the driver and a CUDA torch")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise _Refusal("torch finds no MPS device", "set device: auto or cpu")
    return settings.device


#: What the text of a foreign error says, and what to do about it; the first that matches counts.
_MENDS: Final = (
    (r"SafetensorError", "the weights' file is damaged: download or copy it again"),
    (
        r"safetensors|no file named model|pytorch_model\.bin",
        "give a folder or repository that holds model.safetensors (save_pretrained writes it); pickles can run code",
    ),
    (
        r"trust_remote_code|custom code|auto_map",
        "choose a model whose code is part of transformers; code from a repository is never run",
    ),
    (
        r"unrecognized configuration class|unrecognized model|model_type",
        "choose a model for this task, or another task for this model",
    ),
    (r"accelerate|device_map", "install the worker's extras (pip install 'pipemill[worker]'), or leave device_map out"),
    (r"mask_token", "choose a model whose tokenizer has a mask token"),
    (r"tokenizer|vocab", "make sure that the tokenizer's files (tokenizer.json) lie beside the model"),
    (
        r"\b40[13]\b|gated|valid model identifier",
        "check the model id; a private or gated model needs HF_TOKEN in the worker's environment",
    ),
    (
        r"offline|connect|resolve|timed out|cached files|huggingface\.co",
        "check the model id and revision; fetch the model on a machine with a network, and name its folder",
    ),
    (r"config\.json", "name a repository that holds config.json and model.safetensors"),
    (r"out of memory|allocate", "use a smaller dtype, a device_map, or a machine with more memory"),
)


def _explain(error: Exception, settings: ModelSettings) -> tuple[str, str]:
    text = f"{type(error).__name__}: {error}"
    clues = text.replace(settings.model or "", "")  # A path may hold any word.
    for pattern, mend in _MENDS:
        if re.search(pattern, clues, re.IGNORECASE):
            return shorten(text, _MAX_CAUSE_CHARACTERS), mend
    return shorten(text, _MAX_CAUSE_CHARACTERS), (
        f'try it alone: python -c "import transformers; transformers.pipeline({settings.task!r}, {settings.model!r})"'
    )
