"""The broker's URL, which may hold a password and therefore never shows it."""

from __future__ import annotations

from typing import Any, Final, final
from urllib.parse import SplitResult, urlsplit

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from pipemill.address import find_mistake, redact
from pipemill.validation import mistaken

#: Where the broker is when nobody says.
DEFAULT_BROKER: Final = "redis://localhost:6379/0"

#: What is taken, in words.
_ALLOWED: Final = "a URL such as redis://host:6379/0, rediss://host:6380/0 (TLS) or unix:///run/redis.sock"
_SCHEMES: Final = ("redis", "rediss", "unix")


@final
class BrokerUrl:
    """URL of a Redis or Valkey server; its text and representation hide the password, ``reveal()`` doesn't."""

    __slots__ = ("_url",)

    def __init__(self, url: str) -> None:
        check_broker(url)
        self._url = url

    def reveal(self) -> str:
        """The whole URL, for a connection; keep it out of logs."""
        return self._url

    def __str__(self) -> str:
        return redact(self._url)

    def __repr__(self) -> str:
        return f"BrokerUrl({redact(self._url)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BrokerUrl) and other._url == self._url

    def __hash__(self) -> int:
        return hash(self._url)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Take a string or a ``BrokerUrl``; dump the redacted text."""
        return core_schema.no_info_plain_validator_function(
            cls.validate, serialization=core_schema.to_string_ser_schema()
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Mark the value as secret, so that no message repeats it."""
        return {"type": "string", "writeOnly": True, "allowed": _ALLOWED}

    @classmethod
    def validate(cls, value: Any) -> BrokerUrl:
        """Build from anything.

        Raises
        ------
        PydanticCustomError
            When it isn't a broker's URL; a ``ValueError`` whose text says problem and mend, and nothing of the value.

        """
        if isinstance(value, BrokerUrl):
            return value
        if not isinstance(value, str):
            raise mistaken("not a string", f"give {_ALLOWED}")
        return cls(value)


def check_broker(url: str) -> None:
    """Refuse what can't be a broker's URL, in words that hold nothing of it but its scheme.

    Raises
    ------
    PydanticCustomError
        With the problem and the mend; a ``ValueError``.

    """
    parts = _split(url)
    if parts.scheme not in _SCHEMES:
        raise mistaken("not a redis://, rediss:// or unix:// URL", f"give {_ALLOWED}")
    if mistake := find_mistake(parts):
        raise mistaken(*mistake)
    if parts.scheme == "unix":
        if not parts.path.strip("/"):
            raise mistaken("a unix:// URL without the socket's path", "give it as unix:///run/redis.sock")
        return
    if not parts.hostname:
        raise mistaken("no host in the URL", f"give {_ALLOWED}")
    database = parts.path.strip("/")
    if database and not (database.isascii() and database.isdigit()):
        raise mistaken("the part after the host is not the number of a database", "end the URL in /0")
    if parts.fragment:
        raise mistaken("a # in the URL", "write # in a password as %23")


def _split(url: str) -> SplitResult:
    if any(character.isspace() or not character.isprintable() for character in url):
        raise mistaken("a space or an unprintable character in the URL", "write it as a % code, such as %20")
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises on a port that is no number, or above 65535
    except ValueError:
        raise mistaken(
            "the host or the port can't be read",
            "give host:6379, and write / @ and : in a password as %2F %40 and %3A",
        ) from None
    return parts
