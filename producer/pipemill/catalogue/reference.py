"""The reference of every field in Markdown, written from the models themselves."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from pipemill.address import PASSWORD_FILE_VARIABLE, PASSWORD_VARIABLE
from pipemill.catalogue.model import BatchSettings, BlobSettings, Catalogue, LimitSettings, QueueSettings, UrlSettings
from pipemill.catalogue.overlay import CATALOGUE_VARIABLE, Overlay, variable_of
from pipemill.catalogue.retry import RetrySettings
from pipemill.catalogue.signing import SigningSettings
from pipemill.catalogue.worker import WorkerSettings
from pipemill.parameters import PARAMETERS, REQUIRED
from pipemill.parameters.generation import Generation
from pipemill.protocol.names import KEYS_FILE_VARIABLE, KEYS_VARIABLE
from pipemill.validation import allowed, schema_of

_SECTIONS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("The file", Catalogue),
    ("`worker`", WorkerSettings),
    ("`blobs`", BlobSettings),
    ("`signing`", SigningSettings),
    ("`queues.NAME`", QueueSettings),
    ("`queues.NAME.batch`", BatchSettings),
    ("`queues.NAME.limits`", LimitSettings),
    ("`queues.NAME.retry`", RetrySettings),
    ("`queues.NAME.urls`", UrlSettings),
)
#: Said before the tasks' tables.
_HINT = "`pipemill schema TASK` prints what a task's table says as a JSON Schema.\n"
#: The title of the table that tasks refer to instead of repeating it.
_GENERATION = "Generation settings"
_SEE = f"[{_GENERATION.lower()}](#{_GENERATION.lower().replace(' ', '-')})"


def reference() -> str:
    """Every key of the catalogue, every environment variable, and every parameter of a job, as Markdown tables."""
    parts = [_fields(title, model) for title, model in _SECTIONS]
    tasks = [_parameters(task, model) for task, model in PARAMETERS.items()]
    return "\n".join([*parts, _variables(), _HINT, *tasks, _settings(_GENERATION, Generation, _properties(Generation))])


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
    rows += [
        (f"`{PASSWORD_VARIABLE}`", "the password of a broker's URL that names a user and no password"),
        (f"`{PASSWORD_FILE_VARIABLE}`", "the file of that password, read for each new connection"),
        (f"`{KEYS_VARIABLE}`", "the signing keys themselves, a line each"),
        (f"`{KEYS_FILE_VARIABLE}`", "`signing.keys_file`; for a client, the file of the key that it signs with"),
    ]
    return _table("Environment", ("variable", "stands for"), rows)


def _parameters(task: str, model: type[BaseModel]) -> str:
    title = f"Parameters of `{task}`"
    parts = [_settings(title, model, _own(model), required=REQUIRED.get(task, ())) + _shared(model, "The task takes")]
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            parts.append(_below(name, task, field.annotation))
    return "\n".join(parts)


def _below(name: str, task: str, model: type[BaseModel]) -> str:
    """What a parameter that is a mapping takes."""
    own = dict(_own(model))
    if not own:
        return f"`{name}` takes the {_SEE}.\n"
    return _settings(f"`{name}` of `{task}`", model, own.items(), level=4) + _shared(model, f"`{name}` takes")


def _shared(model: type[BaseModel], takes: str) -> str:
    return f"\n{takes} the {_SEE} too.\n" if issubclass(model, Generation) else ""


def _own(model: type[BaseModel]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """A model's properties without those of the generation settings that it takes as they are."""
    shared = dict(_properties(Generation)) if issubclass(model, Generation) else {}
    yield from ((name, part) for name, part in _properties(model) if shared.get(name) != part)


def _settings(
    title: str,
    model: type[BaseModel],
    properties: Iterable[tuple[str, Mapping[str, Any]]],
    *,
    required: Sequence[str] = (),
    level: int = 3,
) -> str:
    rows = [
        (f"`{name}`" + (" (required)" if name in required else ""), _takes(part, model), _meaning(name, model))
        for name, part in properties
    ]
    head = ("parameter", "takes", "meaning")
    return _table(title, head, rows, level=level) if rows else f"{'#' * level} {title}\n\nNone.\n"


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


def _table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]], *, level: int = 3) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        [f"{'#' * level} {title}", "", *("| " + " | ".join(map(_cell, line)) + " |" for line in lines), ""]
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
