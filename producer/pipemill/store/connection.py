"""Connections to Redis or Valkey, scripts that survive a restart, and errors of our own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Final, TypeAlias

import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ClusterDownError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from pipemill.address import Address, address_of
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

#: Connections of one asynchronous client: each call on its way holds one, and redis-py would stop at 100. The broker's
#: own `maxclients` (10,000 unless set) is the bound that counts; `?max_connections=` in the URL sets another.
MOST_CALLS: Final = 10_000

#: What TLS says when the two ends don't trust or don't understand each other, and what to do; the first that fits.
_TLS_TROUBLE: Final[dict[str, str]] = {
    "mismatch, certificate": "its certificate is for another host: write the name that it is for into the URL",
    "CERTIFICATE_VERIFY_FAILED": "its certificate can't be trusted: name the file of the CA that signed it with "
    "ssl_ca_certs=/path/ca.pem in the URL, and see that it hasn't expired",
    "_ALERT_": "it doesn't accept this client: give the certificate and key that its CA signed with ssl_certfile=… and "
    "ssl_keyfile=… in the URL",
    "[SSL": "its port doesn't speak TLS as asked: write redis:// for a port without TLS",
}


#: What the server says of itself or of a key, and what to do; the first that fits.
_TROUBLE: Final[dict[str, str]] = {
    "READONLY": "it is a replica: connect to its primary",
    "OOM": "it is out of memory: raise its maxmemory, or let workers drain its queues",
    "MISCONF": "it can't save to its disk: make room there, or see to its log",
    "WRONGTYPE": "a key of this name is another application's: give pipemill a database or a server of its own",
}

#: How Valkey and Redis say that a user may not do what a script does; it isn't an error of its own kind.
_REFUSED_IN_SCRIPT: Final = ("ACL failure in script", "The user executing the script can't")


class Credentials(CredentialProvider):
    """Gives each new connection the user and password as they are then."""

    def __init__(self, address: Address):
        self._address = address

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """Read them.

        Raises
        ------
        AuthenticationError
            When the password's file can't be read; workers wait for it as for their broker.

        """
        try:
            return self._address.credentials() or ("",)
        except ConfigurationError as error:
            raise AuthenticationError(str(error)) from error

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        """``get_credentials`` for asyncio; the file is small."""
        return self.get_credentials()


def connect(url: str | Address) -> Client:
    """Open a client that never repeats a command by itself: a lost reply would enqueue twice.

    Raises
    ------
    ConfigurationError
        When the URL isn't one of Redis, or its password's file can't be read.

    """
    address = address_of(url)
    options = _options(address)
    try:
        return redis.Redis.from_url(address.url, retry=Retry(NoBackoff(), 0), **options)
    except ValueError as error:
        raise _bad_url(address) from error


def connect_async(url: str | Address) -> Client:
    """``connect`` for asyncio."""
    from redis.asyncio.retry import Retry as AsyncRetry  # noqa: PLC0415  # only asynchronous producers pay for it

    address = address_of(url)
    options = _options(address)
    try:
        return redis.asyncio.Redis.from_url(
            address.url, retry=AsyncRetry(NoBackoff(), 0), max_connections=MOST_CALLS, **options
        )
    except ValueError as error:
        raise _bad_url(address) from error


def _options(address: Address) -> dict[str, Any]:
    address.check_files()
    options = {**_OPTIONS, **address.tls}
    if address.url.startswith("unix:"):
        del options["socket_keepalive"]
    if address.credentials() is not None:
        options["credential_provider"] = Credentials(address)
    return options


def _bad_url(address: Address) -> ConfigurationError:
    return ConfigurationError(
        f"the broker URL {address.shown!r} isn't one of Redis: use redis://, rediss:// or unix://"
    )


def translated(url: str | Address) -> Translated:
    """Turn redis-py's errors into ours; the one boundary where that is done."""
    return Translated(url)


class Translated:
    """What ``translated`` gives to ``with``: a class, since a generator takes thrice as long, in every call."""

    __slots__ = ("_url",)

    def __init__(self, url: str | Address):
        self._url = url

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """Raise ours in place of redis-py's."""
        if isinstance(error, RedisError):
            raise translate(error, self._url) from error


def is_out_of_memory(error: RedisError) -> bool:
    """Whether the server refused a command for want of memory, whatever its version says before and after that."""
    return isinstance(error, OutOfMemoryError) or "OOM command not allowed" in str(error)


def is_refused(error: RedisError) -> bool:
    """Whether the server refused a command because this user may not use it there, in a script or outside."""
    return isinstance(error, NoPermissionError) or any(refusal in str(error) for refusal in _REFUSED_IN_SCRIPT)


def translate(error: RedisError, url: str | Address) -> BrokerUnavailable | BrokerRefused:
    """Map any error of redis-py to one of ours."""
    address = address_of(url, {})
    shown = address.shown
    denied = isinstance(error, AuthenticationError | AuthorizationError)
    unavailable = isinstance(error, RedisConnectionError | RedisTimeoutError) and not denied
    text = str(error)
    if unavailable and (mend := next((mend for trouble, mend in _TLS_TROUBLE.items() if trouble in text), None)):
        return BrokerRefused(f"no TLS with the broker at {shown} ({text}): {mend}")
    busy = isinstance(error, ResponseError) and text.startswith("BUSY ")
    if unavailable or busy or isinstance(error, ClusterDownError | TryAgainError):
        mend = "is it up, and does that port speak TLS?" if address.tls else "is it up? `pipemill broker` starts one"
        return BrokerUnavailable(f"no answer from the broker at {shown} ({text}): {mend}")
    if denied:
        return BrokerRefused(f"the broker at {shown} doesn't let this client in ({text}): see to its user and password")
    if is_refused(error):
        return BrokerRefused(
            f"the broker at {shown} refused a command ({text}): `pipemill acl` writes the rules that its user needs"
        )
    mends = (mend for trouble, mend in _TROUBLE.items() if trouble in text)
    mend = next(mends, "`pipemill doctor` looks for the cause")
    return BrokerRefused(f"the broker at {shown} refused a command ({text}): {mend}")


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


class Line:
    """A connection kept for one script that one thread runs often: redis-py's pool costs more than such a call."""

    def __init__(self, client: Client, name: str):
        self._pool = client.connection_pool
        self._script = script(name)
        self._connection: Any = None

    def run(self, keys: Sequence[Any], arguments: Sequence[Any]) -> Any:
        """Run the script atomically on the server."""
        if self._connection is None:
            self._connection = self._pool.get_connection()
        try:
            try:
                return self._ask("EVALSHA", self._script.digest, len(keys), *keys, *arguments)
            except NoScriptError:
                return self._ask("EVAL", self._script.source, len(keys), *keys, *arguments)
        except ResponseError:
            raise
        except BaseException:
            self.close()  # what is still to be read there belongs to nobody
            raise

    def _ask(self, *command: Any) -> Any:
        self._connection.send_command(*command)
        return self._connection.read_response()

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()
            self._pool.release(connection)


@cache
def script(name: str) -> Script:
    """Read a script once per process."""
    return Script(name)
