"""Dead letters in memory: the same bounds and answers as those in Redis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pipemill.protocol import JobStatus, decode_result, message_id, names
from pipemill.protocol.history import encode_letter
from pipemill.store import dead
from pipemill.store.dead import DeadLetter, Replay, ReplayCode
from pipemill.store.lists import Waiting

if TYPE_CHECKING:
    from pipemill.store.memory import MemoryBroker

#: What a letter takes beside its parts, in bytes, as ``complete.lua`` counts it.
_OVERHEAD: Final = 100


@dataclass(slots=True)
class Buried:
    """A letter as it is kept."""

    at: float
    step: int
    raw: bytes
    says: bytes
    payload: bytes | None
    history: list[bytes]

    @property
    def size(self) -> int:
        """Bytes kept of it."""
        return len(self.raw) + len(self.says) + len(self.payload or b"") + sum(map(len, self.history)) + _OVERHEAD


class MemoryLetters:
    """The dead letters of one queue, oldest first."""

    def __init__(self, queue: str, now: Callable[[], float]):
        self._queue = queue
        self._now = now
        self._kept: dict[str, Buried] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def bury(self, letter_id: str, letter: Buried) -> None:
        """Keep a letter; the oldest go while there are too many, too large or too old ones."""
        letter.says = letter.says or encode_letter()
        self._kept.pop(letter_id, None)
        self._kept[letter_id] = letter
        bounds = dead.BOUNDS
        while self._kept:
            oldest = next(iter(self._kept))
            size = sum(each.size for each in self._kept.values())
            fits = len(self._kept) <= bounds.letters and size <= bounds.size
            if fits and self._kept[oldest].at + bounds.seconds > self._now():
                return
            del self._kept[oldest]

    def get(self, letter_id: str) -> Buried | None:
        """A letter that isn't too old."""
        letter = self._kept.get(letter_id)
        return letter if letter and letter.at + dead.BOUNDS.seconds > self._now() else None

    def latest(self, limit: int) -> list[DeadLetter]:
        """The last letters, the latest first, as a list shows them."""
        young = [(letter_id, letter) for letter_id in reversed(self._kept) if (letter := self.get(letter_id))]
        return dead.read_list(self._queue, [part for each in young[:limit] for part in _listed(*each)])

    def whole(self, letter_id: str) -> DeadLetter | None:
        """One letter with all that belongs to it."""
        letter = self.get(letter_id)
        if letter is None:
            return None
        stored = _listed(letter_id, letter)[1] + b"\n" + letter.raw
        return dead.read_whole(self._queue, letter_id, stored, letter.history, letter.payload)

    def drop(self, letter_id: str) -> bool:
        """Forget a letter; whether it was there."""
        return self._kept.pop(letter_id, None) is not None


def _listed(letter_id: str, letter: Buried) -> tuple[bytes, bytes]:
    head = b'{"at":%.3f,"size":%d,"step":%d,' % (letter.at, letter.size, letter.step)
    return letter_id.encode(), head + letter.says[1:]


class MemoryDeadLetters:
    """What a producer's view of the broker in memory has of dead letters."""

    def __init__(self, broker: MemoryBroker):
        self._broker = broker

    def dead_letters(self, queue: str, limit: int) -> list[DeadLetter]:
        """The last dead letters, the latest first."""
        with self._broker.changed:
            return self._broker.queue(queue).dead.latest(limit)

    def dead_letter(self, queue: str, letter_id: str) -> DeadLetter | None:
        """One dead letter, whole."""
        with self._broker.changed:
            return self._broker.queue(queue).dead.whole(letter_id)

    def replay(self, queue: str, letter_ids: Sequence[str]) -> Replay | None:
        """Put dead letters back into their queue; None when the queue is unknown."""
        with self._broker.changed:
            if queue not in self._broker.announced:
                return None
            there = self._broker.queue(queue)
            depth, codes = there.depth, [self._replay(there, letter_id) for letter_id in letter_ids]
            self._broker.changed.notify_all()
            return Replay(codes=codes, depth=depth, max_depth=there.info.max_depth)

    def _replay(self, queue: Any, job_id: str) -> ReplayCode:
        broker, letter = self._broker, queue.dead.get(job_id)
        result = decode_result(job_id, broker.results[job_id]) if job_id in broker.results else None
        if job_id in broker.records:
            return ReplayCode.WAITS
        if letter is None:
            return ReplayCode.UNKNOWN
        if result is not None and result.status is not JobStatus.FAILED:
            return ReplayCode.ENDED
        if queue.depth >= queue.info.max_depth:
            return ReplayCode.FULL
        index, waiting, fair = names.PRIORITY_STEPS.index(letter.step), Waiting(letter.raw), queue.info.fair
        queue.lists.add(index, waiting, fair=fair)
        ordinal = queue.totals.get("taken", 0) + queue.lists.ahead(index, waiting, queue.depth, fair=fair)
        queue.dead.drop(job_id)
        queue.count("replayed")
        if message_id(letter.raw) == job_id:
            broker.results.pop(job_id, None)
            broker.records[job_id] = ("q", ordinal, queue.info.name)
            broker.histories[job_id] = letter.history
            broker.note(job_id, dead.REPLAY)
            if letter.payload is not None:
                broker.payloads[job_id] = letter.payload
        return ReplayCode.DONE

    def drop(self, queue: str, letter_ids: Sequence[str]) -> list[bool]:
        """Forget dead letters; whether each was there."""
        with self._broker.changed:
            return [self._broker.queue(queue).dead.drop(letter_id) for letter_id in letter_ids]
