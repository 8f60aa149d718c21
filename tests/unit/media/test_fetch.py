"""Fetching by URL: against a server in a thread, which every public address leads to."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpcore
import pytest

from pipemill.errors import InvalidInput, JobError, SourceUnavailable
from pipemill_worker.media.fetch import MAX_REDIRECTS, Network, UrlFetcher, dial
from tests.helpers import until

HOSTS = ("media.example.org", "*.cdn.example.org")
PUBLIC = "93.184.215.14"
MOST = 10_000


@dataclass
class Server:
    """What the server answers, by path, and what it was asked."""

    port: int
    answers: dict[str, Callable[[BaseHTTPRequestHandler], None]] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    #: Set when the test is over: an answer that never ends waits for it.
    over: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def server() -> Iterator[Server]:
    """A server on this machine; its threads have ended when the test has."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.requests.append((self.path, dict(self.headers)))
            state.answers[self.path](self)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the standard library's name
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = False

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that has enough hangs up; that is no news."""

    with Quiet(("127.0.0.1", 0), Handler) as http:
        state = Server(http.server_address[1])
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield state
        finally:
            state.over.set()
            http.shutdown()
            thread.join()


@dataclass
class World:
    """A resolver whose answers are given, and a wire that leads to the test's server."""

    server: Server
    #: Addresses by host; each look-up takes the next list, the last one stays.
    names: dict[str, list[list[str]]]
    looked_up: list[str] = field(default_factory=list)
    dialled: list[tuple[str, int]] = field(default_factory=list)

    def resolve(self, host: str, port: int) -> Sequence[str]:
        """What the host's addresses are this time."""
        assert port in {80, 443}
        self.looked_up.append(host)
        answers = self.names.get(host, [[]])
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def dial(self, address: str, port: int, seconds: float) -> httpcore.NetworkStream:
        """The test's server, whatever the address."""
        self.dialled.append((address, port))
        return dial("127.0.0.1", self.server.port, seconds)


@pytest.fixture
def world(server: Server) -> World:
    """Two hosts that are listed, one that isn't, and one with a private address."""
    return World(
        server,
        {
            "media.example.org": [[PUBLIC]],
            "a.cdn.example.org": [[PUBLIC]],
            "other.example.org": [[PUBLIC]],
            "inside.cdn.example.org": [[PUBLIC, "10.0.0.7"]],
        },
    )


def fetcher(world: World, seconds: float = 20.0, most: int = MOST) -> UrlFetcher:
    """A fetcher in that world; which addresses are public is decided as in production."""
    return UrlFetcher(HOSTS, most, seconds, network=Network(resolve=world.resolve, dial=world.dial))


def say(body: bytes, status: int = 200, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    """An answer with a length and headers; underscores in their names stand for hyphens."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def lead(location: str, status: int = 302) -> Callable[[BaseHTTPRequestHandler], None]:
    """A redirect."""
    return say(b"", status, Location=location)


def test_bytes_are_fetched(world: World, server: Server) -> None:
    """A URL of a listed host gives its bytes; the request carries nothing of ours."""
    server.answers["/image.png?size=2"] = say(b"bytes")
    assert fetcher(world)("http://media.example.org/image.png?size=2#part", 100) == b"bytes"
    (path, headers), *_ = server.requests
    assert path == "/image.png?size=2"
    assert headers == {
        "Host": "media.example.org",
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        "User-Agent": "pipemill",
    }
    assert world.dialled == [(PUBLIC, 80)]


def test_a_host_below_a_listed_one_is_fetched_from(world: World, server: Server) -> None:
    """A star in the list stands for every host below, and for that one itself it doesn't."""
    server.answers["/"] = say(b"bytes")
    assert fetcher(world)("http://a.cdn.example.org:80", 100) == b"bytes"
    with pytest.raises(InvalidInput, match=r"host cdn\.example\.org isn't in"):
        fetcher(world)("http://cdn.example.org/", 100)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("file:///etc/passwd", "must begin with https"),
        ("ftp://media.example.org/a", "must begin with https"),
        ("//media.example.org/a", "must begin with https"),
        ("data:image/png;base64,AAAA", "must begin with https"),
        ("", "must begin with https"),
        ("http://user:secret@media.example.org/a", "credentials"),
        ("http://@media.example.org/a", "credentials"),
        ("http://media.example.org@other.example.org/", "credentials"),
        ("http://media.example.org:8080/a", "only 80 and 443"),
        ("http://media.example.org:6379/a", "only 80 and 443"),
        ("http://media.example.org:99999/a", "malformed"),
        ("http://media.example.org:x/a", "malformed"),
        ("http://[::1/a", "malformed"),
        ("http://other.example.org/a", "isn't in the queue's urls.hosts"),
        ("http://xcdn.example.org/a", "isn't in the queue's urls.hosts"),
        ("http://media.example.org.evil.net/a", "isn't in the queue's urls.hosts"),
        ("http://media.example.org%2eevil.net/a", "isn't in the queue's urls.hosts"),
        ("http://evil.net%2f.cdn.example.org/a", "isn't in the queue's urls.hosts"),
        ("http://[2606:4700::1111%25.cdn.example.org]/a", "isn't in the queue's urls.hosts"),
        ("http://evil.net,a.cdn.example.org/a", "isn't in the queue's urls.hosts"),
        ("http://..cdn.example.org/a", "isn't in the queue's urls.hosts"),
        ("http://a.cdn.example.org./a", "isn't in the queue's urls.hosts"),
        ("http://127.0.0.1/a", "isn't in the queue's urls.hosts"),
        ("http://[::ffff:127.0.0.1]/a", "isn't in the queue's urls.hosts"),
        ("http:///a", "isn't in the queue's urls.hosts"),
        ("http://media.example.org\\@other.example.org/", "characters of ASCII"),
        ("http://media.example.org/a b", "characters of ASCII"),
        ("http://media.example.org/a\r\nX: y", "characters of ASCII"),
        ("http://media.example.org/\u00e4", "characters of ASCII"),
        ("http://media.example.org/" + "a" * 5_000, "characters of ASCII"),
        ("http://inside.cdn.example.org/a", "has an address that isn't public"),
        ("http://gone.cdn.example.org/a", "has no address"),
    ],
)
def test_other_urls_are_refused(world: World, server: Server, url: str, says: str) -> None:
    """Other schemes, hosts, ports, credentials and private addresses are refused before a connection is opened."""
    with pytest.raises(InvalidInput, match=says) as raised:
        fetcher(world)(url, 100)
    assert "secret" not in str(raised.value)
    assert not world.dialled
    assert not server.requests


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(world: World, server: Server, status: int) -> None:
    """A redirect within the listed hosts leads on, relative ones too, each looked up by itself."""
    server.answers["/a"] = lead("http://a.cdn.example.org/b", status)
    server.answers["/b"] = lead("c", status)
    server.answers["/c"] = say(b"bytes")
    assert fetcher(world)("http://media.example.org/a", 100) == b"bytes"
    assert world.looked_up == ["media.example.org", "a.cdn.example.org", "a.cdn.example.org"]


@pytest.mark.parametrize(
    ("location", "says"),
    [
        ("http://127.0.0.1/admin", "isn't in the queue's urls.hosts"),
        ("http://localhost/admin", "isn't in the queue's urls.hosts"),
        ("http://other.example.org/a", "isn't in the queue's urls.hosts"),
        ("//other.example.org/a", "isn't in the queue's urls.hosts"),
        ("http://media.example.org:8080/a", "only 80 and 443"),
        ("http://x:y@media.example.org/a", "credentials"),
        ("file:///etc/passwd", "must begin with https"),
        ("http://inside.cdn.example.org/a", "has an address that isn't public"),
        ("http://[", "malformed"),
    ],
)
def test_redirects_elsewhere_are_refused(world: World, server: Server, location: str, says: str) -> None:
    """A redirect is checked like a URL of a job; nothing is sent to where it leads."""
    server.answers["/a"] = lead(location)
    with pytest.raises(InvalidInput, match=says):
        fetcher(world)("http://media.example.org/a", 100)
    assert len(server.requests) == 1


def test_redirects_come_to_an_end(world: World, server: Server) -> None:
    """A host that redirects for ever is asked six times."""
    server.answers["/a"] = lead("/a")
    with pytest.raises(InvalidInput, match=f"more than {MAX_REDIRECTS} times"):
        fetcher(world)("http://media.example.org/a", 100)
    assert len(server.requests) == MAX_REDIRECTS + 1


def test_a_name_that_changes_its_mind_is_connected_to_where_it_was_checked(world: World, server: Server) -> None:
    """A host is resolved once: an address that it gets afterwards is never connected to."""
    server.answers["/"] = say(b"bytes")
    world.names["media.example.org"] = [[PUBLIC], ["127.0.0.1"]]
    fetch = fetcher(world)
    assert fetch("http://media.example.org/", 100) == b"bytes"
    assert (world.looked_up, world.dialled) == (["media.example.org"], [(PUBLIC, 80)])
    with pytest.raises(InvalidInput, match="isn't public"):
        fetch("http://media.example.org/", 100)
    assert world.dialled == [(PUBLIC, 80)]


def test_the_next_address_is_tried(world: World, server: Server) -> None:
    """A host with an address that doesn't answer is reached by its next."""
    server.answers["/"] = say(b"bytes")
    world.names["media.example.org"] = [["2606:4700::1", PUBLIC]]
    reach = world.dial

    def no_ipv6(address: str, port: int, seconds: float) -> httpcore.NetworkStream:
        if ":" in address:
            raise httpcore.ConnectError("no route")
        return reach(address, port, seconds)

    fetch = UrlFetcher(HOSTS, MOST, 20, network=Network(resolve=world.resolve, dial=no_ipv6))
    assert fetch("http://media.example.org/", 100) == b"bytes"


@pytest.mark.parametrize(("mine", "queues"), [(99, MOST), (MOST, 99)])
def test_an_answer_that_says_it_is_too_large_is_refused(world: World, server: Server, mine: int, queues: int) -> None:
    """The smaller of both caps holds, before the body is read."""
    server.answers["/"] = say(b"x" * 100)
    with pytest.raises(InvalidInput, match=r"media\.example\.org sends more than 99 bytes"):
        fetcher(world, most=queues)("http://media.example.org/", mine)


def test_an_answer_that_grows_too_large_is_stopped(world: World, server: Server) -> None:
    """Without a length the cap holds while reading, though the server would send for ever."""

    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not server.over.is_set():
            handler.wfile.write(b"x" * 1_000)

    server.answers["/"] = endless
    with pytest.raises(InvalidInput, match="sends more than 10000 bytes"):
        fetcher(world)("http://media.example.org/", MOST)


@pytest.mark.parametrize("part", ["nothing", "head", "body"])
def test_a_slow_answer_is_stopped(world: World, server: Server, part: str) -> None:
    """A server that sends nothing more holds a fetch no longer than its time, wherever it stops."""

    def stuck(handler: BaseHTTPRequestHandler) -> None:
        if part == "head":
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-")
        if part == "body":
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx")
        handler.wfile.flush()
        server.over.wait()

    server.answers["/"] = stuck
    with pytest.raises(SourceUnavailable, match=r"media\.example\.org took more than 0\.2 seconds"):
        fetcher(world, seconds=0.2)("http://media.example.org/", MOST)


def test_a_slow_look_up_is_stopped(world: World, server: Server) -> None:
    """The time is for looking up the name, too: the system's resolver would take its own."""

    def stuck(host: str, port: int) -> Sequence[str]:
        server.over.wait()
        return world.resolve(host, port)

    fetch = UrlFetcher(HOSTS, MOST, 0.1, network=Network(resolve=stuck, dial=world.dial))
    with pytest.raises(SourceUnavailable, match=r"media\.example\.org took more than 0\.1 seconds"):
        fetch("http://media.example.org/", MOST)
    assert not world.dialled


def test_a_drip_is_stopped(world: World, server: Server) -> None:
    """Bytes that keep coming don't buy time: the cap is for the whole fetch, not for each byte."""

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not server.over.wait(0.01):
            handler.wfile.write(b"x")

    server.answers["/"] = drip
    with pytest.raises(SourceUnavailable, match="took more than"):
        fetcher(world, seconds=0.3)("http://media.example.org/", MOST)


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (say(b"gone", 404), InvalidInput, "status 404"),
        (say(b"", 408), SourceUnavailable, "status 408"),
        (say(b"", 429), SourceUnavailable, "status 429"),
        (say(b"", 500), SourceUnavailable, "status 500"),
        (say(b"", 503), SourceUnavailable, "status 503"),
        (say(b"", 302), InvalidInput, "status 302"),
        (say(b"part", 206), InvalidInput, "status 206"),
        (say(b"x", Content_Encoding="gzip"), InvalidInput, "compressed"),
        (
            lambda handler: handler.wfile.write(b"SSH-2.0-server\r\n"),
            SourceUnavailable,
            "nothing could be fetched",
        ),
        (
            lambda handler: handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"),
            SourceUnavailable,
            "nothing could be fetched",
        ),
        (
            lambda handler: handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 50_000),
            SourceUnavailable,
            "nothing could be fetched",
        ),
    ],
    ids=["404", "408", "429", "500", "503", "redirect to nowhere", "206", "gzip", "no http", "cut", "endless head"],
)
def test_answers_that_are_no_file_are_refused(
    world: World, server: Server, answer: Any, error: type[JobError], says: str
) -> None:
    """Anything but status 200 with all its bytes is an error that names the host only, and says whether it may pass."""
    server.answers["/private?token=secret"] = answer
    with pytest.raises(error, match=says) as raised:
        fetcher(world)("http://media.example.org/private?token=secret", MOST)
    assert "secret" not in str(raised.value)
    assert "private" not in str(raised.value)
    assert raised.value.transient is (error is SourceUnavailable)


@pytest.mark.parametrize(
    ("number", "error", "says"),
    [
        (socket.EAI_AGAIN, SourceUnavailable, "can't be looked up for now"),
        (socket.EAI_NONAME, InvalidInput, "has no address"),
    ],
)
def test_a_name_that_is_not_found_now_is_told_from_one_that_is_none(
    world: World, number: int, error: type[JobError], says: str
) -> None:
    """A resolver that can't tell for now says nothing of the name; one that knows of none does."""

    def fail(host: str, port: int) -> Sequence[str]:
        raise socket.gaierror(number, f"{host} {port}")

    fetch = UrlFetcher(HOSTS, MOST, 20, network=Network(resolve=fail, dial=world.dial))
    with pytest.raises(error, match=says):
        fetch("http://media.example.org/", 100)
    assert not world.dialled


def test_a_connection_that_fails_is_an_error_with_a_sentence(world: World) -> None:
    """Nobody answers at any address."""

    def refuse(address: str, port: int, seconds: float) -> httpcore.NetworkStream:
        raise httpcore.ConnectError(f"{address} {port} {seconds}")

    fetch = UrlFetcher(HOSTS, MOST, 20, network=Network(resolve=world.resolve, dial=refuse))
    with pytest.raises(SourceUnavailable, match=r"nothing could be fetched from media\.example\.org"):
        fetch("http://media.example.org/", 100)


def test_proxies_and_cookies_are_not_used(world: World, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment's proxies aren't asked, and what a host sets it doesn't get back."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    server.answers["/"] = say(b"", 302, Location="/b", Set_Cookie="a=b")
    server.answers["/b"] = say(b"bytes")
    assert fetcher(world)("http://media.example.org/", 100) == b"bytes"
    assert all("Cookie" not in headers for _, headers in server.requests)


class Handshake(httpcore.NetworkStream):
    """A connection that notes with which name TLS was asked for, and refuses."""

    def __init__(self) -> None:
        self.names: list[tuple[str | None, bool, ssl.VerifyMode]] = []

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        assert timeout is not None
        self.names.append((server_hostname, ssl_context.check_hostname, ssl_context.verify_mode))
        raise httpcore.ConnectError("certificate verify failed")

    def close(self) -> None:
        pass


def test_tls_checks_the_urls_host(world: World) -> None:
    """The certificate must be of the host that the URL names, though an address was connected to."""
    wire = Handshake()
    fetch = UrlFetcher(HOSTS, MOST, 20, network=Network(resolve=world.resolve, dial=lambda *_: wire))
    with pytest.raises(SourceUnavailable, match="nothing could be fetched"):
        fetch("https://media.example.org/", 100)
    assert wire.names == [("media.example.org", True, ssl.CERT_REQUIRED)]


def test_the_system_resolver_answers_with_addresses() -> None:
    """A name of this machine has addresses, and none of them may be fetched from."""
    with pytest.raises(InvalidInput, match="isn't public"):
        UrlFetcher(("localhost",), MOST, 20)("http://localhost/", 100)


def test_no_connection_is_left_open(world: World, server: Server) -> None:
    """A fetch that is refused half-way hangs up, so that the server's thread ends."""
    ended = threading.Event()

    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            while not server.over.is_set():
                handler.wfile.write(b"x" * 1_000)
        except OSError:
            ended.set()

    server.answers["/"] = endless
    with pytest.raises(InvalidInput, match="sends more than"):
        fetcher(world)("http://media.example.org/", 100)
    until(ended.is_set, "the server notices")
