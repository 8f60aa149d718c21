"""What was measured on this machine, kept between starts: one JSON file for each thing measured.

A file's name holds the digest of all that the measurement depends on (model, revision, device, versions), so that a
change of any of them measures anew. What can't be read or written is measured again; it never stops a worker.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

log = logging.getLogger("pipemill.worker")

#: Changes when files of an older release can't be used any more.
FORMAT: Final = 1

#: Hex digits of a digest in a file's name.
_DIGITS: Final = 16


def default_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where measurements lie unless the catalogue says: ``pipemill`` in the user's cache folder (XDG)."""
    base = environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "pipemill"


class Measured:
    """A folder of measurements."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._warned = False

    def path(self, kind: str, key: Mapping[str, Any]) -> Path:
        """The file of one measurement."""
        text = json.dumps({"format": FORMAT, **key}, sort_keys=True)
        return self.folder / f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]}.json"

    def read(self, kind: str, key: Mapping[str, Any]) -> Any | None:
        """What was measured before under this very key, as JSON; ``None`` if nothing was."""
        try:
            document = json.loads(self.path(kind, key).read_text("utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            self._warn("read", error)
            return None
        return document.get("value") if isinstance(document, dict) and document.get("key") == dict(key) else None

    def write(self, kind: str, key: Mapping[str, Any], value: Any) -> None:
        """Keep what was measured; other workers that start at the same time see the old file or the new one, whole."""
        path = self.path(kind, key)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(
                "w", encoding="utf-8", dir=self.folder, prefix=f".{path.name}.", delete=False
            ) as file:
                json.dump({"key": dict(key), "value": value}, file, indent=1)
            Path(file.name).replace(path)
        except OSError as error:
            self._warn("written", error)

    def _warn(self, what: str, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            log.warning(
                "measurements can't be %s in %s (%s); they are made again at each start. "
                "Give workers a folder of their own: worker.cache_dir",
                what,
                self.folder,
                type(error).__name__,
                extra={"event": "measurements_unavailable"},
            )
