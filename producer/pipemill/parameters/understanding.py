"""Parameters of the tasks that read a text without writing one: classification, entities, masks, features."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from pipemill.parameters.base import MAX_RANKED, Parameters, Text, TokenCount, about, left_out
from pipemill.validation import mistaken

#: Labels of one zero-shot job: each is a forward pass of its own.
MAX_LABELS: Final = 200
#: Characters of one label: it is part of every hypothesis.
MAX_LABEL_CHARACTERS: Final = 200


class TextClassification(Parameters):
    """Parameters of ``text-classification``."""

    top_k: Annotated[int, Field(ge=1, le=MAX_RANKED)] | None = left_out(
        "How many labels to return, best first; null returns all."
    )
    function_to_apply: Literal["sigmoid", "softmax", "none"] = left_out(
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

    top_k: int = left_out("How many fillings to return, best first.", ge=1, le=MAX_RANKED)
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


def _usable_labels(labels: str | list[str]) -> str | list[str]:
    each = _split(labels) if isinstance(labels, str) else labels
    if not 1 <= len(each) <= MAX_LABELS:
        raise mistaken(f"{len(each)} labels", f"give 1 to {MAX_LABELS}")
    if any(not 1 <= len(label) <= MAX_LABEL_CHARACTERS for label in each):
        raise mistaken("a label is empty or too long", f"give labels of 1 to {MAX_LABEL_CHARACTERS} characters")
    return labels


def _split(labels: str) -> list[str]:
    return [label.strip() for label in labels.split(",") if label.strip()]


def _plain_template(template: str) -> str:
    if template.count("{") != 1 or template.count("}") != 1 or "{}" not in template:
        raise mistaken("not exactly one {} for the label", 'write it as in "This example is {}.", with no other braces')
    return template


class ZeroShotClassification(Parameters):
    """Parameters of ``zero-shot-classification``."""

    candidate_labels: Annotated[Text | list[Text], AfterValidator(_usable_labels)] = left_out(
        "The labels to choose from; required, from the job or from the queue.",
        json_schema_extra={
            "allowed": f"a list of 1 to {MAX_LABELS} strings of at most {MAX_LABEL_CHARACTERS} characters, "
            "or one string with commas between them"
        },
    )
    hypothesis_template: Annotated[Text, AfterValidator(_plain_template)] = left_out(
        "The sentence into which each label is put, at its only {}.",
        max_length=300,
    )
    multi_label: bool = left_out("Judge each label alone instead of against the others.")
