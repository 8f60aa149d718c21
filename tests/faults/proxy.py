"""A network that fails: a TCP proxy between clients and a broker on loopback."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

#: Bytes passed on at a time.
PIECE: Final = 65_536
#: How long the proxy waits for a connection before it looks whether it is to end, in seconds.
ACCEPT_SECONDS: Final = 0.2


class _Link:
    """One connection through the proxy: two sockets, and what is done to them."""

    def __init__(self, client: socket.socket, server: socket.socket):
        self.client = client
        self.server = server
        #: Nothing passes any more, and neither side is told: the link is half open.
        self.dead = False
        #: The answers on their way are dropped, and the connection with them.
        self.dropping = False

    def close(self) -> None:
        """Close both ends; whoever waits for one of them wakes."""
        for end in (self.client, self.server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


class Proxy:
    """Passes everything on, until it is told otherwise. ``with`` ends it."""

    def __init__(self, port: int):
        """``port`` is the broker's, on loopback."""
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(ACCEPT_SECONDS)
        self._guard = threading.Lock()
        self._links: list[_Link] = []
        self._threads = [threading.Thread(target=self._accept, name="proxy")]
        self._ended = False
        self._refusing = False
        self._parted = False
        self._mark = b""
        self._to_lose = 0
        #: Answers that were dropped so far.
        self.lost = 0

    @property
    def url(self) -> str:
        """The broker's address, through this network."""
        return f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = True
        self._close_all()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    # -- what a network does

    def cut(self) -> None:
        """Reset every connection, and every new one, until ``mend``."""
        self._refusing = True
        self._close_all()

    def part(self) -> None:
        """Pass nothing on any more and tell nobody; new connections are made, and as dead, until ``mend``."""
        with self._guard:
            self._parted = True
            for link in self._links:
                link.dead = True

    def mend(self) -> None:
        """New connections work again; those that died stay dead."""
        with self._guard:
            self._refusing = self._parted = False

    def lose_answers(self, mark: bytes, times: int) -> None:
        """Pass on the next requests that hold these bytes, drop their answers, and close their connections."""
        with self._guard:
            self._mark, self._to_lose = mark, times

    # -- passing on

    def _close_all(self) -> None:
        with self._guard:
            links, self._links = self._links, []
        for link in links:
            link.close()

    def _accept(self) -> None:
        while not self._ended:
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            client.settimeout(None)
            try:
                server = socket.create_connection(self._target)
            except OSError:  # the broker is away: so is the proxy
                client.close()
                continue
            self._join(_Link(client, server))

    def _join(self, link: _Link) -> None:
        with self._guard:
            if self._refusing or self._ended:
                link.close()
                return
            link.dead = self._parted
            self._links.append(link)
        pumps = [threading.Thread(target=pump, args=(link,), name="proxy") for pump in (self._ask, self._answer)]
        self._threads += pumps
        for pump in pumps:
            pump.start()

    def _ask(self, link: _Link) -> None:
        """Pass on what the client says."""
        before = b""
        with suppress(OSError):
            while data := link.client.recv(PIECE):
                if link.dead:
                    continue
                self._note_marked(link, before + data)
                before = data[1 - len(self._mark) :] if len(self._mark) > 1 else b""
                link.server.sendall(data)
        if not link.dead:
            link.close()

    def _note_marked(self, link: _Link, data: bytes) -> None:
        with self._guard:
            if self._to_lose and self._mark in data and not link.dropping:
                self._to_lose -= 1
                link.dropping = True

    def _answer(self, link: _Link) -> None:
        """Pass on what the broker says."""
        with suppress(OSError):
            while data := link.server.recv(PIECE):
                if link.dropping:
                    with self._guard:
                        self.lost += 1
                    break
                if not link.dead:
                    link.client.sendall(data)
        if not link.dead:
            link.close()
