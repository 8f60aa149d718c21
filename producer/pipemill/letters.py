"""What both clients do with dead letters: look, replay, drop. Reached as ``client.dead``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NoReturn

from pipemill import jobs, replies
from pipemill.errors import QueueFull, UnknownJob
from pipemill.store.base import AsyncQueueStore, QueueReport, QueueStore
from pipemill.store.dead import BOUNDS, DeadLetter, Replay, ReplayCode

#: Dead letters replayed or dropped by one script, so that none keeps the server from others for long.
AT_ONCE: Final = 100
#: Ids that an error names.
SHOWN: Final = 5

_WHY: Final = {
    ReplayCode.UNKNOWN: "no such dead letter (replayed before, dropped, or too old)",
    ReplayCode.ENDED: "the job has ended otherwise since: drop its letter",
}


class DeadLetters:
    """The jobs that were given up, by queue."""

    def __init__(self, store: QueueStore):
        self._store = store

    def latest(self, queue: str, limit: int = 100) -> list[DeadLetter]:
        """The last dead letters of a queue, the latest first, without their messages and histories.

        Raises
        ------
        UnknownQueue
            When nobody announced the queue.

        """
        jobs.check_queue(queue)
        letters = self._store.dead_letters(queue, limit)
        if not letters and self._store.info(queue) is None:
            _refuse_queue(queue, self._store.reports())
        return letters

    def show(self, queue: str, job_id: str) -> DeadLetter:
        """One dead letter with its history; its ``arguments()`` are the inputs and parameters.

        Raises
        ------
        UnknownJob
            When there is no such letter.

        """
        letter = self._store.dead_letter(queue, job_id)
        if letter is None:
            raise _unknown(queue, [job_id], "")
        return letter

    def replay(self, queue: str, job_ids: Iterable[str] | None = None) -> list[str]:
        """Put dead letters back into their queue under their ids, all of them without ``job_ids``; those that wait now.

        They count as delivered and tried never before, and their failures are forgotten: whoever asks is told that they
        are queued. A letter that is back already is no error.

        Raises
        ------
        UnknownQueue
            When nobody announced the queue.
        QueueFull
            When not all fit; ``accepted`` has the ids of those that did.
        UnknownJob
            When there is no such letter, or its job has ended otherwise since; all others were replayed.

        """
        gathered = _Replayed(queue, self._wanted(queue, job_ids))
        for part in gathered.parts:
            replay = self._store.replay(queue, part)
            if replay is None:
                _refuse_queue(queue, self._store.reports())
            gathered.note(part, replay)
        return gathered.waiting()

    def drop(self, queue: str, job_ids: Iterable[str] | None = None) -> int:
        """Forget dead letters, all of them without ``job_ids``; how many.

        Raises
        ------
        UnknownJob
            When there is no such letter; all others were dropped.

        """
        wanted = self._wanted(queue, job_ids)
        there = [found for part in _parts(wanted) for found in self._store.drop(queue, part)]
        return _dropped(queue, wanted, there, strict=job_ids is not None)

    def _wanted(self, queue: str, job_ids: Iterable[str] | None) -> Sequence[str]:
        if job_ids is not None:
            return list(dict.fromkeys(job_ids))
        return _oldest_first(self.latest(queue, BOUNDS.letters))


class AsyncDeadLetters:
    """``DeadLetters`` for asyncio."""

    def __init__(self, store: AsyncQueueStore):
        self._store = store

    async def latest(self, queue: str, limit: int = 100) -> list[DeadLetter]:
        """The last dead letters of a queue, as ``DeadLetters.latest``."""
        jobs.check_queue(queue)
        letters = await self._store.dead_letters(queue, limit)
        if not letters and await self._store.info(queue) is None:
            _refuse_queue(queue, await self._store.reports())
        return letters

    async def show(self, queue: str, job_id: str) -> DeadLetter:
        """One dead letter with its history, as ``DeadLetters.show``."""
        letter = await self._store.dead_letter(queue, job_id)
        if letter is None:
            raise _unknown(queue, [job_id], "")
        return letter

    async def replay(self, queue: str, job_ids: Iterable[str] | None = None) -> list[str]:
        """Put dead letters back into their queue, as ``DeadLetters.replay``."""
        gathered = _Replayed(queue, await self._wanted(queue, job_ids))
        for part in gathered.parts:
            replay = await self._store.replay(queue, part)
            if replay is None:
                _refuse_queue(queue, await self._store.reports())
            gathered.note(part, replay)
        return gathered.waiting()

    async def drop(self, queue: str, job_ids: Iterable[str] | None = None) -> int:
        """Forget dead letters, as ``DeadLetters.drop``."""
        wanted = await self._wanted(queue, job_ids)
        there = [found for part in _parts(wanted) for found in await self._store.drop(queue, part)]
        return _dropped(queue, wanted, there, strict=job_ids is not None)

    async def _wanted(self, queue: str, job_ids: Iterable[str] | None) -> Sequence[str]:
        if job_ids is not None:
            return list(dict.fromkeys(job_ids))
        return _oldest_first(await self.latest(queue, BOUNDS.letters))


class _Replayed:
    """What became of the letters of one call."""

    def __init__(self, queue: str, wanted: Sequence[str]):
        self._queue = queue
        self._wanted = wanted
        self._codes: dict[str, ReplayCode] = {}

    @property
    def parts(self) -> Iterable[Sequence[str]]:
        """The ids, in as many as a script takes; none after the queue is full."""
        for part in _parts(self._wanted):
            if ReplayCode.FULL in self._codes.values():
                return
            yield part

    def note(self, part: Sequence[str], replay: Replay) -> None:
        """Keep what became of a part."""
        self._codes.update(zip(part, replay.codes, strict=True))

    def waiting(self) -> list[str]:
        """The ids of those that are in the queue now; raises for all others."""
        back = [each for each, code in self._codes.items() if code in {ReplayCode.DONE, ReplayCode.WAITS}]
        for code, why in _WHY.items():
            if refused := [each for each, found in self._codes.items() if found is code]:
                raise _unknown(self._queue, refused, _others(len(back), "are back in the queue"), why)
        if len(back) < len(self._wanted):
            raise QueueFull(
                f"queue {self._queue!r} is full: {len(back)} of {len(self._wanted)} dead letters are back in it; "
                "replay the others once it has room, or raise the queue's limits.max_depth in the catalogue",
                replies.UNKNOWN_RATE_SECONDS,
                tuple(back),
            )
        return back


def _parts(job_ids: Sequence[str]) -> list[Sequence[str]]:
    return [job_ids[start : start + AT_ONCE] for start in range(0, len(job_ids), AT_ONCE)]


def _oldest_first(letters: Sequence[DeadLetter]) -> list[str]:
    return [letter.id for letter in reversed(letters)]


def _dropped(queue: str, wanted: Sequence[str], there: Sequence[bool], *, strict: bool) -> int:
    gone = [job_id for job_id, found in zip(wanted, there, strict=True) if not found]
    if gone and strict:
        raise _unknown(queue, gone, _others(len(wanted) - len(gone), "were dropped"))
    return len(wanted) - len(gone)


def _others(count: int, done: str) -> str:
    return f"; {count} others {done}" if count else ""


def _unknown(queue: str, job_ids: Sequence[str], more: str, why: str = _WHY[ReplayCode.UNKNOWN]) -> UnknownJob:
    shown = ", ".join(map(jobs.cut, job_ids[:SHOWN])) + (", …" if len(job_ids) > SHOWN else "")
    return UnknownJob(f"queue {queue!r}, {shown}: {why}{more}; `pipemill dead list {queue}` shows what there is")


def _refuse_queue(queue: str, reports: Iterable[QueueReport]) -> NoReturn:
    raise replies.unknown_queue(queue, [report.info.name for report in reports], has_catalogue=False)
