"""Turns pydantic's errors into explanations: where, what is wrong, what to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic_core import ErrorDetails, PydanticCustomError, ValidationError

from pipemill.validation.schema import allowed, keys_of, step
from pipemill.validation.words import did_you_mean, shown

#: How many known keys a mend lists when none is like the unknown one.
LISTED_KEYS: Final = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """One thing that is wrong with a value."""

    #: Where, from the value's root.
    keys: tuple[str | int, ...]
    #: What is wrong, without the place.
    problem: str
    #: What to do.
    mend: str


def mistaken(problem: str, mend: str) -> PydanticCustomError:
    """Build the error that a validator raises to have its own words shown."""
    return PydanticCustomError("mistaken", "{problem}: {mend}", {"problem": problem, "mend": mend})


def several(found: Sequence[Explanation]) -> PydanticCustomError:
    """Build the error that a validator raises to report several explanations below its field."""
    return PydanticCustomError("several", "{count} mistakes", {"count": len(found), "found": tuple(found)})


def explain(error: ValidationError, schema: Mapping[str, Any]) -> list[Explanation]:
    """Explain every error; the failed alternatives of one union are told as one."""
    found = [_place(details, schema) for details in error.errors(include_url=False)]
    explanations: list[Explanation] = []
    for group in _unions(found):
        explanations.extend(_explain_group(group, schema))
    return explanations


@dataclass(frozen=True, slots=True)
class _Placed:
    details: ErrorDetails
    keys: tuple[str | int, ...]
    #: The schema at ``keys``.
    part: Mapping[str, Any]
    #: The schema around the last key.
    around: Mapping[str, Any]
    #: Where the union starts whose alternative this is; ``None`` outside of unions.
    union: tuple[str | int, ...] | None = field(default=None)

    @property
    def is_about_type(self) -> bool:
        return self.details["type"].endswith(("_type", "_parsing"))


def _place(details: ErrorDetails, schema: Mapping[str, Any]) -> _Placed:
    """Follow an error's location through the schema, leaving out pydantic's names of a union's alternatives."""
    keys: tuple[str | int, ...] = ()
    part = around = schema
    union = None
    location = details["loc"]
    for position, key in enumerate(location):
        below = step(part, key, schema)
        unknown = position == len(location) - 1 and details["type"] in {"extra_forbidden", "invalid_key"}
        if below is None and not unknown:
            union = keys if union is None and key != "[key]" else union
            continue
        keys, around, part = (*keys, key), part, below or {}
    return _Placed(details, keys, part, around, union)


def _unions(found: Sequence[_Placed]) -> list[list[_Placed]]:
    groups: dict[Any, list[_Placed]] = {}
    for number, each in enumerate(found):
        groups.setdefault(number if each.union is None else each.union, []).append(each)
    return list(groups.values())


def _explain_group(group: Sequence[_Placed], schema: Mapping[str, Any]) -> list[Explanation]:
    if len(group) == 1:
        return _explain_one(group[0], schema)
    depth = max(len(each.keys) for each in group)
    deepest = [each for each in group if len(each.keys) == depth]
    if depth > len(group[0].union or ()):
        return [explanation for each in deepest for explanation in _explain_one(each, schema)]
    telling = [each for each in deepest if not each.is_about_type]
    if telling:
        return _explain_one(telling[0], schema)
    first = deepest[0]
    return [
        Explanation(
            keys=first.keys,
            problem=f"{_value(first)} has the wrong type",
            mend=f"give {allowed(first.part, schema)}",
        )
    ]


def _explain_one(placed: _Placed, schema: Mapping[str, Any]) -> list[Explanation]:
    context = placed.details.get("ctx", {})
    if placed.details["type"] == "several":
        return [
            Explanation(keys=(*placed.keys, *each.keys), problem=each.problem, mend=each.mend)
            for each in context["found"]
        ]
    if placed.details["type"] == "mistaken":
        return [Explanation(keys=placed.keys, problem=context["problem"], mend=context["mend"])]
    say = _PROBLEMS.get(placed.details["type"])
    problem = say(_value(placed), context) if say else placed.details["msg"]
    return [Explanation(keys=placed.keys, problem=problem, mend=_mend(placed, schema))]


def _value(placed: _Placed) -> str:
    return "the value" if placed.part.get("writeOnly") else shown(placed.details["input"])


def _mend(placed: _Placed, schema: Mapping[str, Any]) -> str:
    if placed.details["type"] == "extra_forbidden":
        return unknown_key_mend(str(placed.keys[-1]), keys_of(placed.around, schema))
    if placed.details["type"] == "invalid_key":
        return "put it in quotes"
    if placed.details["type"] == "string_unicode":
        return "use valid Unicode"
    mend = f"give {allowed(placed.part, schema)}"
    value = placed.details["input"]
    if placed.details["type"] == "literal_error" and isinstance(value, str):
        close = did_you_mean(value, map(str, placed.part.get("enum", ())))
        return f"did you mean {close}? {mend.capitalize()}" if close else mend
    return mend


def unknown_key_mend(key: str, known: Sequence[str]) -> str:
    """What to do about an unknown key."""
    if not known:
        return "remove it, none is taken here"
    listed = ", ".join(known[:LISTED_KEYS])
    close = did_you_mean(key, known)
    return f"did you mean {close}?" if close else f"use one of {listed}"


_Say = Callable[[str, Mapping[str, Any]], str]


def _is_not(what: str) -> _Say:
    return lambda value, _: f"{value} is not {what}"


def _bare(value: str) -> str:
    """A number that came as text, such as an environment variable's, without its quotes."""
    return value.strip('"')


def _limit(number: float) -> str:
    return str(int(number) if number == int(number) else number)


def _size(value: str, compared: str, limit: int) -> str:
    """Tell of a size; pydantic has one error for strings and lists where a check of ours stands before it."""
    if compared == "fewer" and limit == 1:
        return "empty"
    return f"{compared} than {limit} {'characters' if value.startswith(chr(34)) else 'items'}"


#: pydantic's error types in words; what is missing here falls back to pydantic's own message.
_PROBLEMS: Final[Mapping[str, _Say]] = {
    "missing": lambda _, __: "missing",
    "extra_forbidden": lambda _, __: "unknown key",
    "invalid_key": lambda _, __: "the key is not a string",
    "int_type": _is_not("a whole number"),
    "int_parsing": _is_not("a whole number"),
    "int_parsing_size": _is_not("a whole number of a sensible size"),
    "int_from_float": _is_not("a whole number"),
    "float_type": _is_not("a finite number"),
    "float_parsing": _is_not("a number"),
    "finite_number": lambda value, _: f"{_bare(value)} is not a finite number",
    "string_type": _is_not("a string"),
    "string_unicode": _is_not("valid Unicode"),
    "bool_type": _is_not("true or false"),
    "list_type": _is_not("a list"),
    "tuple_type": _is_not("a list"),
    "dict_type": _is_not("a mapping"),
    "mapping_type": _is_not("a mapping"),
    "model_type": _is_not("a mapping"),
    "literal_error": _is_not("known here"),
    "string_pattern_mismatch": _is_not("of the right form"),
    "greater_than_equal": lambda value, context: f"{_bare(value)} is less than {_limit(context['ge'])}",
    "less_than_equal": lambda value, context: f"{_bare(value)} is more than {_limit(context['le'])}",
    "greater_than": lambda value, context: f"{_bare(value)} is not more than {_limit(context['gt'])}",
    "less_than": lambda value, context: f"{_bare(value)} is not less than {_limit(context['lt'])}",
    "string_too_short": lambda value, context: _size(value, "fewer", context["min_length"]),
    "string_too_long": lambda value, context: _size(value, "more", context["max_length"]),
    "too_short": lambda value, context: _size(value, "fewer", context["min_length"]),
    "too_long": lambda value, context: _size(value, "more", context["max_length"]),
}
