"""The forms of media in JSON: their keys, and how to tell them from data. Pure.

::

    {"$image": CONTENT}
    {"$audio": CONTENT}    {"$audio": ARRAY, "sampling_rate": 16000}
    {"$video": CONTENT}    {"$video": ARRAY}
    {"$array": BYTES, "dtype": "float32", "shape": [2, 3]}

    CONTENT := BYTES | {"url": "https://..."}
    BYTES   := "<base64>" | {"ref": "<kind>:<name>"}
    ARRAY   := {"$array": ...}
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any, Final

IMAGE: Final = "$image"
AUDIO: Final = "$audio"
VIDEO: Final = "$video"
ARRAY: Final = "$array"
#: The keys of which every form has exactly one.
MARKS: Final = (ARRAY, IMAGE, AUDIO, VIDEO)

DTYPE: Final = "dtype"
SHAPE: Final = "shape"
#: Samples a second, of a sound that is an array.
SAMPLING_RATE: Final = "sampling_rate"
REFERENCE: Final = "ref"
URL: Final = "url"

#: By mark, the sets of keys that a form may have.
_KEYS: Final[Mapping[str, tuple[frozenset[str], ...]]] = {
    ARRAY: (frozenset({ARRAY, DTYPE, SHAPE}),),
    IMAGE: (frozenset({IMAGE}),),
    AUDIO: (frozenset({AUDIO}), frozenset({AUDIO, SAMPLING_RATE})),
    VIDEO: (frozenset({VIDEO}),),
}
#: Keys of the largest form: a dict with more is told from all of them at once.
_MOST_KEYS: Final = 3


def claimed(value: Mapping[str, Any]) -> str | None:
    """The mark that a dict bears, whatever else it has; None for plain data."""
    return next((mark for mark in MARKS if mark in value), None)


def mark_of(value: Mapping[str, Any]) -> str | None:
    """The mark of a dict whose keys are exactly those of a form."""
    if len(value) > _MOST_KEYS or (mark := claimed(value)) is None:
        return None
    return mark if any(value.keys() == keys for keys in _KEYS[mark]) else None


def reference_of(content: Any) -> str | None:
    """The reference that a content is, if it is one."""
    return _only(content, REFERENCE)


def url_of(content: Any) -> str | None:
    """The URL that a content is, if it is one."""
    return _only(content, URL)


def _only(content: Any, key: str) -> str | None:
    if isinstance(content, dict) and len(content) == 1 and isinstance(found := content.get(key), str):
        return found
    return None


def to_base64(data: bytes) -> str:
    """Write bytes as JSON carries them."""
    return b64encode(data).decode("ascii")


def from_base64(text: str) -> bytes | None:
    """Read base64 (the standard alphabet, padded); None when it is something else."""
    try:
        return b64decode(text, validate=True)
    except ValueError:
        return None


def array_form(content: Any, dtype: str, shape: tuple[int, ...]) -> dict[str, Any]:
    """Write an array whose content is written."""
    return {ARRAY: content, DTYPE: dtype, SHAPE: list(shape)}
