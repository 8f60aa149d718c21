"""The accountant, the schedule and the slope: what proves the product is itself proven."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from pipemill.errors import InferenceFailed
from pipemill.protocol import encode_failure, encode_success
from tests.faults.accounting import Leftovers, Sightings, alike, settle
from tests.faults.material import ECHO, LARGE, Material
from tests.faults.schedule import Kind, allowed, schedule
from tests.faults.slope import trend

GOOD = {"a": encode_success("a", "x"), "b": encode_success("b", [{"label": "L", "score": 0.5}])}
EXPECTED = {"a": "x", "b": [{"label": "L", "score": 0.50000001}]}


def heard(**documents: bytes) -> Sightings:
    """What was published, once each."""
    seen = Sightings()
    for job_id, document in documents.items():
        seen.hear(job_id, document)
    return seen


def test_an_account_balances() -> None:
    """Each job has its one right end, and nothing is left."""
    account = settle(EXPECTED, heard(**GOOD), GOOD, Leftovers())
    assert account.balanced
    assert account.ended == {"succeeded": 2}
    assert (account.submitted, account.unheard) == (2, 0)


def test_a_lost_job_is_named() -> None:
    """A job without a result, or with one that is no end, is lost."""
    started = b'{"status": "STARTED", "result": null}'
    for stored in (None, started):
        account = settle(EXPECTED, Sightings(), GOOD | {"a": stored}, Leftovers())
        assert account.lost == ["a"]
        assert not account.balanced
        assert account.figures()["named"] == {"lost": ["a"]}


@pytest.mark.parametrize(
    "document", [encode_success("a", "y"), encode_success("a", None), encode_failure("a", InferenceFailed("no"))]
)
def test_a_wrong_end_is_named(document: bytes) -> None:
    """Another answer than the expected one is wrong, and so is a failure."""
    account = settle(EXPECTED, Sightings(), GOOD | {"a": document}, Leftovers())
    assert account.wrong == ["a"]
    assert not account.balanced


def test_a_changed_end_is_named() -> None:
    """A result that was seen to differ, or is stored otherwise than seen, has changed, even if it says the same."""
    again = GOOD["a"].replace(b'"traceback":null', b'"traceback": null')
    assert again != GOOD["a"]
    assert settle(EXPECTED, heard(**GOOD), GOOD | {"a": again}, Leftovers()).changed == ["a"]
    seen = heard(**GOOD)
    seen.note("a", again)
    account = settle(EXPECTED, seen, GOOD, Leftovers())
    assert account.changed == ["a"]
    assert not account.balanced


def test_a_second_end_is_named() -> None:
    """A result published twice, even the same, and one that nobody asked for, don't balance."""
    seen = heard(**GOOD)
    seen.hear("a", GOOD["a"])
    assert settle(EXPECTED, seen, GOOD, Leftovers()).repeated == ["a"]
    account = settle({"a": "x"}, heard(**GOOD), GOOD, Leftovers())
    assert account.strangers == ["b"]
    assert not account.balanced


def test_what_is_left_doesnt_balance() -> None:
    """Anything in a lease, an inbox, a list or a record spoils the account."""
    for name in Leftovers.__dataclass_fields__:
        assert not settle(EXPECTED, heard(**GOOD), GOOD, Leftovers(**{name: 1})).balanced


def test_an_account_of_nothing_doesnt_balance() -> None:
    """A run that submitted nothing has proven nothing."""
    assert not settle({}, Sightings(), {}, Leftovers()).balanced


@pytest.mark.parametrize(
    ("answer", "expected", "same"),
    [
        (0.5, 0.50009, True),
        (0.5, 0.5002, False),
        ({"a": [1.0]}, {"a": [1.00001]}, True),
        ({"a": 1}, {"b": 1}, False),
        ([1], [1, 1], False),
        (True, 1, False),
        ("a", "a", True),
        ("a", None, False),
        (1, 1.0, True),
    ],
)
def test_answers_are_compared(answer: object, expected: object, same: bool) -> None:  # noqa: FBT001  # a parameter of pytest
    """Discrete values are equal, floats within 1e-4."""
    assert alike(answer, expected) is same


def test_a_schedule_is_drawn_from_its_seed() -> None:
    """The same seed gives the same faults, in order, as many of each kind as asked for, amid the jobs."""
    counts = {Kind.KILL: 60, Kind.TERM: 20, Kind.RESTART: 10}
    faults = schedule(7, 1_000, counts)
    assert faults == schedule(7, 1_000, counts)
    assert faults != schedule(8, 1_000, counts)
    assert Counter(fault.kind for fault in faults) == counts
    moments = [fault.at for fault in faults]
    assert moments == sorted(moments)
    assert 50 <= moments[0] <= moments[-1] <= 900
    assert {fault.victim(3) for fault in faults} == {0, 1, 2}


def test_jobs_are_fed_as_they_end() -> None:
    """Never more on their way than the backlog, never more than there are, nor ahead of a given pace."""
    assert allowed(jobs=1_000, ended=0, backlog=100) == 100
    assert allowed(jobs=1_000, ended=850, backlog=100) == 950
    assert allowed(jobs=1_000, ended=950, backlog=100) == 1_000
    assert allowed(jobs=1_000, ended=400, backlog=100, paced=0.25) == 250


def test_material_has_known_answers() -> None:
    """Each job has a key of its own and its answer beside it; some are large; the same seed draws the same."""
    known = {"sentiment": [("good", "POSITIVE"), ("bad", "NEGATIVE")]}
    shares = {"echo": 0.5, "sentiment": 0.5}
    material, again = Material(3, shares, known), Material(3, shares, known)
    chunks = [material.chunk(50) for _ in range(20)]
    assert chunks == [again.chunk(50) for _ in range(20)]
    assert {chunk.queue for chunk in chunks} == {"echo", "sentiment"}
    keys = [key for chunk in chunks for key in chunk.keys]
    assert len(set(keys)) == len(keys) == 1_000
    for chunk in chunks:
        pairs = list(zip(chunk.inputs, chunk.answers, strict=True))
        assert all(pair in known["sentiment"] or pair[0] == pair[1] for pair in pairs)
    assert Material(3, ECHO, {}).chunk(1).inputs[0].startswith(LARGE)


def test_a_slope_is_that_of_the_second_half() -> None:
    """What grows only in the first half is flat; a steady gain is told by the hour."""
    level = [(float(second), min(second, 50.0)) for second in range(100)]
    flat = trend(level)
    assert (flat.mean, flat.least, flat.most) == (50.0, 50.0, 50.0)
    assert flat.per_hour == pytest.approx(0.0, abs=1e-6)
    growing = trend([(second, 100 + second / 36) for second in range(0, 1_000, 10)])
    assert growing.per_hour == pytest.approx(100.0)
    assert growing.percent_per_hour == pytest.approx(100.0 / growing.mean * 100)


def test_a_slope_needs_samples() -> None:
    """One sample has no slope, and none is a mistake."""
    assert math.isnan(trend([(0.0, 1.0)]).per_hour)
    with pytest.raises(ValueError, match="no sample"):
        trend([])
