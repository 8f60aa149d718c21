"""Why a model can't be loaded, and what to do: our own reasons, and what foreign errors mean."""

from __future__ import annotations

import re
from typing import Final

from pipemill.errors import ConfigurationError, ModelLoadError
from pipemill_worker.pipelines.inputs import shorten
from pipemill_worker.pipelines.settings import ModelSettings

#: Characters of a foreign error's text that our own repeats.
_MAX_CAUSE_CHARACTERS: Final = 400

#: What to do where torchvision is missing, or was built for another torch.
TORCHVISION_MEND: Final = "install the torchvision that belongs to this torch, from where torch came"


class Refusal(Exception):
    """A reason against loading a queue's model; ends as an error that also names queue and model."""

    def __init__(self, cause: str, mend: str, kind: type[ConfigurationError] = ModelLoadError) -> None:
        super().__init__(cause)
        self.cause = cause
        self.mend = mend
        #: The error's class.
        self.kind = kind


def load_error(queue: str, settings: ModelSettings, refusal: Refusal) -> ConfigurationError:
    """The error that names the queue, its model, the cause, and what to do."""
    what = f"queue {queue!r}: can't load model {settings.model!r} for {settings.task!r}"
    return refusal.kind(f"{what}: {refusal.cause}; {refusal.mend}")


#: What the text of a foreign error says, and what to do about it; the first that matches counts.
_MENDS: Final = (
    (r"SafetensorError", "the weights' file is damaged: download or copy it again"),
    (r"torchvision", TORCHVISION_MEND),
    (r"pytesseract", "pip install pytesseract, and install the program tesseract"),
    (r"ImportError.*\btimm\b", "pip install timm"),
    (r"ImportError.*\bpandas\b", 'pip install "pipemill[tables]"'),
    (r"ImportError.*(\bPyAV\b|\bav\b)", 'pip install "pipemill[worker-media]"'),
    (r"ImportError.*(Pillow|\bPIL\b)", 'pip install "pipemill[worker]"'),
    (
        r"sentencepiece|protobuf|tiktoken",
        "its tokenizer needs what the cause names: pip install sentencepiece protobuf tiktoken",
    ),
    (
        r"(ImportError|requires?\b|install).*(quanti[sz]|gptq|awq|bitsandbytes|compressed.tensors|torchao|optimum)",
        'it was saved quantised: install the package that the cause names (pip install "pipemill[quantised]": torchao)',
    ),
    (r"ImportError|ModuleNotFoundError", "install the package that the cause names"),
    (
        r"safetensors|no file named model|pytorch_model\.bin",
        "give a folder or repository that holds model.safetensors (save_pretrained writes it); pickles can run code",
    ),
    (
        r"trust_remote_code|custom code|auto_map",
        "read the Python code that comes with it and set trust_remote_code: true, or choose a model that has none",
    ),
    (
        r"unrecognized configuration class|unrecognized model|model_type",
        "choose a model for this task, or another task for this model",
    ),
    (r"accelerate|device_map", "install the worker's extras (pip install 'pipemill[worker]'), or leave device_map out"),
    (r"mask_token", "choose a model whose tokenizer has a mask token"),
    (r"preprocessor|(image|video|feature).?(processor|extractor)", "copy the processor's files beside the model"),
    (r"tokenizer|vocab", "make sure that the tokenizer's files (tokenizer.json) lie beside the model"),
    (
        r"\b40[134]\b|gated|valid model identifier|repo id",
        "check the model id and revision; a private or gated model needs HF_TOKEN in the worker's environment",
    ),
    (
        r"offline|connect|resolve|timed out|cached|outgoing traffic|huggingface\.co",
        "check the model id and revision; fetch the model on a machine with a network, and name its folder",
    ),
    (r"config\.json", "name a repository that holds config.json and model.safetensors"),
    (r"out of memory|allocate", "use a smaller dtype, a device_map, or a machine with more memory"),
)


def explain(error: Exception, settings: ModelSettings, otherwise: str | None = None) -> Refusal:
    """A foreign error as a refusal; ``otherwise`` is the mend of one whose text says nothing of its cause."""
    text = f"{type(error).__name__}: {error}"
    clues = text
    for name in (settings.model, settings.adapter):
        clues = clues.replace(name or "\0", "")  # A path may hold any word.
    cause = shorten(text, _MAX_CAUSE_CHARACTERS)
    for pattern, mend in _MENDS:
        if re.search(pattern, clues, re.IGNORECASE | re.DOTALL):
            return Refusal(cause, mend)
    alone = f"import transformers; transformers.pipeline({settings.task!r}, {settings.model!r})"
    return Refusal(cause, otherwise or f'try it alone: python -c "{alone}"')
