"""A stub of the model hub on loopback: one repository at one commit, as far as a download asks for it."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit


class Hub(ThreadingHTTPServer):
    """Serves the files of a folder as the repository ``name`` at ``commit``; nothing else is there."""

    def __init__(self, folder: Path, name: str, commit: str):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = {path.name: path.read_bytes() for path in folder.iterdir()}
        self.name = name
        self.commit = commit
        #: Files that were asked for.
        self.asked: set[str] = set()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_port}"

    def tree(self) -> list[dict[str, object]]:
        """What the repository holds."""
        return [
            {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}  # noqa: S324  # git's
            for name, content in self.files.items()
        ]


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        hub, path = self.server, urlsplit(self.path).path
        files = f"/{hub.name}/resolve/{hub.commit}/"
        if path == f"/api/models/{hub.name}/tree/{hub.commit}":
            self._send(HTTPStatus.OK, json.dumps(hub.tree()).encode(), "application/json", with_body=with_body)
        elif path.startswith(files) and path.removeprefix(files) in hub.files:
            name = path.removeprefix(files)
            hub.asked.add(name)
            self._send(HTTPStatus.OK, hub.files[name], "application/octet-stream", with_body=with_body)
        else:
            self._send(HTTPStatus.NOT_FOUND, b"", "text/plain", with_body=with_body)

    def _send(self, status: HTTPStatus, content: bytes, kind: str, *, with_body: bool) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", self.server.commit)
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving(folder: Path, name: str, commit: str) -> Iterator[Hub]:
    """A hub as long as the block."""
    with Hub(folder, name, commit) as hub:
        thread = threading.Thread(target=hub.serve_forever, daemon=True)
        thread.start()
        yield hub
        hub.shutdown()
        thread.join()
