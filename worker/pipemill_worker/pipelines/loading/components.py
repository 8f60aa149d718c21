"""What a pipeline needs beside its model: tokenizer, and processors of images, videos and sounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import transformers
from transformers import ProcessorMixin

from pipemill_worker.pipelines.loading.refusal import Refusal, explain
from pipemill_worker.pipelines.settings import ModelSettings

#: The parts by their names in a pipeline, and what loads each. A pipeline says of each whether it needs it (True),
#: takes it where it is (None), or has no use for it (False).
_LOADERS: Final[dict[str, Any]] = {
    "tokenizer": transformers.AutoTokenizer,
    "image_processor": transformers.AutoImageProcessor,
    "feature_extractor": transformers.AutoFeatureExtractor,
    "processor": transformers.AutoProcessor,
    "video_processor": transformers.AutoVideoProcessor,
}

#: A tokenizer with fewer tokens has no vocabulary, only special tokens; one of bytes has 256.
_FEWEST_TOKENS: Final = 16

#: Tasks whose tokenizers may know letters alone; they have at least one beside the special tokens.
_OF_LETTERS: Final = frozenset({"automatic-speech-recognition", "text-to-audio"})


def load_components(pipeline: type[Any], settings: ModelSettings, folder: Path) -> dict[str, Any]:
    """The parts of a pipeline by the names of its arguments, as ``transformers.pipeline`` chooses them.

    Raises
    ------
    Refusal
        When one that it needs isn't there.

    """
    parts: dict[str, Any] = {}
    for name, loader in _LOADERS.items():
        needed: bool | None = getattr(pipeline, f"_load_{name}")
        if needed is False:
            continue
        try:
            part = _load(loader, settings, folder)
        except Refusal:
            if needed:
                raise
        except Exception as error:  # transformers and tokenizers raise whatever they like
            if needed:
                kind = name.replace("_", " ")
                refusal = explain(error, settings, f"make sure that the {kind}'s files lie beside the model")
                raise Refusal(f"its {kind} can't be loaded: {refusal.cause}", refusal.mend) from error
        else:
            parts[name] = part
    if settings.task == "video-classification" and not parts:
        raise Refusal("it has no processor of images or videos", "copy the processor's files beside the model")
    return parts


def _load(loader: Any, settings: ModelSettings, folder: Path) -> Any:
    part = loader.from_pretrained(str(folder), trust_remote_code=settings.trust_remote_code)
    if loader is transformers.AutoTokenizer:
        _check_tokenizer(part, settings.task)
    elif loader is transformers.AutoProcessor:
        if not isinstance(part, ProcessorMixin):  # Where there is no processor, it takes a part of one.
            raise Refusal("it has no processor", "copy the processor's files beside the model")
        if getattr(part, "tokenizer", None) is not None:
            _check_tokenizer(part.tokenizer, settings.task)
    return part


def _check_tokenizer(tokenizer: Any, task: str) -> None:
    """Refuse a tokenizer that knows no word: where its files are missing, transformers makes one up."""
    known = len(tokenizer)
    fewest = len(set(tokenizer.all_special_tokens)) + 1 if task in _OF_LETTERS else _FEWEST_TOKENS
    if known < fewest:
        raise Refusal(
            f"its tokenizer knows {known} tokens, so its files are missing",
            "make sure that the tokenizer's files (tokenizer.json) lie beside the model",
        )
