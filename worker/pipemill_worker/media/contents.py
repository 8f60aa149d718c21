"""The bytes of a media form: out of the message itself, out of a store, or from a URL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipemill.codec.envelopes import from_base64, reference_of, url_of
from pipemill.errors import InvalidInput, PayloadMissing, PayloadTooLarge

#: Reads what a reference stands for, up to so many bytes, as ``BlobStore.get`` does: None when it is gone.
References = Callable[[str, int], bytes | None]
#: Fetches a URL, up to so many bytes.
Fetch = Callable[[str, int], bytes]

#: Base64 writes three bytes as four characters.
_BYTES, _CHARACTERS = 3, 4


def read_content(content: Any, max_bytes: int, references: References | None, urls: Fetch | None) -> bytes:
    """The bytes that a content stands for, at most ``max_bytes``.

    Raises
    ------
    InvalidInput
        When it is none, or has too many bytes.
    PayloadMissing
        When its reference's bytes are gone.

    """
    if isinstance(content, str):
        data = _decode(content, max_bytes)
    elif (reference := reference_of(content)) is not None:
        data = _look_up(reference, max_bytes, references)
    elif (url := url_of(content)) is not None:
        if urls is None:
            raise InvalidInput("this queue fetches no URLs: send the bytes, or list the host in the catalogue's urls")
        data = urls(url, max_bytes)
    else:
        raise InvalidInput('its content must be base64, {"ref": "kind:name"} or {"url": "https://..."}')
    if len(data) > max_bytes:
        raise _too_many(max_bytes)
    if not data:
        raise InvalidInput("it is empty: send the file's bytes")
    return data


def _decode(text: str, max_bytes: int) -> bytes:
    if len(text) * _BYTES // _CHARACTERS > max_bytes + _BYTES:
        raise _too_many(max_bytes)
    data = from_base64(text)
    if data is None:
        raise InvalidInput("its content isn't base64 (standard alphabet, padded): encode the file's bytes")
    return data


def _look_up(reference: str, max_bytes: int, references: References | None) -> bytes:
    if references is None:
        raise InvalidInput("this worker reads no references: send the bytes themselves")
    try:
        data = references(reference, max_bytes)
    except PayloadTooLarge:
        raise _too_many(max_bytes) from None
    except ValueError:
        raise InvalidInput("its reference is none of this queue's: use the client that submits to it") from None
    if data is None:
        raise PayloadMissing("its bytes were sent by reference and are gone: submit the job again")
    return data


def _too_many(max_bytes: int) -> InvalidInput:
    return InvalidInput(f"it has more than {max_bytes} bytes: send a smaller one, or raise limits.max_media_bytes")
