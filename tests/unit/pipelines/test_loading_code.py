"""Python code that comes with a model: run where its queue says so, and nowhere else."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import transformers
from huggingface_hub.utils import filter_repo_objects  # type: ignore[attr-defined]  # it is documented there

from pipemill.errors import ModelLoadError
from pipemill_worker.pipelines import hub
from pipemill_worker.pipelines.loading import load_pipeline
from tests.unit.pipelines.tiny import Settings, tiny_model, wordpiece_tokenizer

MAP = {"AutoConfig": "homemade.Config", "AutoModelForSequenceClassification": "homemade.Model"}
CODE = """
from pathlib import Path
from transformers import BertConfig, BertForSequenceClassification

Path({ran!r}).touch()


class Config(BertConfig):
    model_type = "homemade"


class Model(BertForSequenceClassification):
    config_class = Config
"""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A queue whose model is of a type of its own; its code leaves a trace when it runs."""
    folder = tmp_path / "homemade_model"
    tokenizer = wordpiece_tokenizer()
    for part in (tiny_model("text-classification", "bert", tokenizer), tokenizer):
        part.save_pretrained(folder)
    change(folder, model_type="homemade", auto_map=MAP)
    (folder / "homemade.py").write_text(CODE.format(ran=str(tmp_path / "ran")))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))  # Trusted code is put into it.
    return Settings(task="text-classification", model=str(folder))


def change(folder: Path, **values: Any) -> None:
    """Write values into a model's configuration."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))


def refusal(settings: Settings) -> str:
    """The error that loading ends in."""
    with pytest.raises(ModelLoadError) as caught:
        load_pipeline("mine", settings)
    return str(caught.value)


def test_code_is_not_run_unless_trusted(settings: Settings, tmp_path: Path) -> None:
    """A checkpoint that brings code of its own is refused, and its code stays unread."""
    assert "read the Python code that comes with it and set trust_remote_code: true" in refusal(settings)
    assert not (tmp_path / "ran").exists()


def test_code_of_a_known_type_is_not_run_either(settings: Settings, tmp_path: Path) -> None:
    """A class of its own for a task that the type hasn't is told as such."""
    change(Path(settings.model or ""), model_type="vit", auto_map={"AutoModelForSequenceClassification": "homemade.M"})
    assert "it is made by Python code that comes with it; read that code" in refusal(settings)
    assert not (tmp_path / "ran").exists()


def test_trusted_code_is_run(settings: Settings, tmp_path: Path) -> None:
    """Where its queue trusts it, a model's own classes load and answer."""
    pipe: Any = load_pipeline("mine", replace(settings, trust_remote_code=True))
    assert (tmp_path / "ran").exists()
    assert type(pipe.model).__name__ == "Model"
    assert type(pipe.model) is not transformers.BertForSequenceClassification
    assert 0 < pipe("river stone")[0]["score"] < 1


def test_trusted_models_are_safetensors_too(settings: Settings) -> None:
    """Trusting code is not trusting pickles."""
    folder = Path(settings.model or "")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    text = refusal(replace(settings, trust_remote_code=True))
    assert "give a folder or repository that holds model.safetensors" in text


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_of_another_repository_is_refused(settings: Settings, file: str) -> None:
    """No revision pins what lies elsewhere, so it isn't run even where code is trusted."""
    path = Path(settings.model or "") / file
    content = json.loads(path.read_text())
    content["auto_map"] = {"AutoConfig": "homemade.Config", "AutoTokenizer": [None, "else/where--code.Tokenizer"]}
    path.write_text(json.dumps(content))
    for trusted in (False, True):
        text = refusal(replace(settings, trust_remote_code=trusted))
        assert "its code lies in another repository, else/where, at no pinned revision; copy that code" in text


def test_trusted_code_of_the_hub_is_pinned() -> None:
    """Without a revision, anybody who may write to the repository could run code here."""
    text = refusal(Settings(task="text-classification", model="someone/tiny", trust_remote_code=True))
    assert "its code would be run, but no revision pins it; set revision:" in text


#: Files of a repository that a task may need.
WANTED = [
    "config.json",
    "model.safetensors",
    "model-00001-of-00002.safetensors",
    "head.safetensors",
    "tokenizer.json",
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "source.spm",
    "bpe.codes",
    "chat_template.jinja",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "generation_config.json",
    "modules.json",
    "1_Pooling/config.json",
    "config_sentence_transformers.json",
    "vocoder/model.safetensors",
    "adapter/adapter_model.safetensors",
]
#: Files that are never loaded.
UNWANTED = [
    "pytorch_model.bin",
    "1_Dense/pytorch_model.bin",
    "adapter_model.bin",
    "training_args.bin",
    "optimizer.pt",
    "model.ckpt",
    "weights.pkl",
    "speaker_embeddings/voice.npy",
    "tf_model.h5",
    "onnx/config.json",
    "openvino/config.json",
    "original/params.json",
    "consolidated.safetensors",
    "README.md",
    "run.sh",
]
#: Its own code.
OWN_CODE = ["modeling_own.py", "custom_generate/generate.py"]


def test_what_is_downloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Weights as safetensors and what describes them; code where it is trusted; nothing else."""
    taken: list[str] = []

    def snapshot(_: str, *, allow_patterns: list[str], ignore_patterns: list[str], **__: Any) -> str:
        files = [*WANTED, *UNWANTED, *OWN_CODE]
        taken[:] = filter_repo_objects(files, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns)
        return str(tmp_path)

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    hub.download_model("someone/tiny", "0123456")
    assert taken == WANTED
    hub.download_model("someone/tiny", "0123456", with_code=True)
    assert taken == [*WANTED, *OWN_CODE]
