"""Certificates of a CA of its own, and a Redis that speaks TLS with them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

from tests.helpers import until

_SETTINGS: Final = """
[req]
distinguished_name = name
[name]
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[leaf]
basicConstraints = critical, CA:FALSE
subjectAltName = DNS:localhost
authorityKeyIdentifier = keyid
"""
_NEW_KEY: Final = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class Authority:
    """A CA in a folder; what it signs is for ``localhost``."""

    def __init__(self, folder: Path):
        folder.mkdir()
        self.folder = folder
        (folder / "settings").write_text(_SETTINGS, "utf-8")
        self.ca = folder / "ca.pem"
        self._run("req", "-x509", *_NEW_KEY, "-extensions", "ca", *self._files("ca"), "-subj", "/CN=A CA for tests")

    def sign(self, name: str) -> tuple[Path, Path]:
        """Make a certificate and its key."""
        request = str(self.folder / f"{name}.csr")
        self._run("req", *_NEW_KEY, *self._files(name)[:2], "-out", request, "-subj", f"/CN={name}")
        ca = ("-CA", str(self.ca), "-CAkey", str(self.folder / "ca.key"), "-CAcreateserial")
        self._run("x509", "-req", "-in", request, *ca, *self._files(name)[2:], "-extensions", "leaf", config="-extfile")
        return self.folder / f"{name}.pem", self.folder / f"{name}.key"

    def _files(self, name: str) -> tuple[str, ...]:
        return "-keyout", str(self.folder / f"{name}.key"), "-out", str(self.folder / f"{name}.pem")

    def _run(self, *arguments: str, config: str = "-config") -> None:
        days = ("-days", "2") if "-x509" in arguments or arguments[0] == "x509" else ()
        command = ["openssl", *arguments, *days, config, str(self.folder / "settings")]
        subprocess.run(command, check=True, capture_output=True)


def need(*programs: str) -> None:
    """Skip on a machine that lacks a program; fail in CI."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        text = f"{', '.join(missing)} missing (Debian: apt-get install redis-server openssl)"
        pytest.fail(text) if os.environ.get("CI") else pytest.skip(text)


@contextmanager
def tls_server(authority: Authority, folder: Path, *, asks_clients: bool) -> Iterator[int]:
    """A Redis that speaks TLS only, and asks clients for certificates or doesn't; its port."""
    certificate, key = authority.sign("server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    command = ["redis-server", "--port", "0", "--tls-port", str(port), "--bind", "127.0.0.1", "--save", ""]
    command += [
        "--tls-cert-file",
        str(certificate),
        "--tls-key-file",
        str(key),
        "--tls-ca-cert-file",
        str(authority.ca),
    ]
    command += ["--tls-auth-clients", "yes" if asks_clients else "no", "--dir", str(folder)]
    with (folder / f"{port}.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        try:
            until(lambda: _listens(port), "Redis listens")
            yield port
        finally:
            server.terminate()


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
