"""The file and the port of one process, from before its models load until it ends."""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from pipemill.errors import ConfigurationError
from pipemill.health import Health, clear, write_health
from pipemill_worker.health.server import HealthServer

log = logging.getLogger("pipemill.worker")

#: Time between two writes of the file, in seconds: a heartbeat's.
WRITE_SECONDS: Final = 1.0
#: How long the thread that writes may take to end, in seconds; a disk that hangs must not keep the process.
END_SECONDS: Final = 1.0


class HealthSettings(Protocol):
    """Where the catalogue wants it told."""

    @property
    def health_file(self) -> str | None:
        """The file to write, or none."""
        ...

    @property
    def health_port(self) -> int | None:
        """The port to open, or none."""
        ...

    @property
    def health_host(self) -> str:
        """The address at which to open it."""
        ...


def report_health(settings: HealthSettings, look: Callable[[], Health]) -> Reporter:
    """Tell how this process is, from now until it ends.

    Raises
    ------
    ConfigurationError
        When the file can't be written, or the port can't be opened.

    """
    reporter = Reporter(look, settings)
    atexit.register(reporter.close)
    reporter.start()
    return reporter


class Reporter:
    """Tells how this process is, in threads that never keep it alive. ``start`` it once, ``close`` it at the end."""

    def __init__(self, look: Callable[[], Health], settings: HealthSettings):
        self._look = look
        self._file = Path(settings.health_file) if settings.health_file else None
        self._server: HealthServer | None = None
        self._settings = settings
        self._closed = threading.Event()
        self._writer: threading.Thread | None = None
        #: What went wrong last, so that it is logged once and not every second.
        self._trouble = ""

    def start(self) -> None:
        """Open the port and write the file.

        Raises
        ------
        ConfigurationError
            When the file can't be written, or the port can't be opened.

        """
        if self._settings.health_port is not None:
            self._server = HealthServer(self.look, self._settings.health_host, self._settings.health_port)
            self._server.start()
        if self._file is not None:
            try:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                clear(self._file)
                write_health(self._file, self.look())
            except OSError as error:
                raise ConfigurationError(
                    f"worker.health_file: {self._file} can't be written ({error.strerror or error}): name a file in a "
                    "folder where the worker may write"
                ) from error
            self._writer = threading.Thread(target=self._write, args=(self._file,), name="health-file", daemon=True)
            self._writer.start()

    def look(self) -> Health:
        """How the process is; a look that fails is told, since nothing can be said for the process then."""
        try:
            return self._look()
        except Exception as error:  # noqa: BLE001  # whatever it is, who asks must hear of it
            self._note(f"how this worker is can't be told: {type(error).__name__}: {error}")
            return Health(live=False, ready=False, reasons=(f"health: it can't be told ({type(error).__name__})",))

    def _write(self, file: Path) -> None:
        while not self._closed.wait(WRITE_SECONDS):
            try:
                write_health(file, self.look())
            except OSError as error:
                self._note(f"worker.health_file: {file} can't be written ({error.strerror or error}): make room for it")

    def _note(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            log.error("%s", trouble, extra={"event": "health_untold"})

    def close(self) -> None:
        """Close the port and remove the file: who has ended isn't live. Closing again does nothing."""
        self._closed.set()
        if self._server is not None:
            self._server.close()
        if self._writer is not None and self._file is not None:
            self._writer.join(END_SECONDS)
            self._file.unlink(missing_ok=True)
