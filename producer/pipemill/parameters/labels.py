"""The labels and the sentence of the zero-shot tasks."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field

from pipemill.parameters.base import Text, left_out
from pipemill.validation import mistaken

#: Labels of one zero-shot job: each is a forward pass of its own, or a row of one.
MAX_LABELS: Final = 200
#: Characters of one label: it is part of every hypothesis.
MAX_LABEL_CHARACTERS: Final = 200
#: Characters of the sentence into which labels are put.
MAX_TEMPLATE_CHARACTERS: Final = 300

_LIST: Final = f"a list of 1 to {MAX_LABELS} strings of at most {MAX_LABEL_CHARACTERS} characters"
_LIST_SCHEMA: Final[dict[str, Any]] = {
    "type": "array",
    "minItems": 1,
    "maxItems": MAX_LABELS,
    "items": {"type": "string", "minLength": 1, "maxLength": MAX_LABEL_CHARACTERS},
}
#: At least one label between the commas.
_STRING_SCHEMA: Final[dict[str, Any]] = {"type": "string", "pattern": r"[^,\s]"}


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


#: Labels in a list. Some pipelines read a string as a list of its characters: they get none.
LabelList = Annotated[
    list[Text], AfterValidator(_usable_labels), Field(json_schema_extra={"allowed": _LIST, **_LIST_SCHEMA})
]
#: Labels in a list, or in a string that the pipeline splits at its commas.
Labels = Annotated[
    Text | list[Text],
    AfterValidator(_usable_labels),
    Field(
        json_schema_extra={
            "allowed": f"{_LIST}, or one string with commas between them",
            "anyOf": [_STRING_SCHEMA, _LIST_SCHEMA],
        }
    ),
]
#: A sentence for ``str.format``, which gets the label and nothing else to do.
Template = Annotated[
    Text,
    Field(max_length=MAX_TEMPLATE_CHARACTERS),
    AfterValidator(_plain_template),
    Field(json_schema_extra={"pattern": r"^[^{}]*\{\}[^{}]*$"}),
]


def candidate_labels() -> Any:
    """Build the field of the labels to choose from."""
    return left_out("The labels to choose from; required, from the job or from the queue.")


def hypothesis_template() -> Any:
    """Build the field of the sentence into which labels are put."""
    return left_out("The sentence into which each label is put, at its only {}.")
