"""How a worker process is: whether it lives, whether it serves, and why not. Told by a file, or over HTTP.

The worker writes what a probe reads. Here is what the two share, and what reads; it loads next to nothing, since a
probe runs every few seconds.
"""

from __future__ import annotations

import glob
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

#: A file that was written last so many seconds ago is of a process that hangs or is gone. It is written every second;
#: a library of a gigabyte that is read from a cold disk stops all threads for longer than one thinks.
STALE_SECONDS: Final = 60.0
#: How long a worker's port may take to answer, in seconds.
ANSWER_SECONDS: Final = 5.0
#: Most bytes of an answer that are read: many times what a worker sends.
ANSWER_BYTES: Final = 65_536
#: What a worker's port is asked for. Each answers with the whole health, and with 503 if it isn't so.
LIVE_PATH: Final = "/livez"
READY_PATH: Final = "/readyz"


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How one process, or several together, are."""

    #: Whether it is to be left alone: what isn't live is mended by a restart only.
    live: bool
    #: Whether it serves jobs at this moment.
    ready: bool
    #: Why it isn't live or ready, a phrase each; the word before the colon is one of a few.
    reasons: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return {"live": self.live, "ready": self.ready, "reasons": list(self.reasons)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Health:
        """Read what ``to_json`` wrote.

        Raises
        ------
        KeyError, TypeError
            When it isn't of that form.

        """
        reasons = tuple(str(reason) for reason in document["reasons"])
        return cls(live=document["live"] is True, ready=document["ready"] is True, reasons=reasons)


def _down(reason: str) -> Health:
    return Health(live=False, ready=False, reasons=(reason,))


def numbered(file: Path, number: int) -> Path:
    """The file of one of several worker processes: ``health.json`` is ``health-2.json`` for the second."""
    return file.with_name(f"{file.stem}-{number}{file.suffix}")


def files_of(file: Path) -> list[Path]:
    """The files that are there: the one of that name, and those of several processes."""
    pattern = f"{glob.escape(file.stem)}-*{glob.escape(file.suffix)}"
    several = [found for found in file.parent.glob(pattern) if _number(found, file).isdecimal()]
    return [*([file] if file.exists() else []), *sorted(several, key=lambda found: int(_number(found, file)))]


def _number(found: Path, file: Path) -> str:
    return found.stem.removeprefix(f"{file.stem}-")


def clear(file: Path) -> None:
    """Remove what a worker that is gone left behind.

    Raises
    ------
    OSError
        When a file can't be removed.

    """
    for found in files_of(file):
        found.unlink(missing_ok=True)


def write_health(file: Path, health: Health) -> None:
    """Write a process's own file. Who reads sees the old one or the new one, whole.

    Raises
    ------
    OSError
        When it can't be written.

    """
    # The monotonic clock is the machine's, the same for all its processes; the other one is for people.
    told = {**health.to_json(), "pid": os.getpid(), "at": round(time.time(), 3), "clock": time.monotonic()}
    draft = file.with_name(f".{file.name}.new")
    # A link that somebody laid in a folder for all isn't followed.
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    with open(draft, "w", encoding="utf-8", opener=lambda path, _: os.open(path, flags, 0o644)) as written:
        json.dump(told, written)
    draft.replace(file)


def read_health(file: Path, *, max_age: float = STALE_SECONDS) -> Health:
    """What a worker's file says; where several processes have one each, what they say together.

    All of them must live, since whoever restarts one that hangs restarts all. One that serves is enough to be ready. A
    process that died has no file: its supervisor removes it, and starts the process again.
    """
    told = {each: health for each in files_of(file) if (health := _read(each, max_age)) is not None}
    if not told:
        return _down(f"file: there is no {file}: the worker isn't up, or it writes another one (worker.health_file)")
    if list(told) == [file]:
        return told[file]
    return together({each.stem: health for each, health in told.items()})


def _read(file: Path, max_age: float) -> Health | None:
    """What a file says; ``None`` if it was removed since it was found."""
    try:
        document = json.loads(file.read_bytes())
        age = time.monotonic() - float(document["clock"])
        health = Health.from_json(document)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        return _down(f"file: {file} can't be read ({type(error).__name__}): name the file that the worker writes")
    if age < 0:
        return _down(f"file: {file} was written before this machine started")
    if age > max_age:
        return _down(f"file: {file} was last written {age:.0f} s ago: the process hangs or is gone")
    return health


def together(healths: Mapping[str, Health]) -> Health:
    """What several processes are together; each reason names its process."""
    return Health(
        live=all(health.live for health in healths.values()),
        ready=all(health.live for health in healths.values()) and any(health.ready for health in healths.values()),
        reasons=tuple(f"{name}: {reason}" for name, health in healths.items() for reason in health.reasons),
    )


def ask_health(url: str, *, timeout: float = ANSWER_SECONDS) -> Health:
    """What a worker's port says, asked directly, whatever proxy the environment names.

    Raises
    ------
    ValueError
        When the URL isn't one of a worker's port.

    """
    from http.client import HTTPConnection, HTTPException  # noqa: PLC0415  # a probe that reads a file spares it

    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError("not a URL such as http://127.0.0.1:8090")
    connection = HTTPConnection(parts.hostname, parts.port, timeout=timeout)
    try:
        connection.request("GET", READY_PATH)
        return Health.from_json(json.loads(connection.getresponse().read(ANSWER_BYTES)))
    except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
        return _down(
            f"port: no answer of a worker's at {url} ({type(error).__name__}): is it up, with worker.health_port?"
        )
    finally:
        connection.close()


def words(health: Health, parts: Sequence[str] = ("live", "ready")) -> str:
    """Say it in a line."""
    said = [name if getattr(health, name) else f"not {name}" for name in parts]
    return ", ".join(said) + ("" if not health.reasons else f" \N{EM DASH} {'; '.join(health.reasons)}")
