"""What a repository's files say, read from a folder and from the hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from pipemill_worker.pipelines.own import sentence_files
from pipemill_worker.pipelines.own.sentence_files import read_sentence_files, rerank_defaults, sentence_defaults


def modules(*kinds: str) -> list[dict[str, str]]:
    """A list of modules of the library, each in a folder of its own but the first."""
    return [
        {"path": "" if kind == "Transformer" else f"{index}_{kind}", "type": f"sentence_transformers.models.{kind}"}
        for index, kind in enumerate(kinds)
    ]


def pooled(**settings: Any) -> dict[str, Any]:
    """The files of a model with one pooling."""
    return {"modules.json": modules("Transformer", "Pooling"), "1_Pooling/config.json": settings}


@pytest.mark.parametrize(
    ("settings", "pooling"),
    [
        ({}, "mean"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode_cls_token": True}, "cls"),
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode": "lasttoken"}, "last"),
        ({"pooling_mode": ["cls"]}, "cls"),
    ],
)
def test_poolings_by_their_older_and_newer_names(settings: dict[str, Any], pooling: str) -> None:
    """Flags of older versions and the name of newer ones give our name."""
    assert sentence_defaults(pooled(**settings)) == {"pooling": pooling, "normalize": False}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pooling_mode_max_tokens": True}, "pooling 'max'"),
        ({"pooling_mode_weightedmean_tokens": True}, "pooling 'weightedmean'"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, r"pooling 'cls\+mean'"),
        ({"pooling_mode": "mean", "include_prompt": False}, "leaves the prompt out"),
    ],
)
def test_poolings_we_lack_are_named(settings: dict[str, Any], message: str) -> None:
    """Another pooling would give other vectors."""
    with pytest.raises(ValueError, match=message):
        sentence_defaults(pooled(**settings))


@pytest.mark.parametrize("kind", ["sentence_transformers.models.Dense", "custom_st.Transformer"])
def test_modules_we_lack_are_named(kind: str) -> None:
    """So would another module, or one of the same name from elsewhere."""
    with pytest.raises(ValueError, match=r"'Dense'|'custom_st\.Transformer'"):
        sentence_defaults({"modules.json": [*modules("Transformer"), {"path": "1", "type": kind}]})


def test_all_that_is_said_is_heard() -> None:
    """Length, case, prompts and dimensions come along; the module names of newer versions are known."""
    files = {
        "modules.json": [
            {"path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"},
            {"path": "1_Normalize", "type": "sentence_transformers.base.modules.normalize.Normalize"},
        ],
        "sentence_roberta_config.json": {"max_seq_length": 128, "do_lower_case": True},
        "config_sentence_transformers.json": {
            "prompts": {"query": "q: ", "document": ""},
            "default_prompt_name": "query",
            "truncate_dim": 64,
        },
    }
    assert sentence_defaults(files) == {
        "pooling": "mean",
        "normalize": True,
        "max_length": 128,
        "lower_case": True,
        "prompts": {"query": "q: "},
        "prompt": "q: ",
        "truncate_dim": 64,
    }


def test_other_repositories_say_nothing() -> None:
    """Without the library's list of modules, nothing is assumed."""
    assert sentence_defaults({}) == {}
    assert sentence_defaults({"config_sentence_transformers.json": {"truncate_dim": 3}}) == {}
    assert rerank_defaults({}) == {}


def test_what_cross_encoders_say() -> None:
    """The activation and the length are read; what would change scores and isn't supported is refused."""
    files = {
        "modules.json": modules("Transformer"),
        "sentence_bert_config.json": {"max_seq_length": 77, "transformer_task": "sequence-classification"},
        "config_sentence_transformers.json": {"activation_fn": "torch.nn.modules.linear.Identity"},
    }
    assert rerank_defaults(files) == {"max_length": 77, "activation_fn": "torch.nn.modules.linear.Identity"}
    with pytest.raises(ValueError, match="transformer_task 'sequence-classification'"):
        sentence_defaults(files)
    with pytest.raises(ValueError, match="'LogitScore'"):
        rerank_defaults({"modules.json": modules("Transformer", "LogitScore")})
    with pytest.raises(ValueError, match="default prompt"):
        rerank_defaults({"config_sentence_transformers.json": {"default_prompt_name": "query"}})


def test_a_folder_is_read(tmp_path: Path) -> None:
    """The files that count are found where the modules say; a folder without any gives none."""
    assert read_sentence_files(str(tmp_path)) == {}
    for name, content in pooled(pooling_mode="cls").items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(content))
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": 5}')
    assert sentence_defaults(read_sentence_files(str(tmp_path))) == {
        "pooling": "cls",
        "normalize": False,
        "max_length": 5,
    }
    (tmp_path / "modules.json").write_text("{")
    with pytest.raises(ValueError, match=r"modules\.json isn't JSON"):
        read_sentence_files(str(tmp_path))


def test_the_hub_is_read_at_the_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file is asked for at the model's revision; those that aren't there are left out."""
    asked = []

    def download(repository: str, name: str, *, revision: str | None) -> str:
        asked.append((repository, name, revision))
        if name != "modules.json":
            raise EntryNotFoundError("404")
        (tmp_path / name).write_text(json.dumps(modules("Transformer", "Pooling")))
        return str(tmp_path / name)

    monkeypatch.setattr(sentence_files, "hf_hub_download", download)
    files = read_sentence_files("someone/model", "abc1234")
    assert list(files) == ["modules.json"]
    assert ("someone/model", "1_Pooling/config.json", "abc1234") in asked


def test_a_hub_out_of_reach_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed connection isn't taken for a missing file; offline, what isn't in the cache is missing."""

    def download(*_: Any, **__: Any) -> str:
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(sentence_files, "hf_hub_download", download)
    monkeypatch.setattr(constants, "is_offline_mode", lambda: False)
    with pytest.raises(LocalEntryNotFoundError):
        read_sentence_files("someone/model")
    monkeypatch.setattr(constants, "is_offline_mode", lambda: True)
    assert read_sentence_files("someone/model") == {}
