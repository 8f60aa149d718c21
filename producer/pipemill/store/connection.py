"""Connections to Redis or Valkey, scripts that survive a restart, and errors of our own."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ClusterDownError,
    NoScriptError,
    OutOfMemoryError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from pipemill.errors import BrokerRefused, BrokerUnavailable, ConfigurationError

#: How long a command may take, in seconds; longer than any of our scripts, short enough to notice a half-open link.
SOCKET_TIMEOUT_SECONDS: Final = 10.0
#: How long a connect may take, in seconds.
CONNECT_TIMEOUT_SECONDS: Final = 5.0
#: Idle connections are checked after this many seconds before they are used again.
HEALTH_CHECK_SECONDS: Final = 25

#: A client of redis-py, blocking or asynchronous. Its own annotations can't tell bytes from str (that depends on an
#: option), so they would only get in the way; replies are typed where they are read.
Client: TypeAlias = Any

_OPTIONS: Final[dict[str, Any]] = {
    "socket_timeout": SOCKET_TIMEOUT_SECONDS,
    "socket_connect_timeout": CONNECT_TIMEOUT_SECONDS,
    "socket_keepalive": True,
    "health_check_interval": HEALTH_CHECK_SECONDS,
}


def redacted(url: str) -> str:
    """Write a broker's URL without its password."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(a URL that can't be read)"
    host = parts.netloc.rpartition("@")[2]
    user = f"{parts.username or ''}:***@" if parts.password is not None else parts.netloc.removesuffix(host)
    query = re.sub(r"(?<=password=)[^&]*", "***", parts.query)
    return parts._replace(netloc=f"{user}{host}", query=query).geturl()


#: Connections of one asynchronous client: each call on its way holds one, and redis-py would stop at 100. The broker's
#: own `maxclients` (10,000 unless set) is the bound that counts; `?max_connections=` in the URL sets another.
MOST_CALLS: Final = 10_000


def connect(url: str) -> Client:
    """Open a client that never repeats a command by itself: a lost reply would enqueue twice.

    Raises
    ------
    ConfigurationError
        When the URL isn't one of Redis.

    """
    try:
        return redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), **_options(url))
    except ValueError as error:
        raise _bad_url(url) from error


def connect_async(url: str) -> Client:
    """``connect`` for asyncio."""
    from redis.asyncio.retry import Retry as AsyncRetry  # noqa: PLC0415  # only asynchronous producers pay for it

    try:
        return redis.asyncio.Redis.from_url(
            url, retry=AsyncRetry(NoBackoff(), 0), max_connections=MOST_CALLS, **_options(url)
        )
    except ValueError as error:
        raise _bad_url(url) from error


def _options(url: str) -> dict[str, Any]:
    if not url.startswith("unix:"):
        return _OPTIONS
    return {key: value for key, value in _OPTIONS.items() if key != "socket_keepalive"}


def _bad_url(url: str) -> ConfigurationError:
    return ConfigurationError(
        f"the broker URL {redacted(url)!r} isn't one of Redis: use redis://, rediss:// or unix://"
    )


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Turn redis-py's errors into ours; the one boundary where that is done."""
    try:
        yield
    except RedisError as error:
        raise translate(error, url) from error


def is_out_of_memory(error: RedisError) -> bool:
    """Whether the server refused a command for want of memory, whatever its version says before and after that."""
    return isinstance(error, OutOfMemoryError) or "OOM command not allowed" in str(error)


def translate(error: RedisError, url: str) -> BrokerUnavailable | BrokerRefused:
    """Map any error of redis-py to one of ours."""
    denied = isinstance(error, AuthenticationError | AuthorizationError)
    unavailable = isinstance(error, RedisConnectionError | RedisTimeoutError) and not denied
    busy = isinstance(error, ResponseError) and str(error).startswith("BUSY ")
    if unavailable or busy or isinstance(error, ClusterDownError | TryAgainError):
        text = f"no answer from the broker at {redacted(url)} ({error}): is it up? `pipemill broker` starts one"
        return BrokerUnavailable(text)
    return BrokerRefused(f"the broker at {redacted(url)} refused a command: {error}")


#: How a script's first line names the one whose functions it uses.
_WITH: Final = b"-- with "


def _source(name: str) -> bytes:
    """A script's text, with what it uses before it."""
    text = files("pipemill.store").joinpath("scripts", f"{name}.lua").read_bytes()
    first, _, _ = text.partition(b"\n")
    return _source(first.removeprefix(_WITH).decode()) + text if first.startswith(_WITH) else text


class Script:
    """A Lua script of this package; it is loaded again when the server has forgotten it."""

    def __init__(self, name: str):
        self.source = _source(name)
        self.digest = hashlib.sha1(self.source, usedforsecurity=False).hexdigest()

    def run(self, client: Client, keys: Sequence[Any], arguments: Sequence[Any]) -> Any:
        """Run it atomically on the server."""
        try:
            return client.execute_command("EVALSHA", self.digest, len(keys), *keys, *arguments)
        except NoScriptError:
            return client.execute_command("EVAL", self.source, len(keys), *keys, *arguments)

    def add_to(self, pipe: Client, keys: Sequence[Any], arguments: Sequence[Any]) -> None:
        """Let a pipeline run it, if the server knows it."""
        pipe.execute_command("EVALSHA", self.digest, len(keys), *keys, *arguments)

    async def run_async(self, client: Client, keys: Sequence[Any], arguments: Sequence[Any]) -> Any:
        """``run`` for asyncio."""
        try:
            return await client.execute_command("EVALSHA", self.digest, len(keys), *keys, *arguments)
        except NoScriptError:
            return await client.execute_command("EVAL", self.source, len(keys), *keys, *arguments)


@cache
def script(name: str) -> Script:
    """Read a script once per process."""
    return Script(name)
