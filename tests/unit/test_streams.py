"""What who follows a job is told, whatever is lost, told twice, or begun anew."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipemill.errors import JobCancelled
from pipemill.protocol import JobStatus, Result, Usage
from pipemill.store.streams import StreamEntry, entry_number, read_entries
from pipemill.streams import StreamEvent, Tail

DONE = Result(job_id="a", status=JobStatus.SUCCEEDED, value="abc", usage=None)


def entries(*said: tuple[str, int, str] | None) -> list[StreamEntry]:
    """A stream: runs, offsets and texts; None for the end."""
    return [
        StreamEntry(id=f"{number}-0", ends=True)
        if each is None
        else StreamEntry(id=f"{number}-0", run=each[0], offset=each[1], text=each[2])
        for number, each in enumerate(said, 1)
    ]


def read(events: Sequence[StreamEvent]) -> str:
    """The text that a reader has in the end."""
    text = ""
    for event in events:
        text = event.text if event.restarted else text + event.text
    return text


def test_pieces_come_in_order() -> None:
    """Each piece is told once, with the id of its entry; the end has the answer and what it took."""
    tail = Tail("a")
    events = tail.take(entries(("1|0", 0, "Hel"), ("1|0", 3, "lo"), None))
    assert [(event.id, event.text, event.restarted) for event in events] == [
        ("1-0", "Hel", False),
        ("2-0", "lo", False),
    ]
    usage = Usage(prompt_tokens=3, completion_tokens=2, finish_reason="stop")
    end = tail.end(Result(job_id="a", status=JobStatus.SUCCEEDED, value="Hello", usage=usage))
    assert (end.ended, end.id, end.result, end.usage, end.restarted) == (True, "3-0", "Hello", usage, False)


def test_another_run_begins_anew() -> None:
    """Runs are never mixed: the first piece of another one says that what was told before is void."""
    events = Tail("a").take(entries(("1|0", 0, "Hel"), ("2|0", 0, "Go"), ("2|0", 2, "od")))
    assert [event.restarted for event in events] == [False, True, False]
    assert read(events) == "Good"


def test_a_run_without_text_begins_anew_too() -> None:
    """An empty text voids what another run had told."""
    events = Tail("a").take(entries(("1|0", 0, "Hel"), ("2|0", 0, "")))
    assert [(event.text, event.restarted) for event in events] == [("Hel", False), ("", True)]


def test_what_is_told_twice_is_taken_once() -> None:
    """A piece told again after a lost reply, longer by now, adds only what is new; so does a whole text."""
    events = Tail("a").take(entries(("1|0", 0, "He"), ("1|0", 0, "Hel"), ("1|0", 3, "lo"), ("1|0", 0, "Hello"), None))
    assert [event.text for event in events] == ["He", "l", "lo"]


def test_what_was_trimmed_is_told_as_a_whole() -> None:
    """Who comes too late for the first entries waits for the next whole text, and goes on from there."""
    events = Tail("a").take(entries(("1|0", 3, "lo"), ("1|0", 0, "Hello y"), ("1|0", 7, "ou")))
    assert [event.text for event in events] == ["Hello y", "ou"]
    assert not any(event.restarted for event in events)


def test_who_resumes_is_told_what_is_new() -> None:
    """Behind an event's id nothing is told twice, and nothing is missed."""
    stream = entries(("1|0", 0, "Hel"), ("1|0", 3, "lo"), ("1|0", 5, " you"))
    events = Tail("a", after="2-0").take(stream)
    assert [(event.text, event.restarted) for event in events] == [(" you", False)]


def test_who_resumes_in_another_run_begins_anew() -> None:
    """What was told of a run that is over is void."""
    stream = entries(("1|0", 0, "Hel"), ("2|0", 0, "Good"))
    assert [(event.text, event.restarted) for event in Tail("a", after="1-0").take(stream)] == [("Good", True)]


def test_who_resumes_after_a_trimmed_event_begins_anew() -> None:
    """When nobody knows any more how far the reader had come, it gets the whole text, and is told so."""
    stream = [
        StreamEntry(id="9-0", run="1|0", offset=5, text=" you"),
        StreamEntry(id="9-1", run="1|0", text="Hello you"),
    ]
    events = Tail("a", after="2-0").take(stream)
    assert [(event.text, event.restarted) for event in events] == [("Hello you", True)]


def test_an_end_that_no_stream_told_voids_its_pieces() -> None:
    """A worker that knows of no streams may have written the answer: pieces of another run aren't passed off as it."""
    tail = Tail("a")
    tail.take(entries(("1|0", 0, "Hel")))
    assert tail.end(DONE).restarted
    untold = Tail("a").end(DONE)
    assert (untold.restarted, untold.id) == (False, "0-0")


def test_a_job_that_ended_otherwise_raises() -> None:
    """The end of a cancelled job is what ``result`` raises."""
    cancelled = Result(job_id="a", status=JobStatus.CANCELLED, error=JobCancelled("the job was cancelled"))
    with pytest.raises(JobCancelled):
        Tail("a").end(cancelled)


@pytest.mark.parametrize("after", ["", "x", "5", "1-2-3", "-1-0", "1-0\n", "9" * 30 + "-0"])
def test_only_events_can_be_resumed_after(after: str) -> None:
    """What is no event's id is told before anything is asked of the broker."""
    with pytest.raises(ValueError, match="id of an event"):
        Tail("a", after=after)


def test_replies_of_both_protocols_are_read() -> None:
    """XREAD answers in two forms; what isn't ours is left out."""
    said = {b"r": b"1|0", b"o": b"3", b"t": "é".encode()}
    found = [(b"1-0", said), (b"2-0", {b"other": b"x"}), (b"3-0", {b"end": b"1"})]
    expected = [StreamEntry(id="1-0", run="1|0", offset=3, text="é"), StreamEntry(id="3-0", ends=True)]
    assert read_entries([[b"key", found]]) == expected
    assert read_entries({b"key": [found]}) == expected
    assert read_entries([]) == read_entries(None) == read_entries({}) == []


@given(st.data())
def test_any_reader_ends_up_with_the_text(data: st.DataObject) -> None:
    """Whatever runs there were, whatever was told twice or trimmed, wherever a reader left off: the text is right."""
    stream: list[tuple[str, int, str]] = []
    text = ""
    for run in range(data.draw(st.integers(1, 3))):
        text = ""
        for _ in range(data.draw(st.integers(1, 6))):
            start = data.draw(st.integers(0, len(text)))
            text += data.draw(st.text("abcé", min_size=0 if text else 1, max_size=3))
            stream.append((f"{run}|0", start, text[start:]))
    stream.append((stream[-1][0], 0, text))
    told = entries(*stream, None)
    first = Tail("a").take(told[: data.draw(st.integers(0, len(told)))])
    kept = told[data.draw(st.integers(0, len(stream) - 1)) :]
    after = first[-1].id if first else None
    rest = Tail("a", after=after).take(kept)
    assert read([*first, *rest]) == text
    assert all(entry_number(event.id) > entry_number(after or "0-0") for event in rest)
