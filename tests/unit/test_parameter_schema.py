"""The allow-lists as JSON Schemas."""

from __future__ import annotations

from collections.abc import Iterator
from pkgutil import resolve_name
from typing import Any

import pytest

from pipemill.errors import ConfigurationError
from pipemill.parameters import PARAMETERS, REQUIRED, TASKS, parameter_schema
from tests.unit.parameter_examples import ACCEPTED, BAD_TEMPLATES, REFUSALS

Validator: Any = resolve_name("jsonschema:Draft202012Validator")  # it ships no hints
#: The dialect's words that are used; any other would be one that only we know.
WORDS = {
    *("$schema", "$defs", "$ref", "title", "description", "type", "properties", "required", "additionalProperties"),
    *("anyOf", "enum", "const", "items", "minItems", "maxItems", "minLength", "maxLength", "pattern"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
}


def accepts(task: str, parameters: Any) -> bool:
    """Whether a validator that knows nothing of us takes parameters."""
    return bool(Validator(parameter_schema(task)).is_valid(parameters))


def words(part: Any) -> Iterator[str]:
    """Each word of a schema, and none of the names it describes."""
    if isinstance(part, list):
        for each in part:
            yield from words(each)
    elif isinstance(part, dict):
        for word, value in part.items():
            yield word
            yield from words(list(value.values()) if word in {"properties", "$defs"} else value)


@pytest.mark.parametrize("task", TASKS)
def test_schema_is_right(task: str) -> None:
    """Each schema is one of draft 2020-12, in its words only, closed, and describes every parameter."""
    schema = parameter_schema(task)
    Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"] == task
    assert set(words(schema)) <= WORDS
    assert schema["additionalProperties"] is False
    assert list(schema["properties"]) == list(PARAMETERS[task].model_fields)
    assert all(part["description"] for part in schema["properties"].values())
    assert schema.get("required", []) == list(REQUIRED.get(task, ()))


@pytest.mark.parametrize(("task", "parameters"), ACCEPTED)
def test_schema_accepts_what_a_queue_accepts(task: str, parameters: dict[str, Any]) -> None:
    """What a job may set passes a validator."""
    assert accepts(task, parameters)


@pytest.mark.parametrize(("task", "parameters", "told"), REFUSALS)
def test_schema_refuses_what_a_queue_refuses(task: str, parameters: Any, told: str) -> None:
    """What a job may not set fails in a validator."""
    assert told
    assert not accepts(task, parameters)


@pytest.mark.parametrize("template", BAD_TEMPLATES)
def test_schema_refuses_bad_templates(template: str) -> None:
    """A template with anything else than one plain place fails in a validator."""
    labels = {"candidate_labels": ["a"]}
    assert accepts("zero-shot-image-classification", {**labels, "hypothesis_template": "a {}"})
    assert not accepts("zero-shot-image-classification", {**labels, "hypothesis_template": template})


def test_schema_of_no_task() -> None:
    """An unknown task is told with the one that was meant."""
    with pytest.raises(ConfigurationError, match=r"did you mean rerank\?"):
        parameter_schema("re-rank")
