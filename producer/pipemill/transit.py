"""How both clients carry media: where large contents go on the way in, and where they are read from on the way out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from pipemill.codec import decode, encoder
from pipemill.errors import BlobMissing, ConfigurationError
from pipemill.known import KnownQueues
from pipemill.protocol import Result, encode_arguments

if TYPE_CHECKING:
    from pipemill.store.base import BlobStore
    from pipemill.store.files import FileBlobs

#: Bytes from which a content goes to the place of large media, where no catalogue says it.
MIN_BYTES: Final = 262_144
#: Days for which that place keeps a content, where no catalogue says it.
RETENTION_DAYS: Final = 7
_SECONDS_A_DAY: Final = 86_400
#: What a reference to that place starts with.
_FILES: Final = "files:"
#: Writes all contents into the JSON.
_PLAIN: Final = encoder()


class HasBlobs(Protocol):
    """The part of a store that is needed here."""

    @property
    def blobs(self) -> BlobStore:
        """Where bytes lie in the broker."""
        ...


class Laden(Exception):
    """Raised by ``refuse_media``: there is something to write that takes longer than JSON does."""


def refuse_media(_value: Any) -> Any:
    """Stand in for the hook where nothing may take long."""
    raise Laden


def encode_plain(inputs: Any, parameters: dict[str, Any], _eta: float | None = None) -> bytes:
    """``Transit.encode`` where nothing may take long."""
    return encode_arguments(inputs, parameters, refuse_media)


class Transit:
    """What one client does about media. Thread-safe.

    Where large contents lie is told by the client's arguments alone, never by the broker: whoever can write to the
    broker could else have files read.
    """

    def __init__(self, known: KnownQueues, location: str | None, *, decodes: bool):
        self._known, self._location, self._decodes = known, location, decodes

    def hook(self, eta: float | None = None) -> Callable[[Any], Any]:
        """Return what writes the media of a job that starts at ``eta`` (seconds since the epoch), or at once.

        Contents that are large enough go to the place of large media, if there is one, and outlive that wait.
        """
        return partial(self._write, eta)

    def encode(self, inputs: Any, parameters: dict[str, Any], eta: float | None = None) -> bytes:
        """``protocol.encode_arguments``, media included."""
        return encode_arguments(inputs, parameters, self.hook(eta))

    def _write(self, eta: float | None, value: Any) -> Any:
        files, min_bytes = self._files
        if files is None:
            return _PLAIN(value)
        wait = 0 if eta is None else max(math.ceil(eta - time.time()), 0)
        ttl_seconds = files.retention_days * _SECONDS_A_DAY + wait
        return encoder(lambda data: files.put(data, ttl_seconds), min_bytes - 1)(value)

    @cached_property
    def _files(self) -> tuple[FileBlobs | None, int]:
        """The place of large media, and the bytes from which contents go there."""
        settings = self._known.blob_settings() if self._location is None else None
        location = settings.location if settings else self._location
        if location is None:
            return None, 0
        from pipemill.store.files import FileBlobs  # noqa: PLC0415  # few clients need it

        if settings is None:
            return FileBlobs(location, retention_days=RETENTION_DAYS), MIN_BYTES
        return FileBlobs(location, retention_days=settings.retention_days), settings.min_bytes

    def decodes(self, result: Result) -> bool:
        """Whether there is anything to do for a result."""
        return self._decodes and result.has_media

    def decode(self, result: Result, near: HasBlobs) -> Result:
        """Put objects in the place of an answer's media; contents are read from ``near`` or the place of large media.

        Raises
        ------
        BlobMissing
            When a content is gone.
        MediaUnreadable
            When a content is broken.
        ConfigurationError
            When the place of large media isn't known, or a library is missing.

        """
        if not self.decodes(result):
            return result
        return replace(result, value=decode(result.value, lambda reference: self._fetch(reference, near)))

    def _fetch(self, reference: str, near: HasBlobs) -> bytes:
        store: BlobStore | None = self._files[0] if reference.startswith(_FILES) else near.blobs
        if store is None:
            raise ConfigurationError(
                "the answer's media lie outside the broker, and this client isn't told where: give it the workers' "
                'catalogue, or the same place with blobs="s3://..."'
            )
        data = store.get(reference)
        if data is None:
            raise BlobMissing(
                f"media of the answer are gone ({reference[:80]!r}), since their retention has passed: "
                "submit the job again, and read its answer sooner"
            )
        return data
