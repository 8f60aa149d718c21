"""Loading a queue's pipeline, and what is said when it can't be."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from pipemill.errors import InvalidParameter, ModelLoadError
from pipemill_worker.pipelines import load_runner, loading
from pipemill_worker.pipelines.loading import sources
from tests.unit.pipelines.tiny import (
    LABELS,
    Settings,
    assert_same,
    byte_tokenizer,
    run_batched,
    tiny_model,
    unchecked,
    wordpiece_tokenizer,
)


def save(folder: Path, task: str = "text-classification", model_type: str = "bert") -> str:
    """Save a tiny model and its tokenizer as safetensors."""
    tokenizer = byte_tokenizer() if model_type == "gpt2" else wordpiece_tokenizer()
    tiny_model(task, model_type, tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def refusal(settings: Settings) -> str:
    """The error that loading ends in."""
    with pytest.raises(ModelLoadError) as caught:
        load_runner("mine", settings)
    text = str(caught.value)
    assert text.startswith(f"queue 'mine': can't load model {settings.model!r} for {settings.task!r}: ")
    assert len(text) < 1000
    return text


@pytest.mark.parametrize(
    ("task", "model_type", "inputs", "parameters"),
    [
        ("text-classification", "bert", "river stone", {}),
        ("token-classification", "bert", "river stone", {"aggregation_strategy": "simple"}),
        ("fill-mask", "bert", "river [MASK]", {}),
        ("feature-extraction", "bert", "river stone", {}),
        ("zero-shot-classification", "bert", "river stone", {"candidate_labels": LABELS}),
        ("text-generation", "gpt2", "river", {"max_new_tokens": 3, "do_sample": False}),
    ],
)
def test_loads_and_answers(tmp_path: Path, task: str, model_type: str, inputs: Any, parameters: dict[str, Any]) -> None:
    """A folder of each task loads, warms up, and answers as ``pipeline(task, folder)`` does."""
    runner: Any = load_runner("mine", Settings(task=task, model=save(tmp_path, task, model_type)))
    runner.warm_up()
    pipeline: Any = transformers.pipeline
    expected = pipeline(task, str(tmp_path), device="cpu")(inputs, **parameters)
    assert_same(run_batched(runner, [(inputs, parameters)]).answers[0], expected)
    described = runner.describe()
    assert described["task"] == task
    assert described["model"] == str(tmp_path)
    assert described["device"] == "cpu"
    assert described["dtype"] == "float32"
    assert json.loads(json.dumps(described)) == described


def test_a_models_own_generation_settings_count(tmp_path: Path) -> None:
    """What the model's generation_config.json says stands above the pipeline's defaults, as in the direct call."""
    save(tmp_path, "text-generation", "gpt2")
    config: Any = transformers.GenerationConfig  # It has no hints.
    config(max_new_tokens=4, do_sample=False, eos_token_id=0).save_pretrained(tmp_path)
    runner: Any = load_runner("mine", Settings(task="text-generation", model=str(tmp_path)))
    pipeline: Any = transformers.pipeline
    expected = pipeline("text-generation", str(tmp_path), device="cpu")("river")
    assert run_batched(runner, [("river", {})]).answers == [expected]


def test_loaded_models_are_in_evaluation_mode_without_tokenizer_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropout is off, the tokenizers' own threads are off, and torch has the threads it was given."""
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    threads = torch.get_num_threads()
    try:
        pipe = loading.load_pipeline("mine", Settings(task="text-classification", model=save(tmp_path)), threads=2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert not pipe.model.training
    assert os.environ["TOKENIZERS_PARALLELISM"] == "false"


def test_dtype_is_the_settings(tmp_path: Path) -> None:
    """The weights are cast to the queue's dtype; auto keeps the checkpoint's."""
    settings = Settings(task="text-classification", model=save(tmp_path))
    assert load_runner("mine", replace(settings, dtype="bfloat16")).describe()["dtype"] == "bfloat16"
    assert load_runner("mine", settings).describe()["dtype"] == "float32"


def test_parameters_are_checked_by_default(tmp_path: Path) -> None:
    """Without a validator of one's own, a job's parameters pass the task's allow-list."""
    runner = load_runner("mine", Settings(task="text-classification", model=save(tmp_path)))
    with pytest.raises(InvalidParameter, match="trust_remote_code"):
        runner.prepare("river", {"trust_remote_code": True})
    lenient = load_runner("mine", Settings(task="text-classification", model=str(tmp_path)), validate=unchecked)
    assert len(lenient.prepare("river", {"max_length": 9, "truncation": True}).items) == 1


def test_missing_folder(tmp_path: Path) -> None:
    """A path to nothing is told as such."""
    text = refusal(Settings(task="text-classification", model=str(tmp_path / "nothing")))
    assert "there is no such folder; correct the path" in text


def test_file_instead_of_folder(tmp_path: Path) -> None:
    """A weights file is not a model's folder."""
    file = tmp_path / "model.safetensors"
    file.touch()
    assert "this is a file; name the folder that holds config.json" in refusal(
        Settings(task="text-classification", model=str(file))
    )


def test_no_model() -> None:
    """A task needs a model."""
    assert "no model is named; set model:" in refusal(Settings(task="text-classification", model=None))


def test_empty_folder(tmp_path: Path) -> None:
    """A folder without a configuration is no model."""
    assert "the folder holds no config.json; name the folder that save_pretrained wrote" in refusal(
        Settings(task="text-classification", model=str(tmp_path))
    )


def test_folder_without_weights(tmp_path: Path) -> None:
    """A configuration alone is told what it lacks."""
    save(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    assert "give a folder or repository that holds model.safetensors" in refusal(
        Settings(task="text-classification", model=str(tmp_path))
    )


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    """Weights as a pickle are never opened, even when there are no others."""
    save(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(
        tiny_model("text-classification", "bert", wordpiece_tokenizer()).state_dict(), tmp_path / "pytorch_model.bin"
    )
    assert "give a folder or repository that holds model.safetensors" in refusal(
        Settings(task="text-classification", model=str(tmp_path))
    )


def test_broken_weights(tmp_path: Path) -> None:
    """A truncated download is told as damaged."""
    save(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x10\x00\x00\x00")
    text = refusal(Settings(task="text-classification", model=str(tmp_path)))
    assert "the weights' file is damaged: download or copy it again" in text


def test_folder_without_tokenizer(tmp_path: Path) -> None:
    """A model without its tokenizer can't take texts."""
    tiny_model("text-classification", "bert", wordpiece_tokenizer()).save_pretrained(tmp_path)
    text = refusal(Settings(task="text-classification", model=str(tmp_path)))
    assert "make sure that the tokenizer's files" in text


@pytest.mark.parametrize(
    ("trained", "asked"),
    [("fill-mask", "text-classification"), ("text-classification", "fill-mask"), ("fill-mask", "token-classification")],
)
def test_wrong_task_for_the_model(tmp_path: Path, trained: str, asked: str) -> None:
    """A head that the checkpoint doesn't hold would be random numbers, so the model is refused for the task."""
    text = refusal(Settings(task=asked, model=save(tmp_path, trained)))
    assert "it wasn't trained for this task: its weights lack" in text
    assert f"choose a model for {asked!r}" in text


def test_wrong_kind_of_model(tmp_path: Path) -> None:
    """A model type that knows no such task is refused with the choice there is."""
    text = refusal(Settings(task="fill-mask", model=save(tmp_path, "text-generation", "gpt2")))
    assert "choose a model for this task, or another task for this model" in text


def test_features_need_no_head(tmp_path: Path) -> None:
    """Any checkpoint gives features: the pooler it lacks has no part in them."""
    runner = load_runner("mine", Settings(task="feature-extraction", model=save(tmp_path, "fill-mask")))
    runner.warm_up()


def test_fill_mask_needs_a_mask_token(tmp_path: Path) -> None:
    """A tokenizer without a mask token is told before the first job."""
    save(tmp_path, "fill-mask")
    wordpiece_tokenizer(mask_token=None).save_pretrained(tmp_path)
    assert "choose a model whose tokenizer has a mask token" in refusal(Settings(task="fill-mask", model=str(tmp_path)))


def test_unknown_task(tmp_path: Path) -> None:
    """A task that nothing has a pipeline for is refused with those that there are."""
    text = refusal(Settings(task="image-to-image", model=save(tmp_path)))
    assert "use one of any-to-any, audio-classification, automatic-speech-recognition" in text


def test_missing_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that isn't there is told before anything fails on it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    settings = Settings(task="text-classification", model=save(tmp_path))
    assert "torch finds no CUDA device; set device: auto or cpu" in refusal(replace(settings, device="cuda:0"))
    assert "torch finds no MPS device; set device: auto or cpu" in refusal(replace(settings, device="mps"))


def test_builtin_models_lie_in_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``builtin:NAME`` is the folder of that name, and any other name is refused with those there are."""
    assert loading.BUILTIN_MODELS.parts[-3:] == ("pipemill_worker", "demo", "models")
    monkeypatch.setattr(sources, "BUILTIN_MODELS", tmp_path)
    save(tmp_path / "sentiment")
    settings = Settings(task="text-classification", model="builtin:sentiment")
    assert load_runner("mine", settings).describe()["model"] == "builtin:sentiment"
    for name in ("sentimental", "../sentiment", "", "."):
        text = refusal(replace(settings, model=f"builtin:{name}"))
        assert "choose one that is there: builtin:sentiment" in text
    monkeypatch.setattr(sources, "BUILTIN_MODELS", tmp_path / "nowhere")
    assert "none in this installation" in refusal(settings)


def test_hub_model_without_a_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A hub id that can't be reached is told with the way around."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    text = refusal(Settings(task="text-classification", model="nobody/nothing", revision="0123456"))
    assert "fetch the model on a machine with a network" in text


def test_warm_up_tells_a_model_that_cannot_run(tmp_path: Path) -> None:
    """A tokenizer that knows more tokens than the model fails at the start of the worker, not with the first job."""
    save(tmp_path)
    tokenizer = wordpiece_tokenizer()
    tiny_model("text-classification", "bert", tokenizer, vocab_size=7).save_pretrained(tmp_path)
    runner = load_runner("mine", Settings(task="text-classification", model=str(tmp_path)))
    with pytest.raises(ModelLoadError, match=r"queue 'mine': model .* is loaded but can't run"):
        runner.warm_up()
