"""Documents in the order of their relevance to a query: ``rerank``, by a cross-encoder."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import torch

from pipemill_worker.pipelines.own.base import ChunkPipeline, StageParameters, TextOnly, files_of, given, most_tokens
from pipemill_worker.pipelines.own.sentence_files import rerank_defaults

#: What may be applied to a model's output, by the name of torch's class for it.
_FUNCTIONS: Final = {"Sigmoid": "sigmoid", "Identity": "none"}

#: An item's own values, which never reach the model.
_OWN: Final = ("document", "is_last")


class RerankPipeline(TextOnly, ChunkPipeline):  # type: ignore[misc]  # its base has no hints
    """``{"query": …, "documents": […]}`` gives ``[{"index", "score"}, …]``, best first; a list of them a list of such.

    Parameters: ``top_k`` (results wanted; all by default), ``return_documents`` (whether each result holds its
    ``document``; no), ``function_to_apply`` ("sigmoid" or "none"; by default the one that the model names, else
    "sigmoid"), ``truncation`` (whether query and document are cut to ``max_length`` tokens, by default to the model's
    most, the longer of the two first; yes).
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_model(self.model)
        self.defaults: dict[str, Any] = rerank_defaults(files_of(self.model))
        self.function = _function(self.model.config, self.defaults)
        # A classifier of the decoder kind would keep what it computed for a next token that never comes.
        self._without_cache = {"use_cache": False} if _takes(self.model, "use_cache") else {}

    def _sanitize_parameters(
        self,
        *,
        top_k: int | None = None,
        return_documents: bool | None = None,
        function_to_apply: str | None = None,
        truncation: bool | None = None,
        max_length: int | None = None,
    ) -> StageParameters:
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k is {top_k}: give at least 1, or leave it out for all documents")
        if function_to_apply is not None and function_to_apply not in _FUNCTIONS.values():
            raise ValueError(f"there is no function {function_to_apply[:80]!r}: choose sigmoid or none")
        preprocess = {"truncation": truncation, "max_length": max_length}
        postprocess = {"top_k": top_k, "return_documents": return_documents, "function_to_apply": function_to_apply}
        return given(**preprocess), {}, given(**postprocess)

    def preprocess(
        self, inputs: Mapping[str, Any], *, truncation: bool = True, max_length: int | None = None
    ) -> Iterator[dict[str, Any]]:
        """The query and a document, once per document."""
        query, documents = _query_and_documents(inputs)
        if max_length is None:
            max_length = self.defaults.get("max_length") or most_tokens(self.tokenizer, self.model.config)
        cut = {"truncation": "longest_first", "max_length": max_length} if truncation and max_length else {}
        last = len(documents) - 1
        for index, document in enumerate(documents):
            pair = self.tokenizer(query, document, return_tensors="pt", **cut)
            yield {**pair, "document": document, "is_last": index == last}

    def _forward(self, model_inputs: Mapping[str, Any]) -> dict[str, Any]:
        tensors = {name: value for name, value in model_inputs.items() if name not in _OWN}
        logits = self.model(**tensors, **self._without_cache)["logits"]
        return {"logits": logits, **{name: model_inputs[name] for name in _OWN}}

    def postprocess(
        self,
        model_outputs: Sequence[Mapping[str, Any]],
        *,
        top_k: int | None = None,
        return_documents: bool = False,
        function_to_apply: str | None = None,
    ) -> list[dict[str, Any]]:
        """The documents' places and scores, best first; equal ones in the order they came."""
        logits = torch.cat([output["logits"].reshape(1) for output in model_outputs]).float()
        scores = logits.sigmoid() if (function_to_apply or self.function) == "sigmoid" else logits
        results: list[dict[str, Any]] = [{"index": i, "score": score} for i, score in enumerate(scores.tolist())]
        if return_documents:
            for result, output in zip(results, model_outputs, strict=True):
                result["document"] = output["document"]
        return sorted(results, key=lambda result: -result["score"])[:top_k]


def check_model(model: Any) -> None:
    """Refuse a model that doesn't give one score.

    Raises
    ------
    ValueError
        Says how many it gives, and what to do.

    """
    labels = model.config.num_labels
    if labels != 1:
        raise ValueError(f"it gives {labels} scores: choose a cross-encoder with one label (num_labels: 1)")


def _function(config: Any, defaults: Mapping[str, Any]) -> str:
    """What sentence-transformers would apply to the model's output."""
    named = (getattr(config, "sentence_transformers", None) or {}).get("activation_fn")
    named = named or getattr(config, "sbert_ce_default_activation_function", None) or defaults.get("activation_fn")
    if named is None:
        return "sigmoid"
    module, _, name = str(named).rpartition(".")
    if not module.startswith("torch.") or name not in _FUNCTIONS:
        raise ValueError(f"its activation {str(named)[:80]!r} isn't supported: choose a model with Sigmoid or Identity")
    return _FUNCTIONS[name]


def _query_and_documents(inputs: Any) -> tuple[str, list[str]]:
    given_inputs: Mapping[str, Any] = inputs if isinstance(inputs, Mapping) else {}
    query, documents = given_inputs.get("query"), given_inputs.get("documents")
    texts: list[Any] = [query, *documents] if isinstance(documents, list | tuple) and documents else [None]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError('give {"query": "…", "documents": ["…", …]} with at least one document, or a list of such')
    return texts[0], texts[1:]


def _takes(model: Any, name: str) -> bool:
    return name in inspect.signature(model.forward).parameters
