"""Models that are compiled: the same answers, no end of compiling, and a clear word where it can't be."""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from pipemill.errors import ModelLoadError
from pipemill_worker.pipelines.difference import difference
from pipemill_worker.pipelines.loading import compiling, load_pipeline
from pipemill_worker.pipelines.runner import TransformersRunner
from tests.unit.pipelines.tiny import (
    WORDS,
    Settings,
    byte_tokenizer,
    run_batched,
    tiny_model,
    tiny_pipeline,
    unchecked,
    wordpiece_tokenizer,
)

with_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="torch.compile needs a C++ compiler"
)


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """What torch compiled, and whose attention it leaves alone, ends with a test."""
    yield
    torch._dynamo.reset()
    if compiling.PACKED in ALL_ATTENTION_FUNCTIONS._local_mapping:
        del ALL_ATTENTION_FUNCTIONS[compiling.PACKED]


def saved(folder: Path, model_type: str = "bert", task: str = "text-classification") -> Settings:
    """A compiled queue with a tiny model."""
    tokenizer = byte_tokenizer() if task == "text-generation" else wordpiece_tokenizer()
    for part in (tiny_model(task, model_type, tokenizer), tokenizer):
        part.save_pretrained(folder)
    return Settings(task=task, model=str(folder), compile=True)


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The names of the events that were logged."""
    return [getattr(each, "event", "") for each in caplog.records]


@with_compiler
def test_compiled_layers_run_packed_in_any_thread(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Answers are those of the plain model, packed; after warm-up nothing is compiled again, also in another thread."""
    settings = saved(tmp_path)
    runner = TransformersRunner("mine", load_pipeline("mine", settings), settings, validate=unchecked)
    with caplog.at_level(logging.INFO, "pipemill.worker"):
        runner.warm_up()
    assert "compiled" in events(caplog)
    assert runner.describe()["sharing"] == "packed"
    caplog.clear()
    jobs = [(" ".join(WORDS[:length]), {"top_k": None}) for length in (1, 3, 20, 7, 7, 12, 5)]
    ran: list[Any] = []
    with caplog.at_level(logging.INFO, "pipemill.worker"):
        thread = threading.Thread(target=lambda: ran.append(run_batched(runner, jobs)))
        thread.start()
        thread.join()
    assert events(caplog) == []
    assert max(ran[0].batches) > 1
    plain: Any = load_pipeline("mine", replace(settings, compile=False))
    for (text, parameters), answer in zip(jobs, ran[0].answers, strict=True):
        assert difference(answer, plain(text, **parameters)) < 1e-5


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Let torch's compiled code end in an error, without a compiler."""

    def compiled(plain: Any, **_: Any) -> Any:
        def run(*_: Any, **__: Any) -> Any:
            raise error

        return plain if plain is compiling._trifle else run

    monkeypatch.setattr(torch, "compile", compiled)


@pytest.mark.parametrize("kind", ["FailOnRecompileLimitHit", "TorchDynamoException"])
def test_what_is_compiled_without_end_runs_as_it_was(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """Where torch compiles no more, the model answers uncompiled from then on, and the log says so once."""
    import torch._dynamo.exc as errors  # noqa: PLC0415  # slow to load

    failing(monkeypatch, getattr(errors, kind)("enough"))
    pipe = tiny_pipeline("text-classification", "deberta-v2")
    expected = pipe("river stone")
    compiling.compile_model("mine", Settings(task="text-classification", compile=True), pipe)
    with caplog.at_level(logging.WARNING, "pipemill.worker"):
        assert pipe("river stone") == expected
        assert pipe("river stone") == expected
    assert events(caplog) == ["compile_given_up"]
    assert "queue mine: from now on its model runs uncompiled" in caplog.text


def test_inputs_that_break_the_model_are_not_the_compilers_fault(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A job that fails uncompiled too fails with the model's own error, and the model stays compiled."""
    import torch._dynamo.exc as errors  # noqa: PLC0415  # slow to load

    failing(monkeypatch, errors.TorchDynamoException("in a graph"))
    pipe = tiny_pipeline("text-classification", "deberta-v2")
    compiling.compile_model("mine", Settings(task="text-classification", compile=True), pipe)
    with pytest.raises(IndexError):
        pipe.model(input_ids=torch.tensor([[99_999]]))
    assert events(caplog) == []


@pytest.mark.parametrize(
    ("model_type", "layers"), [("bert", True), ("modernbert", True), ("mpnet", False), ("deberta-v2", False)]
)
def test_what_packs_is_compiled_by_its_layers(
    monkeypatch: pytest.MonkeyPatch,
    model_type: str,
    layers: bool,  # noqa: FBT001  # an expected value
) -> None:
    """Known encoders stay packed around their attention; a model that is compiled whole is padded."""
    monkeypatch.setattr(torch, "compile", lambda plain, **_: plain)
    pipe = tiny_pipeline("feature-extraction", model_type, wordpiece_tokenizer())
    settings = Settings(task="feature-extraction", compile=True)
    compiling.compile_model("mine", settings, pipe)
    whole = "forward" in vars(pipe.model)
    assert whole is not layers
    runner = TransformersRunner("mine", pipe, settings, validate=unchecked)
    assert runner.sharing.value == ("packed" if layers else "padded")


def refusal(settings: Settings) -> str:
    """The error that loading ends in."""
    with pytest.raises(ModelLoadError) as caught:
        load_pipeline("mine", settings)
    return str(caught.value)


def test_a_model_that_writes_is_refused(tmp_path: Path) -> None:
    """Each token would be another shape."""
    text = refusal(saved(tmp_path, "gpt2", "text-generation"))
    assert text.endswith("this one writes token by token; remove compile")


def test_what_compiling_excludes_is_refused(tmp_path: Path) -> None:
    """Layers that torch can't see into, and models on several devices."""
    settings = saved(tmp_path)
    assert "see into layers of int8-dynamic; remove one" in refusal(replace(settings, quantisation="int8-dynamic"))
    assert "device_map is set; remove one of the two" in refusal(replace(settings, device="auto", device_map="auto"))


def test_without_a_compiler_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names what is missing and how to install it."""
    from torch._inductor import config  # noqa: PLC0415  # slow to load
    from torch._inductor.utils import fresh_cache  # noqa: PLC0415  # as above

    monkeypatch.setattr(compiling, "_trifle", lambda values: values * 3 - 7)
    with config.patch({"cpp.cxx": ("/nowhere/c++",), "compile_threads": 1}), fresh_cache():
        text = refusal(saved(tmp_path))
    assert "torch.compile can't compile here" in text
    assert text.endswith("install a C++ compiler (Debian and Ubuntu: apt-get install g++), or remove compile")
