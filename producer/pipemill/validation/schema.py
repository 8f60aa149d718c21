"""What a pydantic model's JSON schema allows at a place, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, Final

from pydantic import BaseModel

from pipemill.validation.words import shown

#: The key under which a field of ours says in words what it takes, where its JSON schema can't.
ALLOWED: Final = "allowed"


@cache
def schema_of(model: type[BaseModel]) -> Mapping[str, Any]:
    """The JSON schema of a model; computed once."""
    return model.model_json_schema()


def branches(part: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The alternatives of a part, references followed, nested unions flattened."""
    if "$ref" in part:
        yield from branches(root["$defs"][part["$ref"].rsplit("/", 1)[-1]], root)
    elif "anyOf" in part:
        for branch in part["anyOf"]:
            yield from branches(branch, root)
    else:
        yield part


def step(part: Mapping[str, Any], key: str | int, root: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The part under a key or index; ``None`` when no alternative has it."""
    for branch in branches(part, root):
        if isinstance(key, int):
            found = branch.get("items")
        else:
            found = branch.get("properties", {}).get(key)
            found = found if found is not None else branch.get("additionalProperties")
            found = found or next(iter(branch.get("patternProperties", {}).values()), None)
        if isinstance(found, Mapping):
            return found
    return None


def keys_of(part: Mapping[str, Any], root: Mapping[str, Any]) -> list[str]:
    """The keys that a mapping may have at this part."""
    return [key for branch in branches(part, root) for key in branch.get("properties", {})]


def allowed(part: Mapping[str, Any], root: Mapping[str, Any]) -> str:
    """Say what a part takes, such as ``a whole number from 1 to 4096 or null``."""
    if ALLOWED in part:
        return str(part[ALLOWED])
    texts = [_allowed_branch(branch, root) for branch in branches(part, root)]
    return " or ".join(dict.fromkeys(texts))


def _allowed_branch(branch: Mapping[str, Any], root: Mapping[str, Any]) -> str:
    if ALLOWED in branch:
        return str(branch[ALLOWED])
    if "enum" in branch:
        return "one of " + ", ".join(map(str, branch["enum"]))
    if "const" in branch:
        return shown(branch["const"])
    kind = branch.get("type", "any value")
    say = _KINDS.get(kind)
    return say(branch, root) if say else str(kind)


def _array(branch: Mapping[str, Any], root: Mapping[str, Any]) -> str:
    return f"a list{_size(branch, 'minItems', 'maxItems', 'items')}, each {allowed(branch.get('items', {}), root)}"


def _object(branch: Mapping[str, Any], root: Mapping[str, Any]) -> str:
    keys = keys_of(branch, root)
    return "a mapping" + (f" with the keys {', '.join(keys)}" if keys else "")


def _range(branch: Mapping[str, Any]) -> str:
    low, above = branch.get("minimum"), branch.get("exclusiveMinimum")
    high, below = branch.get("maximum"), branch.get("exclusiveMaximum")
    if low is not None and high is not None:
        return f" from {low} to {high}"
    limits = [
        f"{words} {limit}"
        for words, limit in (("of at least", low), ("above", above), ("at most", high), ("below", below))
        if limit is not None
    ]
    return (" " + " and ".join(limits)) if limits else ""


def _size(branch: Mapping[str, Any], least: str, most: str, unit: str) -> str:
    low, high = branch.get(least), branch.get(most)
    if low and high:
        return f" of {low} to {high} {unit}"
    if high:
        return f" of at most {high} {unit}"
    return f" of at least {low} {unit}" if low else ""


#: JSON schema's types in words.
_KINDS: Final[Mapping[str, Callable[[Mapping[str, Any], Mapping[str, Any]], str]]] = {
    "integer": lambda branch, _: "a whole number" + _range(branch),
    "number": lambda branch, _: "a number" + _range(branch),
    "string": lambda branch, _: "a string" + _size(branch, "minLength", "maxLength", "characters"),
    "boolean": lambda _, __: "true or false",
    "array": _array,
    "object": _object,
}
