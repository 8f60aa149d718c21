"""Texts, text pairs, words and chats without media."""

from __future__ import annotations

from typing import Any, Final

from pipemill.errors import InvalidInput
from pipemill_worker.pipelines.inputs.common import check_one_or_many, check_size, check_text, kind_of, shorten

#: Words in one text that comes as a list of words: a book's chapter, to be cut into chunks.
MAX_WORDS: Final = 65_536

#: Characters of one text to be spoken: minutes of sound, made in one pass, whose memory grows with their square.
MAX_SPOKEN_CHARACTERS: Final = 4_096

_PAIR_KEYS: Final = frozenset({"text", "text_pair"})
_MESSAGE_KEYS: Final = frozenset({"role", "content"})


def check_texts(inputs: Any) -> None:
    """One text, or a list of them."""
    check_one_or_many(inputs, check_text, "texts")


def check_spoken(inputs: Any) -> None:
    """One text to be spoken, or a list of them."""
    check_one_or_many(inputs, _check_spoken, "texts")


def _check_spoken(value: Any, what: str) -> None:
    check_text(value, what)
    if len(value) > MAX_SPOKEN_CHARACTERS:
        raise InvalidInput(
            f"{what} has {len(value)} characters, at most {MAX_SPOKEN_CHARACTERS} are spoken at once: split it"
        )


def check_texts_or_pairs(inputs: Any) -> None:
    """One text or pair of texts, or a list of them."""
    check_one_or_many(inputs, _check_text_or_pair, "texts")


def _check_text_or_pair(value: Any, what: str) -> None:
    if not isinstance(value, dict):
        check_text(value, what)
        return
    keys = set(value)
    if not (keys <= _PAIR_KEYS and "text" in keys):
        found = shorten(", ".join(sorted(map(str, keys)))) or "none"
        raise InvalidInput(f"{what} must have the keys 'text' and, for a pair, 'text_pair'; it has: {found}")
    for key, text in value.items():
        check_text(text, f"'{key}' of {what}")


def check_words(inputs: Any) -> None:
    """One list of words, or a list of such lists."""
    if not isinstance(inputs, list):
        raise InvalidInput(f"with is_split_into_words the input must be a list of words, not {kind_of(inputs)}")
    if not any(isinstance(element, list) for element in inputs):
        _check_each_word(inputs, "the input")
        return
    check_size(inputs, "texts")
    for position, element in enumerate(inputs):
        if not isinstance(element, list):
            raise InvalidInput(f"element {position} of the inputs must be a list of words, not {kind_of(element)}")
        _check_each_word(element, f"element {position} of the inputs")


def _check_each_word(words: list[Any], what: str) -> None:
    check_size(words, "words", MAX_WORDS)
    for position, word in enumerate(words):
        check_text(word, f"word {position} of {what}")


def looks_like_chat(inputs: Any) -> bool:
    """Whether inputs are meant as a chat rather than as texts."""
    return isinstance(inputs, list) and bool(inputs) and not isinstance(inputs[0], str)


def check_chat(messages: list[Any], *, chats: bool) -> None:
    """A chat of texts; ``chats``: the model has a chat template."""
    if not all(isinstance(message, dict) and "role" in message for message in messages):
        raise InvalidInput(
            "the input must be a string, a list of strings, or one chat: a list of {'role', 'content'} messages;"
            " submit one job per chat"
        )
    if not chats:
        raise InvalidInput("this model has no chat template: give the prompt as one string")
    check_size(messages, "messages")
    for position, message in enumerate(messages):
        if set(message) != _MESSAGE_KEYS:
            found = shorten(", ".join(sorted(map(str, message))))
            raise InvalidInput(
                f"message {position} must have the keys 'role' and 'content', no others; it has: {found}"
            )
        check_text(message["role"], f"'role' of message {position}")
        content = message["content"]
        if content != "":  # An empty turn is a turn: templates render it, and an empty last one is a prefill.
            check_text(content, f"'content' of message {position}")
