"""What the checks of all kinds of inputs share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from pipemill.errors import InvalidInput

#: Elements in one job. More belong into more jobs, which share batches with everyone's and can be retried alone.
MAX_ELEMENTS: Final = 1024

#: Characters of one text. Where a task takes media, a job's inputs may be 32 MiB, which no model reads as one text.
MAX_CHARACTERS: Final = 4_194_304

#: Characters of a job's own content that an error message may repeat.
MAX_ECHO_CHARACTERS: Final = 80

_NAMES: Final[Mapping[str, str]] = {
    "Image": "an image",
    "Clip": "a video",
    "NoneType": "null",
    "Sound": "a sound",
    "bool": "a boolean",
    "dict": "an object",
    "float": "a number",
    "int": "a number",
    "list": "a list",
    "ndarray": "an array",
    "str": "a string",
}


def shorten(value: object, limit: int = MAX_ECHO_CHARACTERS) -> str:
    """The value as text of at most ``limit`` characters, on one line."""
    text = " ".join(str(value)[: 4 * limit].split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def kind_of(value: Any) -> str:
    """What a value is, in words, without any of its contents."""
    for base in type(value).__mro__:
        if base.__name__ in _NAMES:
            return _NAMES[base.__name__]
    return shorten(type(value).__name__)


def check_one_or_many(inputs: Any, check: Callable[[Any, str], None], noun: str) -> None:
    """Check one element, or each of a list; ``noun`` is the elements' plural."""
    if not isinstance(inputs, list):
        check(inputs, "the input")
        return
    check_size(inputs, noun)
    for position, element in enumerate(inputs):
        check(element, f"element {position} of the inputs")


def check_size(elements: list[Any], noun: str, most: int = MAX_ELEMENTS) -> None:
    """Refuse a list that is empty or too long."""
    if not elements:
        raise InvalidInput(f"the list of {noun} is empty: give at least one, or submit no job")
    if len(elements) > most:
        raise InvalidInput(f"{len(elements)} {noun} in one job, at most {most} are taken: split them over several jobs")


def check_text(value: Any, what: str) -> None:
    """Refuse what is no text, an empty one, and one that can't be encoded."""
    if not isinstance(value, str):
        raise InvalidInput(f"{what} must be a string, not {kind_of(value)}")
    if not value:
        raise InvalidInput(f"{what} is an empty string: give a text with at least one character")
    _check_characters(value, what)


def check_data(value: Any, what: str) -> None:
    """Refuse what isn't data as JSON has it: a decoded image among it, or a text that can't be encoded."""
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_characters(key, f"a key in {what}")
            check_data(inner, what)
    elif isinstance(value, list):
        for inner in value:
            check_data(inner, what)
    elif isinstance(value, str):
        _check_characters(value, f"a string in {what}")
    elif not (value is None or isinstance(value, bool | int | float)):
        raise InvalidInput(f"there is {kind_of(value)} in {what}: give texts, numbers, lists and objects only")


def _check_characters(text: str, what: str) -> None:
    if len(text) > MAX_CHARACTERS:
        raise InvalidInput(f"{what} has {len(text)} characters, at most {MAX_CHARACTERS} are taken: split it")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"{what} has half a surrogate pair at character {error.start}: send well-formed Unicode"
        ) from None


def check_keys(value: Any, what: str, required: frozenset[str], optional: frozenset[str] = frozenset()) -> None:
    """Refuse what is no object with these keys."""
    names = ", ".join(f"'{name}'" for name in sorted(required))
    if not isinstance(value, dict):
        raise InvalidInput(f"{what} must be an object with the keys {names}, not {kind_of(value)}")
    if not required <= value.keys() <= required | optional:
        more = f" and may have {', '.join(sorted(optional))}" if optional else ""
        found = shorten(", ".join(sorted(map(str, value)))) or "none"
        raise InvalidInput(f"{what} must have the keys {names}{more}; it has: {found}")
