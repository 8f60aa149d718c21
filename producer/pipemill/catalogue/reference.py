"""The reference of every field in Markdown, written from the models themselves."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from pipemill.catalogue.model import BatchSettings, Catalogue, LimitSettings, QueueSettings, WorkerSettings
from pipemill.catalogue.overlay import CATALOGUE_VARIABLE, Overlay, variable_of
from pipemill.parameters import PARAMETERS, REQUIRED
from pipemill.validation import allowed, schema_of

_SECTIONS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("The file", Catalogue),
    ("`worker`", WorkerSettings),
    ("`queues.NAME`", QueueSettings),
    ("`queues.NAME.batch`", BatchSettings),
    ("`queues.NAME.limits`", LimitSettings),
)


def reference() -> str:
    """Every key of the catalogue, every environment variable, and every parameter of a job, as Markdown tables."""
    parts = [_fields(title, model) for title, model in _SECTIONS]
    return "\n".join([*parts, _variables(), *(_parameters(task, model) for task, model in PARAMETERS.items())])


def _fields(title: str, model: type[BaseModel]) -> str:
    rows = [
        (f"`{name}`", _takes(part, model), _default(name, part, model), _meaning(name, model))
        for name, part in _properties(model)
    ]
    return _table(title, ("key", "takes", "default", "meaning"), rows)


def _variables() -> str:
    rows = [(f"`{CATALOGUE_VARIABLE}`", "the file itself; `./pipemill.yaml` is the default")]
    places = {"broker": "`broker`", "device": "`device` of every queue, in place of its `device_map`"}
    rows += [(f"`{variable_of(name)}`", places.get(name, f"`worker.{name}`")) for name in Overlay.model_fields]
    return _table("Environment", ("variable", "stands for"), rows)


def _parameters(task: str, model: type[BaseModel]) -> str:
    rows = [
        (
            f"`{name}`" + (" (required)" if name in REQUIRED.get(task, ()) else ""),
            _takes(part, model),
            _meaning(name, model),
        )
        for name, part in _properties(model)
    ]
    title = f"Parameters of `{task}`"
    return _table(title, ("parameter", "takes", "meaning"), rows) if rows else f"### {title}\n\nNone.\n"


def _properties(model: type[BaseModel]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield from schema_of(model)["properties"].items()


def _takes(part: Mapping[str, Any], model: type[BaseModel]) -> str:
    return allowed(part, schema_of(model))


def _meaning(name: str, model: type[BaseModel]) -> str:
    return model.model_fields[name].description or ""


def _default(name: str, part: Mapping[str, Any], model: type[BaseModel]) -> str:
    if model.model_fields[name].is_required():
        return "required"
    default = part.get("default")
    return "as below" if isinstance(default, dict) and default else f"`{json.dumps(default)}`"


def _table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join([f"### {title}", "", *("| " + " | ".join(map(_cell, line)) + " |" for line in lines), ""])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
