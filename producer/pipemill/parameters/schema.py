"""A task's allow-list as a JSON Schema, for programs that check parameters, or build a form, before they submit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pipemill.parameters.tasks import REQUIRED
from pipemill.parameters.validate import allow_list
from pipemill.validation import schema_of
from pipemill.validation.schema import ALLOWED

#: The dialect in which pydantic writes.
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
#: What only this project reads, or what says nothing: a title made of the name, and null where it isn't taken.
_DROPPED: Final = frozenset({ALLOWED, "title", "default"})


def parameter_schema(task: str) -> dict[str, Any]:
    """What a job of a task may set, as a JSON Schema of draft 2020-12.

    It holds for what the job gives and its queue's defaults together. Rules over several parameters aren't in it.

    Raises
    ------
    ConfigurationError
        When there is no such task.

    """
    schema = _plain(schema_of(allow_list(task)))
    required = REQUIRED.get(task, ())
    return {
        "$schema": DIALECT,
        "title": task,
        "description": f"Parameters of a job of {task}, with its queue's defaults.",
        **{key: value for key, value in schema.items() if key != "description"},
        **({"required": list(required)} if required else {}),
    }


def _plain(part: Mapping[str, Any]) -> dict[str, Any]:
    """Copy a part of a schema without what is dropped, and without the markup of docstrings."""
    return {key: _plain_value(key, value) for key, value in part.items() if key not in _DROPPED}


def _plain_value(key: str, value: Any) -> Any:
    if key in {"properties", "$defs"}:
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, Mapping):
        return _plain(value)
    if isinstance(value, list):
        return [_plain(each) if isinstance(each, Mapping) else each for each in value]
    return value.replace("``", "") if key == "description" else value
