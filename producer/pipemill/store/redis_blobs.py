"""The ``BlobStore`` on Redis ≥ 6.2 or Valkey."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pipemill.address import Address, address_of
from pipemill.errors import PayloadTooLarge
from pipemill.protocol import names
from pipemill.store.blobs import check_size, name_in, new_name
from pipemill.store.connection import Client, connect, translated

#: The largest value a server takes unless told otherwise (``proto-max-bulk-len``), in bytes.
LARGEST_VALUE: Final = 512 * 1024 * 1024


class RedisBlobs:
    """Bytes under keys of their own, which expire. Connects when first used."""

    kind: Final = "redis"

    def __init__(self, url: str | Address, *, client: Client | None = None):
        self.url = address_of(url)
        self._client = client if client is not None else connect(self.url)

    def put(self, data: bytes, ttl_seconds: int) -> str:
        """Keep bytes for so many seconds; returns their reference.

        Raises
        ------
        PayloadTooLarge
            When they are more than the server takes.

        """
        if len(data) > LARGEST_VALUE:
            text = f"{len(data)} bytes don't fit into the broker, which takes {LARGEST_VALUE}: set blobs.location"
            raise PayloadTooLarge(text)
        name = new_name()
        with translated(self.url):
            self._client.set(names.blob_key(name), data, ex=max(ttl_seconds, 1))
        return f"{self.kind}:{name}"

    def get(self, reference: str, max_bytes: int | None = None) -> bytes | None:
        """Read what a reference stands for; None when it is gone."""
        key = names.blob_key(name_in(reference, self.kind))
        with translated(self.url):
            if max_bytes is not None:
                check_size(self._client.strlen(key), max_bytes)
            found: bytes | None = self._client.get(key)
        return found

    def delete(self, references: Sequence[str]) -> None:
        """Forget them; the server frees the memory in its own time."""
        keys = [names.blob_key(name_in(reference, self.kind)) for reference in references]
        if keys:
            with translated(self.url):
                self._client.unlink(*keys)

    def close(self) -> None:
        """Close connections."""
        self._client.close()
