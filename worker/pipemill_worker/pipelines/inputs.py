"""What a job's inputs may be, checked before a pipeline sees them.

A pipeline takes more than a job may give: paths, URLs, datasets, generators, nested lists for old callers. Here only
texts, text pairs and chats pass, and lists of them up to a cap.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from pipemill.errors import InvalidInput

#: Texts in one job. More of them belong into more jobs, which share batches with everyone's and can be retried alone.
MAX_ELEMENTS: Final = 1024

#: Words in one text that comes as a list of words: a book's chapter, to be cut into chunks.
MAX_WORDS: Final = 65_536

#: Characters of a job's own content that an error message may repeat.
MAX_ECHO_CHARACTERS: Final = 80

_PAIR_KEYS: Final = frozenset({"text", "text_pair"})
_MESSAGE_KEYS: Final = frozenset({"role", "content"})


def shorten(value: object, limit: int = MAX_ECHO_CHARACTERS) -> str:
    """The value as text of at most ``limit`` characters, on one line."""
    text = " ".join(str(value)[: 4 * limit].split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def check_inputs(task: str, inputs: Any, *, words: bool = False, chats: bool = False) -> None:
    """Refuse what the task's pipeline must not be given.

    ``words``: texts come as lists of words (token-classification with ``is_split_into_words``). ``chats``: the model
    has a chat template.

    Raises
    ------
    InvalidInput
        Says what was given and what is taken.

    """
    if task == "text-classification":
        _check_one_or_many(inputs, _check_text_or_pair)
    elif task == "token-classification" and words:
        _check_words(inputs)
    elif task == "text-generation" and _looks_like_chat(inputs):
        _check_chat(inputs, chats=chats)
    else:
        _check_one_or_many(inputs, _check_text)


def _check_one_or_many(inputs: Any, check: Callable[[Any, str], None]) -> None:
    if not isinstance(inputs, list):
        check(inputs, "the input")
        return
    _check_size(inputs, "texts")
    for position, element in enumerate(inputs):
        check(element, f"element {position} of the inputs")


def _check_size(elements: list[Any], noun: str, most: int = MAX_ELEMENTS) -> None:
    if not elements:
        raise InvalidInput(f"the list of {noun} is empty: give at least one, or submit no job")
    if len(elements) > most:
        raise InvalidInput(f"{len(elements)} {noun} in one job, at most {most} are taken: split them over several jobs")


def _check_text(value: Any, what: str) -> None:
    if not isinstance(value, str):
        raise InvalidInput(f"{what} must be a string, not {_kind(value)}")
    if not value:
        raise InvalidInput(f"{what} is an empty string: give a text with at least one character")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"{what} has half a surrogate pair at character {error.start}: send well-formed Unicode"
        ) from None


def _check_text_or_pair(value: Any, what: str) -> None:
    if not isinstance(value, dict):
        _check_text(value, what)
        return
    keys = set(value)
    if not (keys <= _PAIR_KEYS and "text" in keys):
        found = shorten(", ".join(sorted(map(str, keys)))) or "none"
        raise InvalidInput(f"{what} must have the keys 'text' and, for a pair, 'text_pair'; it has: {found}")
    for key, text in value.items():
        _check_text(text, f"'{key}' of {what}")


def _check_words(inputs: Any) -> None:
    if not isinstance(inputs, list):
        raise InvalidInput(f"with is_split_into_words the input must be a list of words, not {_kind(inputs)}")
    if not any(isinstance(element, list) for element in inputs):
        _check_each_word(inputs, "the input")
        return
    _check_size(inputs, "texts")
    for position, element in enumerate(inputs):
        if not isinstance(element, list):
            raise InvalidInput(f"element {position} of the inputs must be a list of words, not {_kind(element)}")
        _check_each_word(element, f"element {position} of the inputs")


def _check_each_word(words: list[Any], what: str) -> None:
    _check_size(words, "words", MAX_WORDS)
    for position, word in enumerate(words):
        _check_text(word, f"word {position} of {what}")


def _looks_like_chat(inputs: Any) -> bool:
    return isinstance(inputs, list) and bool(inputs) and not isinstance(inputs[0], str)


def _check_chat(messages: list[Any], *, chats: bool) -> None:
    if not all(isinstance(message, dict) and "role" in message for message in messages):
        raise InvalidInput(
            "the input must be a string, a list of strings, or one chat: a list of {'role', 'content'} messages;"
            " submit one job per chat"
        )
    if not chats:
        raise InvalidInput("this model has no chat template: give the prompt as one string")
    _check_size(messages, "messages")
    for position, message in enumerate(messages):
        if set(message) != _MESSAGE_KEYS:
            found = shorten(", ".join(sorted(map(str, message))))
            raise InvalidInput(
                f"message {position} must have the keys 'role' and 'content', no others; it has: {found}"
            )
        _check_text(message["role"], f"'role' of message {position}")
        content = message["content"]
        if content != "":  # An empty turn is a turn: templates render it, and an empty last one is a prefill.
            _check_text(content, f"'content' of message {position}")


def _kind(value: Any) -> str:
    names = {
        dict: "an object",
        list: "a list",
        type(None): "null",
        bool: "a boolean",
        int: "a number",
        float: "a number",
    }
    return names.get(type(value), shorten(type(value).__name__))
