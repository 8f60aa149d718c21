"""PEFT adapters on a queue's model: as PEFT itself answers, from safetensors, from where the queue says."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from pipemill.errors import ConfigurationError, MissingExtra, ModelLoadError
from pipemill_worker.pipelines import hub
from pipemill_worker.pipelines.loading import load_pipeline, sources
from tests.unit.pipelines.tiny import Settings, assert_same, tiny_model, wordpiece_tokenizer

peft = pytest.importorskip("peft")

#: PEFT asks transformers for something by its old name when it makes an adapter.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

TEXTS = ["river stone", "cloud", "winter music garden letter"]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A queue with a base model and a LoRA adapter that also holds its head."""
    tokenizer = wordpiece_tokenizer()
    base = tiny_model("text-classification", "bert", tokenizer)
    for part in (base, tokenizer):
        part.save_pretrained(tmp_path / "base")
    save_adapter(tmp_path / "base", tmp_path / "adapter")
    return Settings(task="text-classification", model=str(tmp_path / "base"), adapter=str(tmp_path / "adapter"))


def save_adapter(base: Path, folder: Path, **options: Any) -> None:
    """Save a random adapter of a base model."""
    torch.manual_seed(11)
    model: Any = transformers.AutoModelForSequenceClassification.from_pretrained(base, **options)
    lora = peft.LoraConfig(task_type="SEQ_CLS", r=4, init_lora_weights=False, target_modules=["query", "value"])
    adapted = peft.get_peft_model(model, lora)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "modules_to_save" in name:
                weight.normal_()
    adapted.save_pretrained(folder)


def direct(settings: Settings, *, merged: bool) -> Any:
    """The answers that PEFT's own model gives."""
    base: Any = transformers.AutoModelForSequenceClassification.from_pretrained(settings.model or "")
    model = peft.PeftModel.from_pretrained(base, settings.adapter).eval()
    model = model.merge_and_unload() if merged else model.base_model.model
    pipeline: Any = transformers.pipeline
    return pipeline(settings.task, model=model, tokenizer=wordpiece_tokenizer(), device="cpu")(TEXTS, top_k=None)


def answers(settings: Settings) -> Any:
    """The answers of the loaded pipeline."""
    pipe: Any = load_pipeline("mine", settings)
    assert not pipe.model.training
    return pipe(TEXTS, top_k=None)


def refusal(settings: Settings, kind: type[ConfigurationError] = ModelLoadError) -> str:
    """The error that loading ends in."""
    with pytest.raises(kind) as caught:
        load_pipeline("mine", settings)
    text = str(caught.value)
    assert text.startswith(f"queue 'mine': can't load model {settings.model!r} for {settings.task!r}: ")
    return text


@pytest.mark.parametrize("merged", [False, True])
def test_answers_are_those_of_peft(settings: Settings, *, merged: bool) -> None:
    """The adapter counts, its head included, as in PEFT's own model, merged or not."""
    mine = answers(settings)
    assert_same(mine, direct(settings, merged=merged), tolerance=1e-6)
    plain = answers(replace(settings, adapter=None))
    assert max(abs(a["score"] - b["score"]) for a, b in zip(mine[0], plain[0], strict=True)) > 0.01


def test_an_adapter_may_bring_the_head(settings: Settings) -> None:
    """A base without a head is refused alone, and taken with an adapter that brings one."""
    file = Path(settings.model or "") / "model.safetensors"
    weights = {key: value for key, value in load_file(file).items() if not key.startswith("classifier.")}
    save_file(weights, file, {"format": "pt"})
    assert "its weights lack classifier.bias, classifier.weight" in refusal(replace(settings, adapter=None))
    assert_same(answers(settings), direct(settings, merged=False), tolerance=1e-6)


def test_pickled_adapters_are_refused(settings: Settings) -> None:
    """An adapter's weights as a pickle are never opened."""
    folder = Path(settings.adapter or "")
    weights = load_file(folder / "adapter_model.safetensors")
    (folder / "adapter_model.safetensors").unlink()
    torch.save(weights, folder / "adapter_model.bin")
    text = refusal(settings)
    assert f"the adapter {settings.adapter!r}: the folder holds no adapter_model.safetensors" in text


def test_a_missing_adapter(settings: Settings, tmp_path: Path) -> None:
    """A path to nothing is told as such."""
    text = refusal(replace(settings, adapter=str(tmp_path / "nothing")))
    assert "there is no such folder; correct the path" in text


def test_an_adapter_of_another_model(settings: Settings, tmp_path: Path) -> None:
    """Layers that aren't there, that are more, and heads of other sizes are told."""
    mend = "name the model that the adapter was trained on as model:"
    for name, model_type, options in (("other", "distilbert", {}), ("deeper", "bert", {"num_hidden_layers": 3})):
        tokenizer = wordpiece_tokenizer()
        for part in (tiny_model("text-classification", model_type, tokenizer, **options), tokenizer):
            part.save_pretrained(tmp_path / name)
        assert mend in refusal(replace(settings, model=str(tmp_path / name)))
    save_adapter(Path(settings.model or ""), tmp_path / "wider", num_labels=7, ignore_mismatched_sizes=True)
    text = refusal(replace(settings, adapter=str(tmp_path / "wider")))
    assert f"have other shapes; {mend}, saved with as many labels" in text


def test_an_adapter_is_no_model(settings: Settings) -> None:
    """What an adapter's own settings name as its base is never followed: no revision pins it."""
    adapter = Path(settings.adapter or "")
    assert "the folder holds no config.json" in refusal(Settings(task=settings.task, model=str(adapter)))
    config = json.loads((Path(settings.model or "") / "config.json").read_text())
    (adapter / "config.json").write_text(json.dumps(config))
    text = refusal(Settings(task=settings.task, model=str(adapter)))
    assert "it holds an adapter (adapter_config.json); name the adapter's base as model:" in text


def test_adapters_of_the_hub_are_downloaded_at_their_commit(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a hub adapter, two files are downloaded at the pinned commit, and read from there."""
    asked = []

    def snapshot(repository: str, **options: Any) -> str:
        asked.append((repository, options["revision"], options["allow_patterns"]))
        return str(settings.adapter)

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    commit = "0123456789abcdef0123456789abcdef01234567"
    mine = answers(replace(settings, adapter="someone/lora", adapter_revision=commit))
    assert_same(mine, direct(settings, merged=False), tolerance=1e-6)
    assert asked == [("someone/lora", commit, ["adapter_config.json", "adapter_model.safetensors"])]


def test_peft_is_an_extra(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without PEFT, a queue with an adapter names the extra, and one without loads."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "pipemill_worker.pipelines.loading.adapters.find_spec", lambda name: None if name == "peft" else find(name)
    )
    assert refusal(settings, MissingExtra).endswith('; pip install "pipemill[adapters]"')
    load_pipeline("mine", replace(settings, adapter=None))


def test_models_of_the_hub_are_read_from_their_folder(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub model is downloaded at its commit, its code only where it is trusted, and then loaded like a folder."""
    asked: list[Any] = []

    def snapshot(repository: str, **options: Any) -> str:
        asked.append((repository, options["revision"], "*.py" in options["allow_patterns"]))
        return str(settings.model)

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    plain = Settings(task=settings.task, model="someone/tiny", revision="0123456")
    load_pipeline("mine", plain)
    load_pipeline("mine", replace(plain, trust_remote_code=True))
    assert asked == [("someone/tiny", "0123456", False), ("someone/tiny", "0123456", True)]
    assert sources.model_folder(plain) == Path(settings.model or "")
