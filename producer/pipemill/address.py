"""A broker's address: what its URL says, and where its password comes from. Its text shows no password."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from pipemill.errors import ConfigurationError

#: The environment variables that hold, or name the file of, the password of a URL that names a user and none.
PASSWORD_VARIABLE: Final = "PIPEMILL_BROKER_PASSWORD"  # noqa: S105  # a name, no password
PASSWORD_FILE_VARIABLE: Final = "PIPEMILL_BROKER_PASSWORD_FILE"  # noqa: S105  # as above
#: The option of a URL that names the file of its password.
PASSWORD_FILE: Final = "password_file"  # noqa: S105  # as above
#: The options of a URL that say how TLS is spoken. That the server's certificate is checked can't be switched off.
_TLS_FILES: Final = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")
TLS_OPTIONS: Final = (*_TLS_FILES, "ssl_check_hostname")
#: What a TLS connection asks for unless its URL says otherwise.
_CHECKED: Final[Mapping[str, str | bool]] = MappingProxyType({"ssl_cert_reqs": "required", "ssl_check_hostname": True})

#: Everything up to the last @: a password may itself hold an unescaped / or @.
_USER_INFO: Final = re.compile(r"^(\w[\w+.-]*://)(.*)@", re.DOTALL)
_USER: Final = re.compile(r"^([\w.-]*):", re.DOTALL)
_PASSWORD_OPTION: Final = re.compile(r"(password=)[^&#]*", re.IGNORECASE)

#: What is wrong with a URL, and what to do; neither repeats anything of it.
Mistake = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A broker's URL, taken apart."""

    #: Where it is, without user, password and TLS options.
    url: str
    #: The whole URL as a person may see it.
    shown: str
    user: str = ""
    #: How TLS is spoken, by redis-py's names, which are Celery's too; empty without TLS.
    tls: Mapping[str, str | bool] = field(default_factory=dict, hash=False)
    password: str | None = field(default=None, repr=False)
    #: A file that is read for each new connection, so that a password can be changed under running processes.
    password_file: str | None = None

    def __str__(self) -> str:
        return self.shown

    def credentials(self) -> tuple[str] | tuple[str, str] | None:
        """Password alone, or user and password, as they are at this moment; None if the URL asks for neither.

        Raises
        ------
        ConfigurationError
            When the password's file can't be read, or is empty.

        """
        password = self.password if self.password_file is None else read_password(self.password_file)
        if self.user:
            return self.user, password or ""
        return None if password is None else (password,)

    def check_files(self) -> None:
        """See that the files of its TLS options are there.

        Raises
        ------
        ConfigurationError
            When one can't be read.

        """
        for name, value in self.tls.items():
            if name in _TLS_FILES and not os.access(str(value), os.R_OK):
                text = f"{name} of the broker's URL is {value!r}, which can't be read"
                raise ConfigurationError(f"{text}: see that it is there, and whose it is")

    @property
    def database(self) -> int:
        """The number of the database."""
        parts = urlsplit(self.url)
        named = dict(parse_qsl(parts.query)).get("db") or ("0" if parts.scheme == "unix" else parts.path.strip("/"))
        return int(named) if named.isascii() and named.isdigit() else 0


def address_of(url: str | Address, environ: Mapping[str, str] | None = None) -> Address:
    """Take a URL apart; the environment, the process's own unless another is given, may hold its password.

    Raises
    ------
    ConfigurationError
        When it isn't a broker's URL, or its password or its TLS options can't be right.

    """
    if isinstance(url, Address):
        return url
    shown = redact(url)
    try:
        parts = urlsplit(url)
        mistake = find_mistake(parts)
    except ValueError:
        raise ConfigurationError(f"the broker URL {shown!r} can't be read: give redis://host:6379/0") from None
    if mistake:
        raise ConfigurationError(f"the broker URL {shown!r}: {mistake[0]}: {mistake[1]}")
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    user = given.pop("username", None) or unquote(parts.username or "")
    password = unquote(parts.password) if parts.password is not None else None
    password, file = given.pop("password", password), given.pop(PASSWORD_FILE, None)
    if user and password is None and file is None:
        password, file = _from_environ(os.environ if environ is None else environ)
    tls: dict[str, str] = {name: given.pop(name) for name in TLS_OPTIONS if name in given}
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2], query=urlencode(given))
    return Address(
        url=_written(bare),
        shown=shown,
        user=user,
        tls=_tls(tls) if parts.scheme == "rediss" else {},
        password=password,
        password_file=file,
    )


def find_mistake(parts: SplitResult) -> Mistake | None:
    """What is wrong with the options of a broker's URL."""
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    tls = [name for name in given if name.startswith("ssl_")]
    if tls and parts.scheme != "rediss":
        return "options of TLS (ssl_…) in a URL without TLS", "write rediss://, or leave them out"
    if any(name not in TLS_OPTIONS for name in tls):
        mend = (
            f"give {', '.join(TLS_OPTIONS)}; the server's certificate is always checked: name its CA with ssl_ca_certs"
        )
        return "an option of TLS that isn't taken", mend
    if given.get("ssl_check_hostname", "true").lower() not in {"true", "false"}:
        return "ssl_check_hostname is neither true nor false", "leave it out to have the host's name checked"
    if "ssl_keyfile" in given and "ssl_certfile" not in given:
        return "a client's key (ssl_keyfile) without its certificate", "name that with ssl_certfile"
    if PASSWORD_FILE in given and (parts.password is not None or "password" in given):
        return f"a password and {PASSWORD_FILE}", "give one of them"
    return None


def redact(url: str) -> str:
    """Hide the password of a URL, and all of the user part when it is unclear where the password starts."""

    def hide(found: re.Match[str]) -> str:
        user = _USER.match(found[2])
        return f"{found[1]}{f'{user[1]}:' if user else ''}***@"

    return _PASSWORD_OPTION.sub(r"\1***", _USER_INFO.sub(hide, url))


def _written(parts: SplitResult) -> str:
    return f"{parts.scheme}://{parts.netloc}{parts.path}" + (f"?{parts.query}" if parts.query else "")


def _tls(given: Mapping[str, str]) -> dict[str, str | bool]:
    asked: dict[str, str | bool] = {**_CHECKED, **given}
    return asked | {"ssl_check_hostname": str(asked["ssl_check_hostname"]).lower() == "true"}


def _from_environ(environ: Mapping[str, str]) -> tuple[str | None, str | None]:
    password, file = environ.get(PASSWORD_VARIABLE), environ.get(PASSWORD_FILE_VARIABLE)
    if password and file:
        raise ConfigurationError(f"both {PASSWORD_VARIABLE} and {PASSWORD_FILE_VARIABLE} are set: unset one of them")
    return password or None, file or None


def read_password(file: str | Path) -> str:
    """Read a password; the end of its line isn't part of it.

    Raises
    ------
    ConfigurationError
        When the file can't be read, or is empty.

    """
    try:
        password = Path(file).read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it isn't UTF-8"
        raise ConfigurationError(
            f"the broker's password file {str(file)!r} can't be read ({reason}): see that it is there, and whose it is"
        ) from None
    if not password:
        raise ConfigurationError(f"the broker's password file {str(file)!r} is empty: write the password into it")
    return password
