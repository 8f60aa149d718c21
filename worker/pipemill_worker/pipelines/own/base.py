"""What the pipelines here share."""

from __future__ import annotations

from typing import Any, Final

from transformers.pipelines import base

from pipemill_worker.pipelines.own.sentence_files import read_sentence_files

#: transformers' own classes, untyped: their hints forbid what each subclass does, which is to name its parameters.
Pipeline: Any = base.Pipeline
ChunkPipeline: Any = base.ChunkPipeline

#: What ``_sanitize_parameters`` gives: the parameters of ``preprocess``, ``_forward`` and ``postprocess``.
StageParameters = tuple[dict[str, Any], dict[str, Any], dict[str, Any]]

#: A tokenizer without a limit names an astronomic one.
_NO_LIMIT: Final = 1_000_000


class TextOnly:
    """Mixed into a pipeline that needs a tokenizer and no other processor."""

    _load_processor = False
    _load_image_processor = False
    _load_feature_extractor = False
    _load_tokenizer = True


def given(**parameters: Any) -> dict[str, Any]:
    """The parameters that were given, so that the stages' defaults hold for the others."""
    return {name: value for name, value in parameters.items() if value is not None}


def most_tokens(tokenizer: Any, config: Any) -> int | None:
    """The fewer of what the tokenizer and the model's configuration name; ``None`` if neither names a limit."""
    positions = getattr(config, "max_position_embeddings", None)
    limits = [tokenizer.model_max_length, *([positions] if isinstance(positions, int) and positions > 0 else [])]
    most: int = min(limits)
    return most if most < _NO_LIMIT else None


def a_text(value: Any) -> str:
    """The value, if it is a text.

    Raises
    ------
    ValueError
        As every pipeline's stages do for inputs they can't take.

    """
    if not isinstance(value, str):
        raise ValueError(f"the input is a {type(value).__name__}: give a text, or a list of texts")  # noqa: TRY004  # see above
    return value


def files_of(model: Any) -> dict[str, Any]:
    """The sentence-transformers files beside a model's weights; none for a model made in memory."""
    source = getattr(model.config, "_name_or_path", "")
    return read_sentence_files(source, getattr(model.config, "_commit_hash", None)) if source else {}
