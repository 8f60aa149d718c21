"""Small pieces of the sentences that mistakes are told in."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from typing import Any, Final

from pipemill.address import redact

#: Characters of a value that a message may repeat: enough to find it, too few to flood a log.
SHOWN_CHARACTERS: Final = 60
#: Bits of a whole number that a message may repeat: 39 digits. Python refuses to write one of over 4,300.
SHOWN_BITS: Final = 128
#: How alike, from 0 to 1, a word must be to be offered instead of an unknown one.
LIKENESS: Final = 0.6

_BARE_KEY: Final = re.compile(rf"[A-Za-z0-9_-]{{1,{SHOWN_CHARACTERS}}}")


def cut(text: str, characters: int = SHOWN_CHARACTERS) -> str:
    """Shorten a text to so many characters, and make it printable."""
    text = text if len(text) <= characters else f"{text[: characters - 1]}…"
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def shown(value: Any) -> str:
    """Write a value as a message may show it: short, as JSON, passwords hidden, containers only named."""
    if isinstance(value, str):
        return cut(json.dumps(redact(value), ensure_ascii=False))
    if isinstance(value, bool | None):
        return json.dumps(value)
    if isinstance(value, int | float):
        return _shown_number(value)
    names = {"dict": "a mapping", "list": "a list"}
    return names.get(type(value).__name__, f"a value of type {type(value).__name__}")


def _shown_number(value: float) -> str:
    too_long = isinstance(value, int) and value.bit_length() > SHOWN_BITS
    return "a number of very many digits" if too_long else repr(value)


def render_path(keys: Iterable[str | int]) -> str:
    """Write a path as ``queues.sentiment.batch`` or ``stop_sequence[2]``; keys with odd characters in quotes."""
    text = ""
    for key in keys:
        if isinstance(key, int):
            text += f"[{key}]"
        else:
            text += ("." if text else "") + (key if _BARE_KEY.fullmatch(key) else shown(key))
    return text


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """The known word most like an unknown one, if any is alike enough."""
    by_plain = {each.lower().replace("-", "_"): each for each in known}
    close = difflib.get_close_matches(word.lower().replace("-", "_"), by_plain, n=1, cutoff=LIKENESS)
    return by_plain[close[0]] if close else None
