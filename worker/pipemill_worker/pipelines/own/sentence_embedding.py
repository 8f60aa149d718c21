"""One vector per text: ``sentence-embedding``, as sentence-transformers computes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch.nn.functional import normalize as to_unit_length

from pipemill_worker.pipelines.own.base import Pipeline, StageParameters, TextOnly, a_text, files_of, given, most_tokens
from pipemill_worker.pipelines.own.sentence_files import sentence_defaults

#: How a text's token vectors become one.
POOLINGS: Final = ("mean", "cls", "last")


class SentenceEmbeddingPipeline(TextOnly, Pipeline):  # type: ignore[misc]  # its base has no hints
    """A text gives a list of floats; a list of texts a list of such lists.

    Parameters, whose defaults are the repository's if it is one of sentence-transformers, else the first named:

    - ``pooling``: "mean" of a text's tokens, the first ("cls"), or the "last"
    - ``normalize``: whether vectors have length 1; no
    - ``truncation``: whether a text is cut to ``max_length`` tokens, by default to the model's most; yes
    - ``prompt``: a text put before each text, or ``prompt_name``, one of the repository's
    - ``truncate_dim``: how many of a vector's first numbers are kept; all
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.defaults: dict[str, Any] = sentence_defaults(files_of(self.model))

    def _sanitize_parameters(  # noqa: PLR0913  # one per parameter of the task
        self,
        *,
        pooling: str | None = None,
        normalize: bool | None = None,
        truncate_dim: int | None = None,
        truncation: bool | None = None,
        max_length: int | None = None,
        prompt: str | None = None,
        prompt_name: str | None = None,
    ) -> StageParameters:
        if pooling is not None and pooling not in POOLINGS:
            raise ValueError(f"there is no pooling {pooling[:80]!r}: choose one of {', '.join(POOLINGS)}")
        if prompt is not None and prompt_name is not None:
            raise ValueError("prompt and prompt_name exclude each other: give one of them")
        preprocess = {
            "truncation": truncation,
            "max_length": max_length,
            "prompt": prompt,
            "prompt_name": prompt_name,
        }
        forward = {"pooling": pooling, "normalize": normalize, "truncate_dim": truncate_dim}
        return given(**preprocess), given(**forward), {}

    def preprocess(
        self,
        text: str,
        *,
        truncation: bool = True,
        max_length: int | None = None,
        prompt: str | None = None,
        prompt_name: str | None = None,
    ) -> dict[str, Any]:
        """Token ids of the prompt and the text."""
        text = self._prompt(prompt, prompt_name) + a_text(text)
        if self.defaults.get("lower_case"):
            text = text.lower()
        if max_length is None:
            max_length = self.defaults.get("max_length") or most_tokens(self.tokenizer, self.model.config)
        cut = {"truncation": True, "max_length": max_length} if truncation and max_length is not None else {}
        return dict(self.tokenizer(text, return_tensors="pt", **cut))

    def _forward(
        self,
        model_inputs: Mapping[str, torch.Tensor],
        *,
        pooling: str | None = None,
        normalize: bool | None = None,
        truncate_dim: int | None = None,
    ) -> dict[str, torch.Tensor]:
        tokens = self.model(**model_inputs)["last_hidden_state"].float()
        mask = model_inputs.get("attention_mask")
        if mask is None:
            mask = torch.ones(tokens.shape[:2], dtype=torch.long, device=tokens.device)
        vectors = pool(tokens, mask, pooling or self.defaults.get("pooling", POOLINGS[0]))
        if normalize is None and self.defaults.get("normalize"):
            vectors = to_unit_length(vectors)
        vectors = vectors[:, : truncate_dim or self.defaults.get("truncate_dim")]
        return {"embeddings": to_unit_length(vectors) if normalize else vectors}

    def postprocess(self, model_outputs: Mapping[str, torch.Tensor]) -> list[float]:
        """The vector as a list."""
        vector: list[float] = model_outputs["embeddings"][0].tolist()
        return vector

    def _prompt(self, prompt: str | None, name: str | None) -> str:
        if name is None:
            default: str = self.defaults.get("prompt", "")
            return default if prompt is None else prompt
        prompts: Mapping[str, str] = self.defaults.get("prompts", {})
        if name not in prompts:
            known = ", ".join(prompts) or "none"
            raise ValueError(f"the model has no prompt {name[:80]!r}: choose from its own ({known}), or pass prompt")
        return prompts[name]


def pool(tokens: torch.Tensor, mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """One vector per row, ``[rows, size]``, of ``tokens`` ``[rows, tokens, size]`` where ``mask`` isn't 0."""
    if pooling == "mean":
        weights = mask.unsqueeze(-1).to(tokens.dtype)
        return (tokens * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
    places = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
    if pooling == "cls":
        chosen = places.masked_fill(mask == 0, mask.shape[1] - 1).amin(1)
    else:
        chosen = places.masked_fill(mask == 0, 0).amax(1)
    return tokens[torch.arange(len(tokens), device=tokens.device), chosen]
