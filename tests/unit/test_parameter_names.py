"""The allow-lists against the pipelines of the installed transformers, and against our own."""

from __future__ import annotations

import inspect
import re
from pkgutil import resolve_name
from typing import Any

import pytest
from transformers import GenerationConfig, PreTrainedTokenizerBase
from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import Qwen2_5OmniForConditionalGeneration
from transformers.models.seamless_m4t_v2.modeling_seamless_m4t_v2 import SeamlessM4Tv2Model
from transformers.models.vits.modeling_vits import VitsModel
from transformers.models.whisper.generation_whisper import WhisperGenerationMixin
from transformers.pipelines import SUPPORTED_TASKS
from transformers.pipelines.base import Pipeline
from transformers.processing_utils import ProcessingKwargs

from pipemill.parameters import PARAMETERS
from pipemill.parameters.audio import SoundSettings, SpeechSettings, VoiceSettings
from pipemill.parameters.base import Parameters
from pipemill.parameters.generation import Generation
from pipemill.parameters.multimodal import AnySettings
from pipemill.parameters.refused import REFUSED, REFUSED_BY_TASK, reason_against
from pipemill.parameters.understanding import FeatureTokenizerOptions, TokenizerOptions
from pipemill_worker.pipelines.own import OWN_PIPELINES

#: What becomes of the arguments that a pipeline doesn't name.
UNNAMED: dict[str, str] = {
    "any-to-any": "processor",
    "audio-classification": "ignored",
    "automatic-speech-recognition": "generate",
    "depth-estimation": "ignored",
    "document-question-answering": "ignored",
    "feature-extraction": "ignored",
    "image-feature-extraction": "read",
    "image-segmentation": "read",
    "image-text-to-text": "processor",
    "mask-generation": "read",
    "object-detection": "read",
    "question-answering": "checked",
    "summarization": "generate",
    "table-question-answering": "ignored",
    "text-classification": "tokenizer",
    "text-generation": "generate",
    "text2text-generation": "generate",
    "translation": "generate",
    "zero-shot-audio-classification": "read",
    "zero-shot-classification": "read",
    "zero-shot-image-classification": "read",
    "zero-shot-object-detection": "read",
}
#: Names in quotes, of which our own question-answering asks one by one.
CHECKED = re.compile(r'"([a-z_]+)"')
#: What is read from arguments without a name of their own.
READ = re.compile(r'"(\w+)" (?:not )?in (?:generate_)?kwargs|kwargs(?:\.get\(|\.pop\(|\[)"(\w+)"')
THEIRS: dict[str, Any] = SUPPORTED_TASKS
PIPELINES: dict[str, Any] = {
    **{task: resolve_name(entry["impl"]) for task, entry in THEIRS.items() if task not in OWN_PIPELINES},
    **{task: pipeline for task, (pipeline, _) in OWN_PIPELINES.items()},
}


def names_of(function: Any) -> set[str]:
    """The names of a function's arguments, without those that stand for any."""
    named = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}
    parameters = inspect.signature(function).parameters.values()
    return {each.name for each in parameters if each.kind in named} - {"self"}


def takes_more(function: Any) -> bool:
    """Whether a function takes arguments that it doesn't name."""
    return any(each.kind is inspect.Parameter.VAR_KEYWORD for each in inspect.signature(function).parameters.values())


def read_by(function: Any) -> set[str]:
    """The names that a function reads from the arguments it doesn't name."""
    return {one or other for one, other in READ.findall(inspect.getsource(function))}


def generation_names() -> set[str]:
    """The names of generation's settings."""
    config: Any = GenerationConfig
    return {name for name in vars(config()) if not name.startswith("_")}


def upstream(task: str) -> set[str]:
    """Every argument of a task's pipeline that isn't its inputs."""
    pipeline = PIPELINES[task]
    sanitize, call = pipeline._sanitize_parameters, pipeline.__call__
    chain = [base._sanitize_parameters for base in pipeline.__mro__ if "_sanitize_parameters" in vars(base)]
    names = {name for each in chain if each is not Pipeline._sanitize_parameters for name in names_of(each)}
    if call is not Pipeline.__call__:
        names |= names_of(call) - {list(inspect.signature(call).parameters)[1]} | read_by(call)
    names |= read_by(sanitize) | names_of(Pipeline.__call__) - {"inputs"}
    more = UNNAMED.get(task)
    if more == "generate":
        names |= generation_names()
    elif more == "tokenizer":
        names |= names_of(PreTrainedTokenizerBase.__call__)
    elif more == "processor":
        names |= set(ProcessingKwargs.__annotations__)
    elif more == "checked":
        names |= set(CHECKED.findall(inspect.getsource(sanitize)))
    return names


def test_all_pipelines_have_an_allow_list() -> None:
    """The tasks are those of the installed transformers, and our own."""
    assert set(PIPELINES) | {"echo"} == set(PARAMETERS)


@pytest.mark.parametrize("task", sorted(PIPELINES))
def test_unnamed_arguments_are_known(task: str) -> None:
    """A pipeline takes arguments that it doesn't name only where it is known what becomes of them."""
    assert takes_more(PIPELINES[task]._sanitize_parameters) == (task in UNNAMED)


@pytest.mark.parametrize("task", sorted(PIPELINES))
def test_every_argument_is_allowed_or_refused(task: str) -> None:
    """Each argument of a pipeline is in its task's list, or is refused with a reason; a new one is noticed."""
    allowed = set(PARAMETERS[task].model_fields)
    if task == "automatic-speech-recognition":  # what it doesn't name, jobs give under generate_kwargs
        allowed |= set(SpeechSettings.model_fields)
    assert {name for name in upstream(task) - allowed if reason_against(task, name) is None} == set()


@pytest.mark.parametrize("task", sorted(PIPELINES))
def test_every_parameter_exists_upstream(task: str) -> None:
    """Each allowed name is an argument of the pipeline; the seed is ours."""
    known = upstream(task) | {"seed"}
    if task == "text-generation":  # read from what goes to generate
        known |= {"add_special_tokens", "stop_sequence"}
    if task == "automatic-speech-recognition":  # likewise
        known |= {"generate_kwargs"}
    assert set(PARAMETERS[task].model_fields) - known == set()


def test_no_name_is_allowed_and_refused() -> None:
    """What is refused everywhere is allowed nowhere, and what is refused in a task isn't allowed there."""
    everywhere = {name for model in PARAMETERS.values() for name in model.model_fields}
    assert everywhere & set(REFUSED) == set()
    assert all(set(PARAMETERS[task].model_fields) & set(names) == set() for task, names in REFUSED_BY_TASK.items())


def test_every_generation_setting_is_allowed_or_refused() -> None:
    """Each setting of generation is in the list or is refused with a reason; a new one is noticed."""
    assert generation_names() - set(Generation.model_fields) - set(REFUSED) == set()
    assert set(Generation.model_fields) - generation_names() == set()


@pytest.mark.parametrize(
    ("model", "function"),
    [
        (SpeechSettings, WhisperGenerationMixin.generate),
        (SpeechSettings, SeamlessM4Tv2Model.generate),
        (SoundSettings, SeamlessM4Tv2Model.generate),
        (VoiceSettings, VitsModel.forward),
        (AnySettings, Qwen2_5OmniForConditionalGeneration.generate),
        (TokenizerOptions, PreTrainedTokenizerBase.__call__),
        (FeatureTokenizerOptions, PreTrainedTokenizerBase.__call__),
    ],
)
def test_every_option_below_exists_upstream(model: type[Parameters], function: Any) -> None:
    """Each allowed option of a mapping is an argument of the function that it ends in, of one model at least."""
    speech = names_of(WhisperGenerationMixin.generate) | names_of(SeamlessM4Tv2Model.generate)
    known = speech if model is SpeechSettings else names_of(function)
    own = set(model.model_fields) - set(Generation.model_fields)
    assert own - known == set()
    assert own & names_of(function)


def test_refusals_of_single_tasks_hold() -> None:
    """What is refused because a pipeline ignores it, or fails on it, is still so."""
    ignores = PIPELINES["zero-shot-image-classification"]._sanitize_parameters
    assert ignores(None, tokenizer_kwargs={"max_length": 1}) == ({}, {}, {})  # it reads nothing of the pipeline
    assert "max_question_len" not in names_of(PIPELINES["document-question-answering"].preprocess)
