"""What a job's history says, and how it is written."""

from __future__ import annotations

import orjson
from hypothesis import given
from hypothesis import strategies as st

from pipemill.protocol import Incident, IncidentKind
from pipemill.protocol.history import (
    LETTER_CHARACTERS,
    TEXT_CHARACTERS,
    TOLD,
    at_time,
    attempts_in,
    decode_history,
    encode_incident,
    encode_letter,
    tell,
)


def failed(attempt: int, at: float = 0.0) -> Incident:
    """An attempt that failed."""
    return Incident(at=at, kind=IncidentKind.FAILED, worker="w", attempt=attempt, error="SourceUnavailable", text="503")


@given(st.sampled_from(IncidentKind), st.text(), st.integers(0, 100), st.text(), st.text())
def test_incidents_come_back(kind: IncidentKind, worker: str, attempt: int, error: str, text: str) -> None:
    """Whatever an error said is read back, cut short, on one line."""
    written = at_time(encode_incident(kind, worker=worker, attempt=attempt, error=error, text=text), 12.5)
    assert b"\n" not in written
    (read,) = decode_history([written])
    assert (read.at, read.kind, read.attempt, read.worker, read.error) == (12.5, kind, attempt, worker, error)
    assert read.text == text[:TEXT_CHARACTERS]


def test_texts_that_json_has_no_form_for_are_mended() -> None:
    """Half a surrogate pair, which a pipeline may say, is no reason to lose a job."""
    assert decode_history([at_time(encode_incident(IncidentKind.FAILED, text="a\ud800b"), 1)])[0].text == "a?b"
    assert orjson.loads(encode_letter(text="\ud800"))["text"] == "?"
    assert len(orjson.loads(encode_letter(text="x" * 9_999))["text"]) == LETTER_CHARACTERS


@given(st.lists(st.binary()))
def test_lines_that_are_none_are_left_out(lines: list[bytes]) -> None:
    """Whatever lies in the broker, reading it raises nothing."""
    good = at_time(encode_incident(IncidentKind.LOST, worker="w"), 3)
    assert decode_history([*lines, good])[-1] == Incident(at=3, kind=IncidentKind.LOST, worker="w")


def test_a_newer_versions_kinds_are_left_out() -> None:
    """A history that a newer worker wrote can be read as far as it is known here."""
    assert decode_history([b'{"at":1,"kind":"vanished"}', b'{"at":2,"kind":"lost","more":1}'])[0].at == 2


def test_attempts_count_since_the_last_replay() -> None:
    """Deaths between attempts don't hide them; a replay begins anew."""
    lost, replayed = Incident(at=0, kind=IncidentKind.LOST), Incident(at=0, kind=IncidentKind.REPLAYED)
    assert attempts_in([]) == 0
    assert attempts_in([failed(1), failed(2), lost, lost]) == 2
    assert attempts_in([failed(1), failed(2), replayed]) == 0
    assert attempts_in([failed(2), replayed, failed(1)]) == 1


def test_a_history_is_told_in_short() -> None:
    """Its last incidents, each with time and cause."""
    lost, replayed = Incident(at=60, kind=IncidentKind.LOST, worker="q|host:7:ab"), failed(1)
    assert tell([]) == ""
    assert tell([replayed, lost]) == (
        "1970-01-01 00:00:00 UTC attempt 1: SourceUnavailable: 503; 1970-01-01 00:01:00 UTC worker q|host:7:ab died"
    )
    assert tell([Incident(at=0, kind=IncidentKind.REPLAYED)]) == "1970-01-01 00:00:00 UTC replayed"
    assert tell([failed(n) for n in range(20)]).count("attempt") == TOLD
