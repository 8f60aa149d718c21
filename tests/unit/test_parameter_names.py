"""The allow-lists against the pipelines of the installed transformers."""

from __future__ import annotations

import inspect
from pkgutil import resolve_name
from typing import Any

import pytest
from transformers import GenerationConfig, PreTrainedTokenizerBase
from transformers.pipelines import SUPPORTED_TASKS

from pipemill.parameters import PARAMETERS
from pipemill.parameters.understanding import FeatureTokenizerOptions, TokenizerOptions


def names_of(function: object) -> set[str]:
    """The names of a function's arguments."""
    return set(inspect.signature(function).parameters)  # type: ignore[arg-type]  # any callable will do


def generation_names() -> set[str]:
    """The names of generation's settings."""
    config: Any = GenerationConfig
    return set(vars(config()))


@pytest.mark.parametrize("task", sorted(set(PARAMETERS) - {"echo"}))
def test_every_parameter_exists_upstream(task: str) -> None:
    """Each allowed name is an argument of the pipeline, of its tokenizer or of generation, or is read from kwargs."""
    supported: dict[str, Any] = SUPPORTED_TASKS
    sanitize = resolve_name(supported[task]["impl"])._sanitize_parameters
    known = names_of(sanitize)
    if task == "text-classification":  # passes other names to the tokenizer
        known |= names_of(PreTrainedTokenizerBase.__call__)
    if task == "text-generation":  # passes other names to generate, and reads one of them itself
        known |= generation_names() | {"add_special_tokens"}
    if task == "zero-shot-classification":
        known |= {
            name for name in PARAMETERS[task].model_fields if f'"{name}" in kwargs' in inspect.getsource(sanitize)
        }
    assert set(PARAMETERS[task].model_fields) - known == set()


@pytest.mark.parametrize("options", [TokenizerOptions, FeatureTokenizerOptions])
def test_every_tokenizer_option_exists_upstream(options: type[TokenizerOptions]) -> None:
    """Each allowed tokenizer option is an argument of the tokenizer."""
    assert set(options.model_fields) - names_of(PreTrainedTokenizerBase.__call__) == set()
