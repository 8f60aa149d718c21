"""Texts told while they are written: by a lane whose runner spells words, letter by letter."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NoReturn

import pytest

from pipemill.protocol import JobStatus, Usage, decode_message
from pipemill.store.memory import MemoryJobStore
from pipemill.store.streams import WHOLE_EVERY, Piece, StreamEntry
from pipemill.streams import Tail
from pipemill_worker.engine import Lane
from pipemill_worker.engine.streams import Stream
from pipemill_worker.engine.work import End, Entry, Work
from pipemill_worker.engine.writing import Writing
from pipemill_worker.seams import Account, Prepared, Speller
from tests.helpers import until
from tests.unit.engine.rig import QUEUE, Outage, Rig
from tests.unit.engine.test_writing import SpellingRunner, speller_of

FOLLOWED = {"stream": True}


class TellingRunner(SpellingRunner):
    """Tells words as it spells them; "silent" ones only at their end, and "liar" isn't what it told.

    It can't spell "unspellable" at all, and stumbles over the "z" of "puzzle": neither ends before that was seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stumbled = {"unspellable": threading.Event(), "puzzle": threading.Event()}

    def spelling(self, prepared: Prepared) -> Speller | None:
        if prepared.state == "unspellable":
            self._stumble("unspellable")
        if prepared.state == "puzzle":
            return lambda token: self._stumble("puzzle") if chr(token) == "z" else chr(token)
        return None if prepared.state.startswith("silent") else chr

    def finish(self, prepared: Prepared, outputs: Sequence[Any]) -> Any:
        if prepared.state in self.stumbled:
            assert self.stumbled[prepared.state].wait(30)
        return super().finish(prepared, outputs)

    def _stumble(self, over: str) -> NoReturn:
        self.stumbled[over].set()
        raise ValueError(over)

    def account(self, prepared: Prepared, outputs: Sequence[Any], *, followed: bool) -> Account:  # noqa: ARG002  # the seam's
        if prepared.state.startswith("unaccountable"):
            message = "nobody knows"
            raise ValueError(message)
        usage = Usage(prompt_tokens=1, completion_tokens=len(prepared.state), finish_reason="stop")
        text = "truth" if prepared.state.startswith("liar") else prepared.state
        return Account(usage=usage, text=text if followed else None)


@pytest.fixture
def rig() -> Rig:
    """A broker in memory and a runner that tells."""
    made = Rig()
    made.runner = TellingRunner()
    return made


def told(rig: Rig, job_id: str) -> list[StreamEntry]:
    """A job's stream, once it has ended."""
    until(lambda: rig.standing(job_id).result, f"job {job_id} ends")
    return rig.producer.read_stream(job_id, "0-0", 0.0)


def text_of(entries: Sequence[StreamEntry]) -> str:
    """What a reader has in the end."""
    text = ""
    for event in Tail("a").take(entries):
        text = event.text if event.restarted else text + event.text
    return text


def test_words_are_told_as_they_are_spelt(rig: Rig) -> None:
    """Each job's pieces joined are its text, the end comes last; jobs that nobody follows have no stream."""
    followed = rig.put(*(letter * length for length, letter in enumerate("abcdefgh", start=3)), **FOLLOWED)
    others = rig.put("alone", "quiet")
    with rig.running():
        for job_id in followed:
            entries = told(rig, job_id)
            assert text_of(entries) == job_id.partition("-")[2]
            assert [each.ends for each in entries] == [False] * (len(entries) - 1) + [True]
        assert rig.answers(others) == ["spelt alone", "spelt quiet"]
    assert not rig.broker.streams.keys() & set(others)


def test_what_is_told_at_the_end_only(rig: Rig) -> None:
    """A word that can't be told by letters, one that runs apart, one in several parts, and none at all."""
    silent, *_ = rig.put("silently", **FOLLOWED)
    apart, *_ = rig.put("apart", parameters={"apart": True}, **FOLLOWED)
    several, *_ = rig.put("two words", **FOLLOWED)
    with rig.running():
        assert [(each.text, each.ends) for each in told(rig, silent)] == [("silently", False), ("", True)]
        assert [(each.text, each.ends) for each in told(rig, apart)] == [("apart", False), ("", True)]
        assert [(each.text, each.ends) for each in told(rig, several)] == [("two words", False), ("", True)]


def test_a_text_that_can_not_be_spelt_is_told_whole(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """A speller that fails, at once or midway, mutes its own text until the end; its neighbours are told on."""
    unspellable, puzzle, fine = rig.put("unspellable", "puzzle", "fine", **FOLLOWED)
    with caplog.at_level(logging.WARNING), rig.running():
        assert [(each.text, each.ends) for each in told(rig, unspellable)] == [("unspellable", False), ("", True)]
        assert text_of(told(rig, puzzle)) == "puzzle"
        assert text_of(told(rig, fine)) == "fine"
    muted = [record.job for record in caplog.records if getattr(record, "event", "") == "stream_muted"]
    assert sorted(muted) == sorted([unspellable, puzzle])


def test_a_text_that_was_told_wrongly_begins_anew(rig: Rig) -> None:
    """When the answer isn't what was told, the stream says so instead of ending with another text."""
    (job_id,) = rig.put("liar" * 30, **FOLLOWED)
    with rig.running():
        assert text_of(told(rig, job_id)) == "truth"


def test_a_step_that_fails_begins_the_text_anew(rig: Rig) -> None:
    """Words that are redone alone are told to their end, right; the culprit's stream ends, too."""
    first, stumbling, poison = rig.put("first" * 10, "stumble", "poison", **FOLLOWED)
    with rig.running():
        assert text_of(told(rig, first)) == "first" * 10
        assert text_of(told(rig, stumbling)) == "stumble"
        assert told(rig, poison)[-1].ends
        assert rig.result(poison).status is JobStatus.FAILED


def test_what_took_the_answer_is_told_with_it(rig: Rig) -> None:
    """Every job's result says it, followed or not; a job whose account fails has its answer without."""
    plain, unaccountable = rig.put("word", "unaccountable")
    with rig.running():
        assert rig.result(plain).usage == Usage(prompt_tokens=1, completion_tokens=4, finish_reason="stop")
        assert (rig.result(unaccountable).get(), rig.result(unaccountable).usage) == ("spelt unaccountable", None)


class Mute(Outage):
    """A store that tells nothing while ``down`` is set, and does all else."""

    def __getattr__(self, name: str) -> Any:
        return super().__getattr__(name) if name == "emit" else getattr(self._store, name)


def test_what_the_broker_does_not_take_is_told_later(rig: Rig) -> None:
    """The device goes on and nothing is lost: what couldn't be told comes as one piece, with the end at last."""
    mute = Mute(MemoryJobStore(rig.broker, QUEUE, lease_seconds=60.0))
    mute.down.set()
    (job_id,) = rig.put("x" * 4_000, **FOLLOWED)
    with rig.running(rig.lane(store=mute)) as engine:  # type: ignore[arg-type]  # it has what the other has
        assert [(len(each.text), each.ends) for each in told(rig, job_id)] == [(4_000, False), (0, True)]
        assert engine.alive


def test_a_cancelled_word_is_told_no_further(rig: Rig) -> None:
    """Its stream ends with it; its neighbour's goes on."""
    endless, short = rig.put("x" * 9_000, "word", **FOLLOWED)
    with rig.running():
        until(lambda: rig.broker.streams.get(endless), "something is told")
        rig.producer.cancel(endless)
        until(lambda: rig.broker.streams[endless][-1].ends, "its stream ends")
        assert text_of(told(rig, short)) == "word"
        assert len(text_of(rig.broker.streams[endless])) < 9_000


def test_a_word_of_a_dead_worker_begins_anew(rig: Rig) -> None:
    """What was told under a lease that ran out is void: the next worker tells all of it, letter by letter."""
    (job_id,) = rig.put("word" * 20, **FOLLOWED)
    dead = MemoryJobStore(rig.broker, QUEUE, lease_seconds=5.0)
    (leased,) = dead.take(1).jobs
    dead.emit([Piece(field=leased.field, job_id=job_id, run=leased.field, offset=0, text="wor")])
    rig.broker.advance(60)
    with rig.running():
        entries = told(rig, job_id)
    assert [event.restarted for event in Tail("a").take(entries)][:2] == [False, True]
    assert text_of(entries) == "word" * 20
    assert len({each.run for each in entries if not each.ends}) == 2
    assert rig.runner.batches == []


class Idle:
    """A device that runs nothing apart."""

    def run_batch(self, lane: Lane, batch: Sequence[Entry]) -> list[End]:
        raise AssertionError(f"{lane.name}: {len(batch)} items run apart")

    def watching(self, lane: Lane, batch: Sequence[Entry]) -> AbstractContextManager[None]:  # noqa: ARG002  # as it is called
        return nullcontext()


def test_the_cancelled_get_no_further_token(rig: Rig) -> None:
    """Of fifty words that are told, twenty are cancelled: the very next step ends them and tells the others on."""
    ids, lane = rig.put(*(["word" * 9] * 50), **FOLLOWED), rig.lane()
    speller = speller_of(rig)
    speller.room = 50
    writing = Writing(lane, speller, lambda _: False, Idle())
    works = [Work(leased, decode_message(leased.raw, QUEUE)) for leased in lane.store.take(50).jobs]
    lane.add([entry for work in works for entry in work.set_prepared(lane.runner.prepare(work.job.inputs, {}))])
    assert [writing.turn() for _ in range(3)] == [[], [], []]
    assert [len(lane.streams.news.get_nowait() or ()) for _ in range(3)] == [50, 50, 50]
    lane.note_cancelled(ids[:20])
    assert {end.work.job.id for end in writing.turn()} == set(ids[:20])
    assert {work.job.id for work, _ in lane.streams.news.get_nowait() or ()} == set(ids[20:])


def spelling(text: str) -> Stream:
    """A stream by which a text was told, letter by letter."""
    stream = Stream("1|0", "a")
    for letter in text:
        stream.unsaid += letter
        stream.say()
    return stream


def test_the_whole_text_is_told_now_and_then() -> None:
    """Among as many entries as are kept, there is always one with the whole text so far."""
    stream, wholes = spelling(""), []
    for number in range(3 * WHOLE_EVERY):
        stream.unsaid += "x"
        piece = stream.say()
        assert piece.offset + len(piece.text) == number + 1
        if piece.offset == 0:
            wholes.append(number)
    assert wholes == [0, *range(WHOLE_EVERY - 1, 3 * WHOLE_EVERY, WHOLE_EVERY)]


@pytest.mark.parametrize(
    ("said", "text", "expected"),
    [
        ("", "abc", ("1|0", 0, "abc")),
        ("", "", ("1|0", 0, "")),
        ("ab", "abc", ("1|0", 2, "c")),
        ("abc", "abc", None),
        ("abd", "abc", ("1|0!", 0, "abc")),
        ("abcd", "abc", ("1|0!", 0, "abc")),
        ("ab", None, None),
    ],
)
def test_the_last_piece(said: str, text: str | None, expected: tuple[str, int, str] | None) -> None:
    """It is what is missing; or the whole text in another run, if what was told isn't its beginning."""
    stream = spelling(said)
    piece = stream.last(text)
    assert (None if piece is None else (piece.run, piece.offset, piece.text)) == expected
    assert stream.ended
