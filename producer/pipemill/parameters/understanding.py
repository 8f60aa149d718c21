"""Parameters of the tasks that read texts: classification, entities, masks, features, embeddings, ranking."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipemill.parameters.base import Name, Parameters, Ranked, ScoreFunction, Text, TokenCount, about, left_out
from pipemill.parameters.labels import Labels, Template, candidate_labels, hypothesis_template


class TextClassification(Parameters):
    """Parameters of ``text-classification``."""

    top_k: Ranked | None = left_out("How many labels to return, best first; null returns all.")
    function_to_apply: ScoreFunction = left_out(
        "What turns the logits into scores; left out, the model's configuration decides."
    )
    truncation: bool = left_out("Cut a text that is too long for the model.")
    max_length: TokenCount = left_out("Tokens to which a text is cut.")


class TokenClassification(Parameters):
    """Parameters of ``token-classification``."""

    aggregation_strategy: Literal["none", "simple", "first", "average", "max"] = left_out(
        "How the tokens of one entity are joined."
    )
    ignore_labels: list[Text] = left_out("Labels that are left out.", max_length=256)
    stride: int = left_out(
        "Tokens by which the parts of a long text overlap; needs an aggregation_strategy.",
        ge=0,
        le=100_000,
    )
    is_split_into_words: bool = left_out("The inputs are a list of words, not a text.")
    delimiter: Text = left_out("What joins the words into a text.", max_length=32)

    @model_validator(mode="after")
    def _stride_needs_aggregation(self) -> Self:
        if "stride" in self.model_fields_set and self.aggregation_strategy == "none":
            raise about("stride", "needs the tokens aggregated", "set aggregation_strategy to simple")
        return self


class TokenizerOptions(Parameters):
    """What a job may tell the tokenizer of ``fill-mask``."""

    truncation: bool = left_out("Cut a text that is too long for the model.")
    max_length: TokenCount = left_out("Tokens to which a text is cut.")


class FeatureTokenizerOptions(TokenizerOptions):
    """What a job may tell the tokenizer of ``feature-extraction``."""

    add_special_tokens: bool = left_out("Add the model's start and end tokens.")


class FillMask(Parameters):
    """Parameters of ``fill-mask``."""

    top_k: Ranked = left_out("How many fillings to return, best first.")
    targets: (
        Annotated[Text, Field(min_length=1, max_length=100)]
        | Annotated[list[Annotated[Text, Field(min_length=1, max_length=100)]], Field(min_length=1, max_length=1000)]
    ) = left_out("The only fillings to consider.")
    tokenizer_kwargs: TokenizerOptions = left_out("Options of the tokenizer.")


class FeatureExtraction(Parameters):
    """Parameters of ``feature-extraction``."""

    truncation: bool = left_out("Cut a text that is too long for the model.")
    tokenize_kwargs: FeatureTokenizerOptions = left_out("Options of the tokenizer.")

    @model_validator(mode="after")
    def _truncation_once(self) -> Self:
        both = {"truncation", "tokenize_kwargs"} <= self.model_fields_set
        if both and "truncation" in self.tokenize_kwargs.model_fields_set:
            raise about("truncation", "given twice", "give it in tokenize_kwargs only")
        return self


class ZeroShotClassification(Parameters):
    """Parameters of ``zero-shot-classification``."""

    candidate_labels: Labels = candidate_labels()
    hypothesis_template: Template = hypothesis_template()
    multi_label: bool = left_out("Judge each label alone instead of against the others.")


class SentenceEmbedding(Parameters):
    """Parameters of ``sentence-embedding``."""

    pooling: Literal["mean", "cls", "last"] = left_out(
        "How the tokens' vectors become one: their mean, the first or the last; left out, the model's files decide."
    )
    normalize: bool = left_out("Make each vector as long as 1.")
    truncate_dim: int = left_out("Keep so many of a vector's first numbers.", ge=1, le=1_000_000)
    truncation: bool = left_out("Cut a text that is too long for the model; true unless said otherwise.")
    max_length: TokenCount = left_out("Tokens to which a text is cut.")
    prompt: Text = left_out("Text put before each input.", max_length=10_000)
    prompt_name: Name = left_out("Name of one of the model's own prompts, put before each input.")

    @model_validator(mode="after")
    def _one_prompt(self) -> Self:
        if {"prompt", "prompt_name"} <= self.model_fields_set:
            raise about("prompt_name", "excludes prompt", "give one of them")
        return self


class Rerank(Parameters):
    """Parameters of ``rerank``."""

    top_k: Ranked = left_out("How many documents to return, best first; left out, all.")
    return_documents: bool = left_out("Return each document's text beside its score.")
    function_to_apply: Literal["sigmoid", "none"] = left_out(
        "What turns the model's logit into a score; left out, the model's files decide."
    )
    truncation: bool = left_out("Cut what is too long for the model; true unless said otherwise.")
    max_length: TokenCount = left_out("Tokens to which query and document together are cut, the longer one first.")
