"""Documents in the order of their scores, which are those of sentence-transformers' cross-encoder."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from pipemill_worker.pipelines.own import check_model, register
from tests.unit.pipelines.own.models import own_model, own_pipeline, together
from tests.unit.pipelines.tiny import assert_same, sentence, wordpiece_tokenizer

OWN = ("document", "is_last")
RNG = random.Random(6)
JOB = {"query": "river stone", "documents": [sentence(RNG, 1, 30) for _ in range(6)]}


@pytest.fixture(scope="module")
def pipe() -> Any:
    """A pipeline over a random BERT with one label."""
    return own_pipeline("rerank", num_labels=1)


def logits_of(pipe: Any, job: dict[str, Any]) -> list[float]:
    """The model's output for each document, without a pipeline."""
    pairs = [pipe.tokenizer(job["query"], text, return_tensors="pt") for text in job["documents"]]
    with torch.no_grad():
        return [pipe.model(**pair).logits.item() for pair in pairs]


def test_scores_and_order(pipe: Any) -> None:
    """Each document has the sigmoid of its logit, and the best comes first."""
    logits = logits_of(pipe, JOB)
    expected = sorted(enumerate(logits), key=lambda pair: -pair[1])
    answer = pipe(JOB)
    assert [result["index"] for result in answer] == [index for index, _ in expected]
    scores = torch.sigmoid(torch.tensor([logit for _, logit in expected])).tolist()
    assert [result["score"] for result in answer] == pytest.approx(scores, abs=1e-6)
    raw = pipe(JOB, function_to_apply="none")
    assert [result["score"] for result in raw] == pytest.approx([logit for _, logit in expected], abs=1e-6)


def test_shapes_and_parameters(pipe: Any) -> None:
    """The best few, with their documents if wanted; a list of jobs gives a list."""
    best = pipe(JOB, top_k=2, return_documents=True)
    assert [list(result) for result in best] == [["index", "score", "document"]] * 2
    assert all(JOB["documents"][result["index"]] == result["document"] for result in best)
    assert len(pipe(JOB, top_k=100)) == 6
    other = {"query": "cloud", "documents": ["winter"]}
    assert pipe([JOB, other]) == [pipe(JOB), pipe(other)]


def test_equal_scores_keep_their_order(pipe: Any) -> None:
    """Documents with equal scores stand in the order they came."""
    answer = pipe({"query": "river", "documents": ["stone"] * 5})
    assert [result["index"] for result in answer] == [0, 1, 2, 3, 4]


def test_rows_of_a_batch_are_those_of_single_runs(pipe: Any) -> None:
    """Padding to a common length changes no score."""
    items = list(pipe.preprocess(JOB))
    assert [item["is_last"] for item in items] == [False] * 5 + [True]
    assert_same(pipe.postprocess(together(pipe, items, OWN)), pipe(JOB), tolerance=1e-6)


def test_cut_by_default_and_honest_when_not(pipe: Any) -> None:
    """A pair is cut to the model's positions, the longer text first, unless the job says no."""
    job = {"query": "river stone", "documents": [" ".join(["cloud"] * 600)]}
    (cut,) = pipe.preprocess(job)
    (short,) = pipe.preprocess(job, max_length=10)
    (whole,) = pipe.preprocess(job, truncation=False)
    assert [item["input_ids"].shape[1] for item in (cut, short, whole)] == [512, 10, 605]


@pytest.mark.parametrize("labels", [2, 3])
def test_models_with_more_labels_are_refused(labels: int) -> None:
    """Only one score can be an order."""
    model = own_model("rerank", "bert", wordpiece_tokenizer(), num_labels=labels)
    with pytest.raises(ValueError, match=f"gives {labels} scores"):
        check_model(model)
    with pytest.raises(ValueError, match=f"gives {labels} scores"):
        own_pipeline("rerank", num_labels=labels)


@pytest.mark.parametrize(
    ("job", "parameters", "message"),
    [
        ({"query": "river"}, {}, "at least one document"),
        ({"query": "river", "documents": []}, {}, "at least one document"),
        ({"query": "river", "documents": ["stone", 7]}, {}, "at least one document"),
        ({"query": None, "documents": ["stone"]}, {}, "at least one document"),
        (JOB, {"top_k": 0}, "top_k is 0"),
        (JOB, {"function_to_apply": "softmax"}, "no function 'softmax'"),
    ],
)
def test_mistakes_are_named(pipe: Any, job: Any, parameters: dict[str, Any], message: str) -> None:
    """What can't be ranked is refused with a reason."""
    with pytest.raises(ValueError, match=message):
        pipe(job, **parameters)


@pytest.mark.parametrize(
    ("options", "function"),
    [
        ({}, "sigmoid"),
        ({"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"}}, "sigmoid"),
        ({"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}, "none"),
        ({"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}, "none"),
    ],
)
def test_the_model_names_its_function(options: dict[str, Any], function: str) -> None:
    """What the configuration names is applied unless a job says otherwise."""
    pipe = own_pipeline("rerank", num_labels=1, **options)
    assert pipe(JOB) == pipe(JOB, function_to_apply=function)
    assert pipe.function == function


@pytest.mark.parametrize("name", ["torch.nn.modules.activation.Tanh", "somewhere.Sigmoid"])
def test_functions_we_lack_are_refused(name: str) -> None:
    """Scores of another function would be wrong."""
    with pytest.raises(ValueError, match="isn't supported"):
        own_pipeline("rerank", num_labels=1, sentence_transformers={"activation_fn": name})


@pytest.mark.parametrize("name", ["activation.Sigmoid", "linear.Identity"])
def test_equal_to_sentence_transformers(tmp_path: Path, name: str) -> None:
    """Scores and order are those of the library's ``CrossEncoder.rank``, on texts of mixed length."""
    library = pytest.importorskip("sentence_transformers", reason="needs the extra bench")
    tokenizer = wordpiece_tokenizer()
    named = {"sentence_transformers": {"activation_fn": f"torch.nn.modules.{name}"}}
    own_model("rerank", "bert", tokenizer, num_labels=1, **named).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    register()
    build: Any = transformers.pipeline
    pipe = build("rerank", model=str(tmp_path), device="cpu")
    job = {**JOB, "documents": [*JOB["documents"], " ".join(["cloud"] * 700)]}
    expected = library.CrossEncoder(str(tmp_path), device="cpu").rank(job["query"], job["documents"])
    assert_same(pipe(job), [{"index": one["corpus_id"], "score": float(one["score"])} for one in expected], 1e-5)
