"""Media by URL: from the hosts an operator names, on the public internet, within bounds of bytes and time.

A name is resolved once for each request, all its addresses are checked, and the connection goes to one of these: what
the name stands for a moment later doesn't matter. Redirects are followed by hand, each checked from the start.
"""

from __future__ import annotations

import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, TypeVar
from urllib.parse import urljoin, urlsplit

import httpcore

from pipemill.errors import InvalidInput, SourceUnavailable
from pipemill_worker.media.addresses import is_public

#: Characters of a URL at most.
MAX_URL_CHARACTERS: Final = 4_096
#: Redirects of one fetch.
MAX_REDIRECTS: Final = 5

T = TypeVar("T")

_PORTS: Final = {"http": 80, "https": 443}
#: A host's name; its last label isn't empty.
_NAME: Final = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_OK: Final = 200
#: Answers that say: not now. Above 500 as well.
_NOT_NOW: Final = frozenset({408, 425, 429})
_SERVERS_FAULT: Final = 500
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_HEADERS: Final = ((b"Accept", b"*/*"), (b"Accept-Encoding", b"identity"), (b"User-Agent", b"pipemill"))

#: The addresses of a host, for a port.
Resolve = Callable[[str, int], Sequence[str]]
#: Opens a connection to an address and port, within so many seconds.
Dial = Callable[[str, int, float], httpcore.NetworkStream]


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host, as the system knows them."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def dial(address: str, port: int, seconds: float) -> httpcore.NetworkStream:
    """A TCP connection."""
    return httpcore.SyncBackend().connect_tcp(address, port, seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """How the outside is reached."""

    resolve: Resolve = resolve
    #: Whether an address may be connected to.
    allows: Callable[[str], bool] = is_public
    dial: Dial = dial


#: The internet, and nothing nearer.
PUBLIC_INTERNET: Final = Network()


@dataclass(frozen=True, slots=True)
class _Target:
    """A URL, checked."""

    scheme: str
    host: str
    port: int
    #: Path and query.
    path: str


class UrlFetcher:
    """Fetches what a URL names. Thread-safe; keeps nothing between fetches."""

    def __init__(
        self, hosts: Iterable[str], max_bytes: int, timeout_seconds: float, *, network: Network = PUBLIC_INTERNET
    ):
        """``hosts`` are names; ``*.example.org`` stands for every host below it. The time is for all of a fetch."""
        self._hosts = tuple(hosts)
        self._max_bytes = max_bytes
        self._seconds = timeout_seconds
        self._network = network

    def __call__(self, url: str, max_bytes: int) -> bytes:
        """Return what the URL names, at most ``max_bytes`` and what the queue's settings allow.

        Raises
        ------
        InvalidInput
            When the URL, a redirect or the answer is refused; names the host and nothing else of the URL.
        SourceUnavailable
            When the host can't be reached, is too slow, or says that it can't answer for now; likewise.

        """
        deadline = _Deadline(self._seconds)
        most = min(max_bytes, self._max_bytes)
        for _ in range(MAX_REDIRECTS + 1):
            target = self._check(url)
            answer = self._get(target, most, deadline)
            if isinstance(answer, bytes):
                return answer
            url = _redirected(url, answer, target)
        raise InvalidInput(f"its URL redirects more than {MAX_REDIRECTS} times: give the last address")

    def _check(self, url: str) -> _Target:
        if len(url) > MAX_URL_CHARACTERS or not url.isascii() or not url.isprintable() or {" ", "\\"} & set(url):
            raise InvalidInput(
                f"its URL must be at most {MAX_URL_CHARACTERS} characters of ASCII without blanks: percent-encode it"
            )
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            raise InvalidInput("its URL is malformed: give one such as https://example.org/image.png") from None
        if parts.scheme not in _PORTS:
            raise InvalidInput("its URL must begin with https:// or http://, others aren't fetched")
        if "@" in parts.netloc:
            raise InvalidInput("its URL carries credentials: leave them out, they would be kept with the job")
        if port is not None and port not in _PORTS.values():
            raise InvalidInput("its URL names a port: only 80 and 443 are fetched from")
        # A pattern would else match what resolvers read as an address: [::1%25.cdn.example.org].
        if not _NAME.fullmatch(host) or not any(_matches(host, allowed) for allowed in self._hosts):
            raise InvalidInput(
                f"its URL's host {_short(host)} isn't in the queue's urls.hosts: add it, or send the bytes"
            )
        path = parts.path or "/"
        return _Target(
            parts.scheme, host, port or _PORTS[parts.scheme], f"{path}?{parts.query}" if parts.query else path
        )

    def _addresses(self, target: _Target, deadline: _Deadline) -> Sequence[str]:
        addresses: Sequence[str]
        try:
            addresses = _in_time(lambda: self._network.resolve(target.host, target.port), deadline.remaining())
        except TimeoutError:
            raise
        except socket.gaierror as error:
            if error.errno == socket.EAI_AGAIN:
                text = f"the name of {_short(target.host)} can't be looked up for now: try again, or send the bytes"
                raise SourceUnavailable(text) from None
            addresses = ()
        except (OSError, UnicodeError):
            addresses = ()
        if not addresses:
            raise InvalidInput(f"its URL's host {_short(target.host)} has no address: check the name")
        if not all(map(self._network.allows, addresses)):
            raise InvalidInput(f"its URL's host {_short(target.host)} has an address that isn't public: send the bytes")
        return addresses

    def _get(self, target: _Target, most: int, deadline: _Deadline) -> bytes | str:
        """What one request brings: bytes, or where it is redirected to."""
        host = _short(target.host)
        url = httpcore.URL(scheme=target.scheme, host=target.host, port=target.port, target=target.path)
        try:
            backend = _Backend(self._addresses(target, deadline), deadline, self._network.dial)
            tls = self._tls if target.scheme == "https" else None
            with (
                httpcore.ConnectionPool(ssl_context=tls, network_backend=backend) as pool,
                pool.stream("GET", url, headers=list(_HEADERS)) as response,
            ):
                return _read(response, most, host)
        except (TimeoutError, httpcore.TimeoutException):
            raise SourceUnavailable(
                f"{host} took more than {self._seconds:g} seconds: try again, or send the bytes"
            ) from None
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
            raise SourceUnavailable(
                f"nothing could be fetched from {host} ({type(error).__name__}): try again, or send the bytes"
            ) from None

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """Certificates of the system and of certifi; the host's name must be in the server's."""
        return httpcore.default_ssl_context()


def _in_time(call: Callable[[], T], seconds: float) -> T:
    """Call what knows no bound of time, as the system's resolver; its thread is left behind when it takes longer.

    Raises
    ------
    TimeoutError
        When it isn't done in so many seconds.

    """
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(call())
        except Exception as error:  # noqa: BLE001  # raised again where it is waited for
            done.set_exception(error)

    threading.Thread(target=run, name="resolve", daemon=True).start()
    return done.result(seconds)


class _Deadline:
    """The end of a fetch."""

    def __init__(self, seconds: float):
        self._end = time.monotonic() + seconds

    def remaining(self) -> float:
        """Seconds left.

        Raises
        ------
        TimeoutError
            When there are none.

        """
        if (left := self._end - time.monotonic()) <= 0:
            raise TimeoutError
        return left


class _Backend(httpcore.NetworkBackend):
    """Connects to addresses that were checked, whatever host is asked for."""

    def __init__(self, addresses: Sequence[str], deadline: _Deadline, dial: Dial):
        self._addresses, self._deadline, self._dial = addresses, deadline, dial

    def connect_tcp(
        self,
        host: str,  # noqa: ARG002  # httpcore's signature; the name was resolved before
        port: int,
        timeout: float | None = None,  # noqa: ARG002  # as above; the deadline holds
        local_address: str | None = None,  # noqa: ARG002  # as above
        socket_options: Iterable[Any] | None = None,  # noqa: ARG002  # as above
    ) -> httpcore.NetworkStream:
        """Connect to the first address that answers."""
        refused = httpcore.ConnectError("no address")
        for address in self._addresses:
            try:
                return _Stream(self._dial(address, port, self._deadline.remaining()), self._deadline)
            except httpcore.ConnectError as error:
                refused = error
        raise refused


class _Stream(httpcore.NetworkStream):
    """A connection on which nothing outlasts the deadline, however slowly it drips."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: _Deadline):
        self._stream, self._deadline = stream, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002  # the deadline holds
        """Read what is there."""
        return self._stream.read(max_bytes, self._deadline.remaining())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002  # the deadline holds
        """Write all of it."""
        self._stream.write(buffer, self._deadline.remaining())

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002  # the deadline holds
    ) -> httpcore.NetworkStream:
        """Go on in TLS, with the URL's host as the name."""
        tls = self._stream.start_tls(ssl_context, server_hostname, self._deadline.remaining())
        return _Stream(tls, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        """What httpcore wants to know of the connection."""
        return self._stream.get_extra_info(info)


def _read(response: httpcore.Response, most: int, host: str) -> bytes | str:
    headers = {name.lower(): value for name, value in response.headers}
    if response.status in _REDIRECTS and b"location" in headers:
        return headers[b"location"].decode("latin-1")
    if response.status in _NOT_NOW or response.status >= _SERVERS_FAULT:
        raise SourceUnavailable(f"{host} answered with status {response.status}: try again, or send the bytes")
    if response.status != _OK:
        raise InvalidInput(f"{host} answered with status {response.status}: check the URL, or send the bytes")
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise InvalidInput(f"{host} answered compressed, which wasn't asked for: send the bytes")
    length = headers.get(b"content-length", b"0")
    if length.isdigit() and int(length) > most:
        raise _too_large(host, most)
    parts, size = [], 0
    for part in response.iter_stream():
        size += len(part)
        if size > most:
            raise _too_large(host, most)
        parts.append(part)
    return b"".join(parts)


def _too_large(host: str, most: int) -> InvalidInput:
    return InvalidInput(f"{host} sends more than {most} bytes: name a smaller file, or raise urls.max_bytes")


def _redirected(url: str, location: str, source: _Target) -> str:
    """Where a redirect leads; it is checked like any other URL."""
    try:
        target = urljoin(url, location)
    except ValueError:
        raise InvalidInput(f"{_short(source.host)} redirects to a malformed URL: give the last address") from None
    if source.scheme == "https" and not target.lower().startswith("https:"):
        raise InvalidInput(f"{_short(source.host)} redirects away from https: give the last address")
    return target


def _matches(host: str, allowed: str) -> bool:
    if allowed.startswith("*."):
        return host.endswith(allowed[1:]) and len(host) >= len(allowed)
    return host == allowed


def _short(host: str) -> str:
    return host if len(host) <= 80 else f"{host[:79]}…"  # noqa: PLR2004  # as much as one line of an error takes
