"""A lane whose runner continues items together: they join and leave at every step."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pytest

from pipemill.protocol import JobStatus, decode_message, encode_arguments, encode_message
from pipemill.store.base import Leased
from pipemill_worker.engine.work import Entry, Work
from pipemill_worker.seams import JOINS, Item, Prepared
from tests.helpers import until
from tests.unit.engine.rig import QUEUE, Rig, Runner


class Speller:
    """Spells words, a letter a step, at most ``room`` at a time; "stumble" makes a step fail."""

    def __init__(self) -> None:
        self.room = 4
        self.spelling: dict[int, tuple[Item, int]] = {}
        self.most = 0
        self.told: Sequence[tuple[Any, int]] = ()

    @property
    def busy(self) -> bool:
        return bool(self.spelling)

    def offer(self, item: Item) -> bool:
        if item.payload == "stutter":
            message = "it can't be begun"
            raise ValueError(message)
        if len(self.spelling) >= self.room:
            return False
        self.spelling[id(item)] = (item, 0)
        self.most = max(self.most, len(self.spelling))
        return True

    def step(self) -> Sequence[tuple[Item, Any]]:
        if any(item.payload == "stumble" for item, _ in self.spelling.values()):
            message = "stumbled"
            raise RuntimeError(message)
        self.spelling = {key: (item, done + 1) for key, (item, done) in self.spelling.items()}
        self.told = [
            (item.follower, ord(item.payload[done - 1]))
            for item, done in self.spelling.values()
            if item.follower is not None
        ]
        ended = [item for item, done in self.spelling.values() if done >= len(item.payload)]
        self.leave(ended)
        return [(item, f"spelt {item.payload}") for item in ended]

    def leave(self, items: Collection[Item]) -> None:
        for item in items:
            self.spelling.pop(id(item), None)

    def clear(self) -> None:
        self.spelling.clear()


class SpellingRunner(Runner):
    """As the rig's runner, but words are spelt together, unless they are to run apart."""

    def __init__(self) -> None:
        super().__init__()
        self.speller = Speller()
        self.writer = self.speller

    def prepare(self, inputs: Any, parameters: Mapping[str, Any]) -> Prepared:
        prepared = super().prepare(inputs, parameters)
        for item in prepared.items:
            item.group = "apart" if parameters.get("apart") else JOINS
        return prepared


@pytest.fixture
def rig() -> Rig:
    """A broker in memory and a runner that spells."""
    made = Rig()
    made.runner = SpellingRunner()
    return made


def speller_of(rig: Rig) -> Speller:
    """What spells for this rig."""
    assert isinstance(rig.runner, SpellingRunner)
    return rig.runner.speller


def test_items_are_written_together_as_room_allows(rig: Rig) -> None:
    """Ten words in room for four: all are answered, never more than four at a time, by steps only."""
    words = [letter * length for length, letter in enumerate("abcdefghij", start=3)]
    jobs = rig.put(*words)
    with rig.running():
        assert rig.answers(jobs) == [f"spelt {word}" for word in words]
    assert speller_of(rig).most == 4
    assert rig.runner.batches == []


def test_what_cannot_join_runs_beside(rig: Rig) -> None:
    """Jobs that run apart are answered while others are written, and the other way round."""
    joined = rig.put(*(["word"] * 6))
    apart = rig.put("one", "two", parameters={"apart": True})
    with rig.running():
        assert rig.answers(joined) == ["spelt word"] * 6
        assert rig.answers(apart) == ["ONE", "TWO"]


def test_a_step_that_fails_is_redone_alone(rig: Rig) -> None:
    """The items of a step that failed are each run alone, from the beginning: all have an answer."""
    jobs = rig.put("first", "stumble", "poison", "last")
    with rig.running():
        assert rig.answers([jobs[0], jobs[1], jobs[3]]) == ["FIRST", "STUMBLE", "LAST"]
        assert rig.standing(jobs[2]).result is not None
        assert rig.result(jobs[2]).status is JobStatus.FAILED


def test_a_job_that_cannot_be_offered_runs_alone(rig: Rig) -> None:
    """What fails while a job is let in is that job's own affair: it runs alone, its neighbours are written."""
    jobs = rig.put("first", "stutter", "last")
    with rig.running():
        assert rig.answers(jobs) == ["spelt first", "STUTTER", "spelt last"]
    assert rig.runner.batches == [["stutter"]]
    assert rig.hooks.failures == []


def test_who_joins_has_had_its_turn(rig: Rig) -> None:
    """A tenant that wrote much before another came doesn't stand behind it for ever: turns move on as texts join."""
    lane = rig.lane()
    jobs = rig.put("long" * 50, "short", parameters={})
    with rig.running(lane):
        rig.answers(jobs)
    lane.take_out([])
    (late,) = lane.runner.prepare("late", {}).items
    work = Work(Leased("9|0", b""), decode_message(encode_message("late", QUEUE, encode_arguments("late", {})), QUEUE))
    entry = Entry(work, 0, late)
    lane.add([entry])
    assert entry.turn > 0


def test_a_cancelled_job_leaves_at_the_next_step(rig: Rig) -> None:
    """A text without an end stops when its job is cancelled; its neighbour is answered."""
    endless, short = rig.put("x" * 9_000, "word")
    with rig.running() as engine:
        until(lambda: [work for _, work, runs in engine.works() if runs and work.job.id == endless], "it is written")
        rig.hooks.revoked.add(endless)
        assert rig.result(endless).status is JobStatus.CANCELLED
        assert rig.result(short).get() == "spelt word"
        until(lambda: not speller_of(rig).busy, "nothing is written any more")


def test_a_drain_finishes_what_is_written(rig: Rig) -> None:
    """A stop lets texts that were begun come to their end, and gives back those that weren't."""
    jobs = rig.put(*(["word" * 200] * 6))
    with rig.running() as engine:
        until(lambda: speller_of(rig).most, "writing began")
        engine.drain()
    ended = [rig.standing(job).result for job in jobs]
    assert 0 < sum(each is not None for each in ended) <= 6
    assert all(each is None or each.get() == "spelt " + "word" * 200 for each in ended)
