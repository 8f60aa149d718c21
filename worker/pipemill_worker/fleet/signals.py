"""Signals as something to wait for beside sockets."""

from __future__ import annotations

import signal
import socket
from types import FrameType, TracebackType
from typing import Any, Final, Self

#: Requests to stop.
_REQUESTS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)


class Signals:
    """Takes requests to stop, and wakes whoever selects on it when one comes or a child ends. Main thread only."""

    def __init__(self) -> None:
        self._taken: list[signal.Signals] = []
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._ours, self._theirs = socket.socketpair()
        self._ours.settimeout(0)
        self._theirs.settimeout(0)
        self._wakeup = signal.set_wakeup_fd(self._theirs.fileno(), warn_on_full_buffer=False)
        for number in _REQUESTS:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup
                self._before[number] = signal.signal(number, self._take)
        # Without a handler of Python's, nothing is written to the wakeup socket.
        self._before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
        return self

    def _take(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  # a handler's signature
        self._taken.append(signal.Signals(number))

    def fileno(self) -> int:
        """What to select on."""
        return self._ours.fileno()

    def requests(self) -> list[signal.Signals]:
        """The requests since the last call, in their order."""
        try:
            while self._ours.recv(4_096):
                pass
        except BlockingIOError:  # all read
            pass
        taken, self._taken = self._taken, []
        return taken

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        self._ours.close()
        self._theirs.close()
