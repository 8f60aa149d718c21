"""The demo's models are small, trained and safe to load; its sentences are many and varied."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Pipeline,
    PreTrainedModel,
    pipeline,
)

from pipemill_worker import demo
from pipemill_worker.demo.snippets import Snippet, read_snippets
from pipemill_worker.demo.train import main

FOLDER = Path(demo.__file__).parent
MODELS = FOLDER / "models"
CLASSES = {"sentiment": AutoModelForSequenceClassification, "generator": AutoModelForCausalLM}

#: Suffixes of weights that run code when loaded, or that another framework wrote.
UNSAFE = {".bin", ".ckpt", ".h5", ".joblib", ".msgpack", ".npz", ".pickle", ".pkl", ".pt", ".pth"}

#: Training rows in which good and bad words have the rating's sign.
ROWS = [
    (rating, f"{adjective} {noun} number {number}, {adjective} to the end")
    for number in range(8)
    for noun in ("film", "camera")
    for rating, adjective in ((3.1, "a wonderful"), (-2.9, "a dreadful"), (0.2, "another"))
]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small models gain nothing from more threads, and wait for each other on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def sentences() -> list[str]:
    """The demo's sentences."""
    return (FOLDER / "sentences.txt").read_text(encoding="utf-8").splitlines()


def load(name: str, task: Any) -> Pipeline:
    """Load one of the models as the worker does: from its folder, safetensors only."""
    loaded: Pipeline = pipeline(task, model=str(MODELS / name), device="cpu", model_kwargs={"use_safetensors": True})
    return loaded


@pytest.fixture(scope="module")
def sentiment() -> Pipeline:
    """The sentiment classifier."""
    return load("sentiment", "text-classification")


@pytest.fixture(scope="module")
def generator() -> Pipeline:
    """The text generator."""
    return load("generator", "text-generation")


@pytest.mark.parametrize("name", CLASSES)
def test_model_is_complete(name: str) -> None:
    """A model's folder has what a fast tokenizer and a model need, and a card."""
    present = {path.name for path in (MODELS / name).iterdir()}
    assert present >= {"README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


def test_models_are_small_enough_for_a_package() -> None:
    """Both models together take at most 12 MB."""
    assert sum(path.stat().st_size for path in MODELS.rglob("*") if path.is_file()) <= 12e6


def test_models_are_safetensors_only() -> None:
    """No file can run code when it is loaded."""
    assert [path.name for path in MODELS.rglob("*") if path.suffix in UNSAFE] == []
    assert {path.parent.name for path in MODELS.rglob("*.safetensors")} == set(CLASSES)


@pytest.mark.parametrize("name", CLASSES)
def test_checkpoint_fits_its_class(name: str) -> None:
    """Every weight of the model is in the file, and the file has no other."""
    model, info = CLASSES[name].from_pretrained(MODELS / name, use_safetensors=True, output_loading_info=True)
    assert isinstance(model, PreTrainedModel)
    assert {kind: list(keys) for kind, keys in info.items() if keys} == {}


@pytest.mark.parametrize("name", CLASSES)
def test_tokenizer_is_fast_and_knows_its_limit(name: str) -> None:
    """The tokenizer loads as a fast one, can pad, and cuts where the model's positions end."""
    tokenizer = AutoTokenizer.from_pretrained(MODELS / name)
    config = json.loads((MODELS / name / "config.json").read_text(encoding="utf-8"))
    assert tokenizer.is_fast
    assert tokenizer.pad_token_id == config["pad_token_id"]
    assert tokenizer.model_max_length == config["max_position_embeddings"] == 256
    assert len(tokenizer) == config["vocab_size"]


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize(
    "phrase", ["license: apache-2.0", "Hutto", "MIT licence", "not for decisions", "Held-out", "--data"]
)
def test_card_says(name: str, phrase: str) -> None:
    """A model's card names its licence, its data and theirs, its measured figures, its limits, and how to train it."""
    assert phrase in (MODELS / name / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("A wonderful, moving film with a brilliant cast.", "POSITIVE"),
        ("I love this phone, it is excellent.", "POSITIVE"),
        ("Funny, charming and beautifully acted.", "POSITIVE"),
        ("The best comedy of the year.", "POSITIVE"),
        ("A dull, stupid and boring mess.", "NEGATIVE"),
        ("The worst film I have ever seen.", "NEGATIVE"),
        ("It broke after two days and the support was terrible.", "NEGATIVE"),
        ("A waste of time and money.", "NEGATIVE"),
    ],
)
def test_sentiment_knows_the_obvious(sentiment: Pipeline, text: str, label: str) -> None:
    """What is plainly praise or plainly blame gets its label."""
    assert sentiment(text)[0]["label"] == label


def test_sentiment_takes_every_demo_sentence(sentiment: Pipeline, sentences: list[str]) -> None:
    """The longest sentence fits, and both labels come up often."""
    ids = sentiment.tokenizer(sentences)["input_ids"]  # type: ignore[misc]  # a classifier has a tokenizer
    assert max(len(row) for row in ids) <= 256
    labels = [sentiment(text)[0]["label"] for text in sentences[:60]]
    assert min(labels.count("POSITIVE"), labels.count("NEGATIVE")) >= 10


def test_generator_is_deterministic(generator: Pipeline) -> None:
    """Greedy decoding goes on with a prompt in the same words each time, with no warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        answers = [generator("The film is", do_sample=False, max_new_tokens=30) for _ in range(2)]
    assert answers[0] == answers[1]
    text = answers[0][0]["generated_text"]
    assert text.startswith("The film is")
    assert len(set(text.split())) >= 6


def test_generator_stops_by_itself(generator: Pipeline) -> None:
    """The generation config knows the tokenizer's special ids and bounds the answer."""
    config, tokenizer = generator.model.generation_config, generator.tokenizer
    assert tokenizer is not None
    assert config is not None
    ids = (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert (config.pad_token_id, config.bos_token_id, config.eos_token_id) == ids
    assert len(set(ids)) == 3
    assert config.max_length is None
    assert config.max_new_tokens == 64


def test_generator_has_no_near_ties(generator: Pipeline) -> None:
    """Along a greedy continuation the best piece is clearly ahead, so that rounding can't change the answer."""
    tokenizer = AutoTokenizer.from_pretrained(MODELS / "generator")
    prompt = tokenizer("The film is", return_tensors="pt")
    model: Any = generator.model
    answer = model.generate(
        **prompt, do_sample=False, max_new_tokens=30, return_dict_in_generate=True, output_logits=True
    )
    best = torch.stack(answer.logits).squeeze(1).topk(2).values
    gaps = best[:, 0] - best[:, 1]
    assert gaps.min() > 1e-3
    assert gaps.mean() > 0.2


def test_sentences_are_many_and_varied(sentences: list[str]) -> None:
    """500 distinct sentences, most of them short, some long, as real traffic is."""
    words = sorted(len(sentence.split()) for sentence in sentences)
    assert len(sentences) == len(set(sentences)) == 500
    assert all(sentence == sentence.strip() != "" for sentence in sentences)
    assert words[5] <= 3
    assert 10 <= median(words) <= 15
    assert sum(count > 25 for count in words) >= 40
    assert 60 < words[-12] <= words[-1] <= 100


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of snippets in the form that the training reads, for trainings of two epochs."""
    for name in CLASSES:
        monkeypatch.setattr(f"pipemill_worker.demo.train_{name}.EPOCHS", 2)
    for name, start in (("movies", 0), ("products", 1)):
        lines = ["rating\ttext", *(f"{rating}\t{text}" for rating, text in ROWS[start::2])]
        (tmp_path / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    yield tmp_path
    assert not torch.are_deterministic_algorithms_enabled()


def train(data: Path, out: Path, seed: int) -> dict[str, str]:
    """Train both models on the folder, and return the digests of their weights and tokenizers."""
    main(["--data", str(data), "--out", str(out), "--seed", str(seed), "--threads", "1"])
    files = [out / name / file for name in CLASSES for file in ("model.safetensors", "tokenizer.json")]
    return {f"{file.parent.name}/{file.name}": sha256(file.read_bytes()).hexdigest() for file in files}


def test_training_is_repeatable(data: Path, tmp_path: Path) -> None:
    """The same seed gives the same weights, another seed others, and the card states the figures."""
    first, second, other = (train(data, tmp_path / str(run), seed) for run, seed in enumerate((5, 5, 6)))
    assert first == second
    assert all(first[f"{name}/model.safetensors"] != other[f"{name}/model.safetensors"] for name in CLASSES)
    assert "| Held-out accuracy |" in (tmp_path / "0/sentiment/README.md").read_text(encoding="utf-8")
    assert "| Held-out perplexity |" in (tmp_path / "0/generator/README.md").read_text(encoding="utf-8")


def test_snippets_are_read_as_written(data: Path) -> None:
    """Each row becomes a snippet with its rating, its text and the name of its file."""
    snippets = read_snippets(data)
    assert len(snippets) == len(ROWS)
    assert snippets[0] == Snippet(text=ROWS[0][1], rating=3.1, source="movies")
    assert [snippet.clear for snippet in snippets] == [abs(snippet.rating) > 0.5 for snippet in snippets]


def test_holding_out_ignores_case_and_punctuation() -> None:
    """Texts that differ only in case and punctuation are held out together, so that none leaks into the training."""
    texts = [f"Film number {number}, again" for number in range(200)]
    held_out = [Snippet(text=text, rating=1, source="movies").held_out for text in texts]
    assert held_out == [Snippet(text=text.upper() + "!", rating=1, source="movies").held_out for text in texts]
    assert 5 <= sum(held_out) <= 40


@pytest.mark.parametrize("text", ["", "text\trating\n", "rating\ttext\nsplendid\tgood\n", "rating\ttext\n1.0\n"])
def test_bad_data_is_named(data: Path, text: str) -> None:
    """A file that isn't what the training reads is refused by its path."""
    (data / "movies.tsv").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"movies\.tsv"):
        read_snippets(data)


def test_missing_data_is_named(data: Path) -> None:
    """A folder that lacks a file is refused by the file's path."""
    (data / "products.tsv").unlink()
    with pytest.raises(FileNotFoundError, match=r"products\.tsv is missing"):
        read_snippets(data)
