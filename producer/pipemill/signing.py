"""Signing keys: where they come from, who signs with them, and who checks.

A key is a line of a file, or of the environment variable: ``<id> <secret> [<tenant>]``. Producers sign with the first
of theirs; workers know them all. So a key is changed by giving the workers the new one first, then the producers, and
by taking the old one from the workers when its last job has ended. Files are read again when they change.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from pipemill.errors import ConfigurationError, SignatureRefused
from pipemill.protocol.names import KEYS_FILE_VARIABLE, KEYS_VARIABLE, SIGNED_AT_HEADER
from pipemill.protocol.signing import SigningKey, check_signature, key_id, sign_headers, sign_message
from pipemill.store.base import Submission

__all__ = ["Keyring", "Signer", "SigningKey", "Verifier", "keyring_of", "parse_keys", "signer_of"]

log = logging.getLogger("pipemill.signing")

#: The shortest secret, in bytes: as many as HMAC-SHA256 gives.
SHORTEST_SECRET_BYTES: Final = 32
#: The longest id of a key, in characters: it travels with every job.
LONGEST_ID: Final = 80

_MAKE_ONE: Final = "python -c 'import secrets; print(\"my-key\", secrets.token_urlsafe(32))' makes one"


def parse_keys(text: str, where: str) -> dict[str, SigningKey]:
    """Read keys by id; empty lines and those that start with # are left out. No error repeats a secret.

    Raises
    ------
    ConfigurationError
        When a line isn't a key, or there is none.

    """
    keys: dict[str, SigningKey] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) not in {2, 3}:
            raise ConfigurationError(f"{where}, line {number}: a key is <id> <secret> [<tenant>]: {_MAKE_ONE}")
        name, secret = words[0], words[1].encode()
        if len(secret) < SHORTEST_SECRET_BYTES or len(name) > LONGEST_ID:
            text = f"a secret has at least {SHORTEST_SECRET_BYTES} bytes, and an id at most {LONGEST_ID} characters"
            raise ConfigurationError(f"{where}, line {number}: {text}: {_MAKE_ONE}")
        if name in keys:
            raise ConfigurationError(
                f"{where}, line {number}: an id that stands there twice: give each key its own; {_MAKE_ONE}"
            )
        keys[name] = SigningKey(id=name, secret=secret, tenant=next(iter(words[2:]), None))
    if not keys:
        raise ConfigurationError(f"{where} holds no signing key: write one into it; {_MAKE_ONE}")
    return keys


class Keyring:
    """Keys by id. Thread-safe. With a file, they are read again when it changes."""

    def __init__(self, *, text: str = "", file: Path | None = None):
        """Read the keys.

        Raises
        ------
        ConfigurationError
            When they can't be read.

        """
        self._file = file
        self._stamp: tuple[int, ...] | None = None
        self._keys = parse_keys(text, KEYS_VARIABLE) if file is None else self._read(file)

    def keys(self) -> Mapping[str, SigningKey]:
        """All of them, the one to sign with first."""
        if self._file is not None:
            self._refresh(self._file)
        return self._keys

    def first(self) -> SigningKey:
        """The one to sign with."""
        return next(iter(self.keys().values()))

    def _refresh(self, file: Path) -> None:
        """Read the file again if it has changed; if that fails, the keys stay as they are."""
        try:
            if _stamp_of(file) != self._stamp:
                self._keys = self._read(file)
        except (OSError, ConfigurationError) as error:
            if self._stamp is not None:
                self._stamp = None  # told once, until it can be read
                log.warning("the signing keys stay as they were: %s", error, extra={"event": "signing_keys_unreadable"})

    def _read(self, file: Path) -> dict[str, SigningKey]:
        where = f"the file of signing keys {str(file)!r}"
        try:
            stamp, text = _stamp_of(file), file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it isn't UTF-8"
            text = f"{where} can't be read ({reason}): see that it is there, and whose it is"
            raise ConfigurationError(text) from None
        keys = parse_keys(text, where)
        self._stamp = stamp
        return keys


def _stamp_of(file: Path) -> tuple[int, ...]:
    """What changes with a file."""
    told = file.stat()
    return told.st_ino, told.st_mtime_ns, told.st_size


def keyring_of(file: str | os.PathLike[str] | None, environ: Mapping[str, str] | None = None) -> Keyring | None:
    """The keys of a file, else those of the environment; None if there are none.

    Raises
    ------
    ConfigurationError
        When they can't be read, or are given twice.

    """
    environ = os.environ if environ is None else environ
    text, named = environ.get(KEYS_VARIABLE), environ.get(KEYS_FILE_VARIABLE)
    if file is None and text and named:
        raise ConfigurationError(f"both {KEYS_VARIABLE} and {KEYS_FILE_VARIABLE} are set: unset one of them")
    if file or named:
        return Keyring(file=Path(file or named or ""))
    return Keyring(text=text) if text else None


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs what a producer sends, with the first key of its ring."""

    keyring: Keyring

    def sign(self, queue: str, submissions: Sequence[Submission]) -> list[Submission]:
        """The same jobs, signed.

        Raises
        ------
        ConfigurationError
            When the key is good for another tenant than a job's.

        """
        key, now = self.keyring.first(), time.time()
        try:
            return [
                replace(job, message=sign_message(job.message, queue, key, now, job.payload)) for job in submissions
            ]
        except SignatureRefused as error:
            raise ConfigurationError(str(error)) from error

    def headers(self, headers: Mapping[str, Any], queue: str, body: bytes) -> dict[str, Any]:
        """Headers to add to those of a message that another client sends; ``body`` are its very bytes.

        Raises
        ------
        SignatureRefused
            When the key is good for another tenant than the job's.

        """
        return sign_headers(headers, queue, body, self.keyring.first(), time.time())


def signer_of(file: str | os.PathLike[str] | None) -> Signer | None:
    """Sign with the keys of a file, else with those of the environment; None if there are none."""
    keyring = keyring_of(file)
    return None if keyring is None else Signer(keyring)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verifier:
    """What a worker asks of the jobs of one queue."""

    #: The keys that it knows.
    keyring: Keyring
    #: Whether a job without a signature is refused. One with a wrong signature always is.
    required: bool
    #: How old a signature may be, in seconds.
    max_age_seconds: float

    def check(self, headers: Mapping[str, Any], queue: str, body: bytes, now: float) -> str | None:
        """See that a job is what its sender signed, and with which key; ``now`` in seconds since the epoch.

        Raises
        ------
        SignatureRefused
            When it isn't, or isn't signed and has to be.

        """
        name = key_id(headers)
        if name is None:
            if self.required:
                raise SignatureRefused(
                    f"queue {queue!r} takes signed jobs only: give the client a key (signing_keys=, "
                    f"{KEYS_FILE_VARIABLE} or {KEYS_VARIABLE})"
                )
            return None
        check_signature(headers, queue, body, self.keyring.keys().get(name))
        signed_at = headers.get(SIGNED_AT_HEADER)
        if not isinstance(signed_at, int) or now - signed_at > self.max_age_seconds:
            text = f"the job was signed more than {self.max_age_seconds:.0f} s ago: submit it again"
            raise SignatureRefused(text)
        return name
