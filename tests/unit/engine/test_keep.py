"""Large parts of answers: put aside for those that get the answer, and for nobody else."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from pipemill.errors import (
    BlobStoreError,
    BrokerUnavailable,
    InferenceFailed,
    MalformedJob,
    PayloadTooLarge,
    ResultNotSerialisable,
)
from pipemill.protocol import encode_message
from pipemill.store.base import Completion, Submission
from pipemill.store.blobs import MemoryBlobs
from pipemill.store.memory import MemoryJobStore
from pipemill_worker.engine import Engine, Hooks, Lane
from pipemill_worker.engine.keep import KEPT_LONGER_SECONDS
from pipemill_worker.engine.keeper import Sweeper
from pipemill_worker.engine.wiring import EngineSettings, Gate, Wiring
from pipemill_worker.seams import Prepared
from tests.helpers import until
from tests.unit.engine.rig import QUEUE, Rig, Runner

#: An array above the size from which contents are kept, and one below.
LARGE, SMALL = np.arange(20_000, dtype=np.float32), np.arange(3, dtype=np.float32)


class Painter(Runner):
    """Answers with arrays, by name."""

    def finish(self, prepared: Prepared, outputs: Sequence[Any]) -> Any:  # noqa: ARG002  # the seam's signature
        answers = {
            "small": SMALL,
            "large": LARGE,
            "twice": [LARGE, LARGE.copy(), {"nan": float("nan")}],
            "odd": [LARGE, object()],
            "huge": np.zeros(50_000),
        }
        return {"mask": answers[str(prepared.state).partition(" ")[0]]}


class Blobs(MemoryBlobs):
    """Fails as often as a test says, and refuses what is huge."""

    def __init__(self) -> None:
        super().__init__()
        self.failures = 0
        self.put_count = 0
        self.kept_seconds: list[int] = []

    def put(self, data: bytes, ttl_seconds: int) -> str:
        if self.failures:
            self.failures -= 1
            raise BlobStoreError("the place is away")
        if len(data) > 200_000:
            raise PayloadTooLarge("too much")
        self.put_count += 1
        self.kept_seconds.append(ttl_seconds)
        return super().put(data, ttl_seconds)

    def delete(self, references: Sequence[str]) -> None:
        super().delete(references)
        if self.failures:
            self.failures -= 1
            raise BlobStoreError("the place is away")


@pytest.fixture
def rig() -> Rig:
    """A fresh broker, and a runner that answers with arrays."""
    rig = Rig()
    rig.runner = Painter()
    return rig


@pytest.fixture
def blobs() -> Blobs:
    """A place for large parts of answers."""
    return Blobs()


def lane_on(rig: Rig, blobs: Blobs, store: Any = None) -> Lane:
    """A lane that keeps large parts there."""
    lane = rig.lane(store=store)
    lane.blobs = blobs
    return lane


def put_with_canvas(rig: Rig, word: str, canvas: str, *, ignore_result: bool = False) -> None:
    """Enqueue a job that something follows; its id is the word."""
    embedded = {"callbacks": "null", "errbacks": "null", "chain": "null", "chord": "null", canvas: '[{"task": "x"}]'}
    parts = ",".join(f'"{name}":{value}' for name, value in embedded.items())
    message = encode_message(word, QUEUE, f'[["{word}"],{{}},{{{parts}}}]'.encode(), ignore_result=ignore_result)
    rig.producer.enqueue(QUEUE, [Submission(job_id=word, list_index=0, message=message)])


def data_of(answer: Any, blobs: Blobs) -> bytes | None:
    """What the reference in an answer stands for."""
    return blobs.get(answer["mask"]["$array"]["ref"])


def test_large_parts_of_an_answer_travel_by_reference(rig: Rig, blobs: Blobs) -> None:
    """A plain client sees where the bytes lie; what is small stands in the answer itself."""
    small, large = rig.put("small", "large")
    with rig.running(lane_on(rig, blobs)):
        assert rig.result(small).get() == {"mask": {"$array": "AAAAAAAAgD8AAABA", "dtype": "float32", "shape": [3]}}
        answer = rig.result(large).get()
    assert data_of(answer, blobs) == LARGE.tobytes()
    assert answer["mask"] | {"$array": None} == {"$array": None, "dtype": "float32", "shape": [20_000]}
    assert blobs.put_count == 1


def test_a_lane_keeps_in_its_store_unless_told_otherwise(rig: Rig) -> None:
    """Without a place in the catalogue, large parts lie with the broker."""
    (job_id,) = rig.put("large")
    with rig.running():
        answer = rig.result(job_id).get()
    assert rig.broker.blobs.get(answer["mask"]["$array"]["ref"]) == LARGE.tobytes()


def test_parts_outlive_the_result_that_refers_to_them(rig: Rig, blobs: Blobs) -> None:
    """They are put aside before the result is stored, and are there as long as it stands."""
    (job_id,) = rig.put("large")
    lane = lane_on(rig, blobs)
    with rig.running(lane):
        rig.result(job_id)
    assert blobs.kept_seconds == [lane.info.result_ttl_seconds + KEPT_LONGER_SECONDS]


def test_equal_parts_are_kept_once(rig: Rig, blobs: Blobs) -> None:
    """The same bytes have one reference, even when an answer with a NaN is encoded twice."""
    (job_id,) = rig.put("twice")
    with rig.running(lane_on(rig, blobs)):
        first, second, _ = rig.result(job_id).get()["mask"]
    assert first == second
    assert blobs.put_count == 1


@pytest.mark.parametrize(("word", "text"), [("odd", "can't be written as JSON"), ("huge", "too large: too much")])
def test_an_answer_that_cannot_be_encoded_leaves_nothing(rig: Rig, blobs: Blobs, word: str, text: str) -> None:
    """What was put aside before the mistake was met is deleted, and the job says what was wrong."""
    job_id, other = rig.put(word, "small")
    with rig.running(lane_on(rig, blobs)):
        with pytest.raises(ResultNotSerialisable, match=text):
            rig.result(job_id).get()
        assert rig.result(other).get()
    assert blobs._kept == {}


def test_nothing_is_kept_for_an_ignored_result(rig: Rig, blobs: Blobs) -> None:
    """Nobody will read it."""
    ignored, other = rig.put("large", ignore_result=True) + rig.put("small")
    with rig.running(lane_on(rig, blobs)):
        assert rig.result(other).get()
        until(lambda: rig.standing(ignored).queue is None, "the job ends")
    assert blobs.put_count == 0


@pytest.mark.parametrize("ignore_result", [False, True])
def test_what_follows_gets_json(rig: Rig, blobs: Blobs, ignore_result: bool) -> None:  # noqa: FBT001  # a parameter of pytest
    """A link or the next of a chain gets the answer as the result document has it, references and all."""
    put_with_canvas(rig, "large", "chain", ignore_result=ignore_result)
    with rig.running(lane_on(rig, blobs)):
        until(lambda: rig.standing("large").queue is None, "the job ends")
    ((_, value, error),) = rig.hooks.followed
    result = rig.standing("large").result
    assert error is None
    assert data_of(value, blobs) == LARGE.tobytes()
    assert result is None if ignore_result else result is not None and result.get() == value
    assert blobs.put_count == 1


def test_a_place_that_is_away_is_waited_for(rig: Rig, blobs: Blobs) -> None:
    """Like the broker: the answer isn't lost, and the job is answered once the place is back."""
    blobs.failures = 2
    (job_id,) = rig.put("large")
    with rig.running(lane_on(rig, blobs)):
        assert data_of(rig.result(job_id).get(), blobs) == LARGE.tobytes()


def test_a_place_that_stays_away_gives_the_job_back(rig: Rig, blobs: Blobs) -> None:
    """A drain doesn't wait for ever: the job goes back to its queue, and isn't failed for what is no fault of its."""
    blobs.failures = 1_000_000
    job_id, other = rig.put("large", "small")
    lane = lane_on(rig, blobs)
    with rig.running(lane, drain_seconds=0.1):
        until(lambda: blobs.failures < 1_000_000, "the place is asked")
    assert rig.standing(job_id).result is None
    assert rig.standing(job_id).queue == QUEUE
    blobs.failures = 0
    with rig.running(lane_on(rig, blobs)):
        assert rig.result(job_id).get()
        assert rig.result(other).get()


class Losing(MemoryJobStore):
    """Tells of every lease that it was lost; or ends it, and loses the reply."""

    reply_lost = False

    def complete(self, completions: Sequence[Completion]) -> list[bool]:
        if not self.reply_lost:
            return [False] * len(completions)
        done = super().complete(completions)
        if any(done):
            raise BrokerUnavailable("the connection dropped")
        return done


@pytest.mark.parametrize("failures", [0, 1])
def test_who_lost_the_lease_deletes_what_it_kept(
    rig: Rig, blobs: Blobs, failures: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The answer that stands is another's; a delete that fails is logged, and fails nothing."""
    delete = blobs.delete
    deleted = threading.Event()

    def failing(references: Sequence[str]) -> None:
        blobs.failures = failures
        deleted.set()
        delete(references)

    blobs.delete = failing  # type: ignore[method-assign]  # a test's double
    rig.put("large")
    with caplog.at_level(logging.WARNING), rig.running(lane_on(rig, blobs, Losing(rig.broker, QUEUE))):
        assert deleted.wait(60)
    assert blobs.put_count == 1
    assert blobs._kept == {}
    assert ("they expire by themselves" in caplog.text) is bool(failures)


def test_a_lost_reply_deletes_nothing(rig: Rig, blobs: Blobs) -> None:
    """The call whose reply was lost may have ended the lease: the answer that stands needs what was kept."""
    store = Losing(rig.broker, QUEUE)
    store.reply_lost = True
    (job_id,) = rig.put("large")
    with rig.running(lane_on(rig, blobs, store)) as engine:
        answer = rig.result(job_id).get()
        until(lambda: engine.works() == [], "the engine has noticed the end")
    assert data_of(answer, blobs) == LARGE.tobytes()


def test_what_a_chord_has_counted_is_not_deleted(rig: Rig, blobs: Blobs) -> None:
    """Its body is given the part that was counted first, whoever ended the job."""
    put_with_canvas(rig, "large", "chord")
    lane = lane_on(rig, blobs, Losing(rig.broker, QUEUE))
    with rig.running(lane) as engine:
        until(lambda: rig.hooks.followed and engine.works() == [], "the engine has noticed the loss")
    ((_, value, _),) = rig.hooks.followed
    assert data_of(value, blobs) == LARGE.tobytes()


def test_a_follow_up_that_cannot_be_sent_leaves_nothing(rig: Rig, blobs: Blobs) -> None:
    """The job ends with an error instead of its answer."""

    class Refusing(Hooks):
        def before_end(self, *_: Any) -> Any:
            raise MalformedJob("no such link")

    rig.hooks = Refusing()  # type: ignore[assignment]  # a test's double
    put_with_canvas(rig, "large", "callbacks")
    with rig.running(lane_on(rig, blobs)), pytest.raises(MalformedJob, match="no such link"):
        rig.result("large").get()
    assert (blobs.put_count, blobs._kept) == (1, {})


def test_inputs_whose_place_is_away_are_waited_for(rig: Rig) -> None:
    """A job whose media can't be read for now is prepared again, not failed; one whose are broken still fails."""
    attempts: list[Any] = []

    class Reading(Painter):
        def prepare(self, inputs: Any, parameters: Mapping[str, Any]) -> Prepared:
            attempts.append(inputs)
            if inputs == "small" and attempts.count("small") < 3:
                raise BlobStoreError("the place is away")
            if inputs == "unread":
                raise OSError("this is the job's")
            return super().prepare(inputs, parameters)

    rig.runner = Reading()
    waiting, failing = rig.put("small", "unread")
    with rig.running():
        assert rig.result(waiting).get()
        with pytest.raises(InferenceFailed, match="this is the job's"):
            rig.result(failing).get()
    assert attempts.count("small") == 3


def test_inputs_whose_place_stays_away_go_back(rig: Rig) -> None:
    """A drain in between releases the job."""
    asked = threading.Event()

    class Reading(Painter):
        def prepare(self, inputs: Any, parameters: Mapping[str, Any]) -> Prepared:  # noqa: ARG002  # the seam's signature
            asked.set()
            raise BlobStoreError("the place is away")

    rig.runner = Reading()
    (job_id,) = rig.put("small")
    with rig.running():
        assert asked.wait(60)
    assert (rig.standing(job_id).result, rig.standing(job_id).queue) == (None, QUEUE)


def wiring() -> Wiring:
    """What an engine without lanes has."""
    return Wiring(settings=EngineSettings(), hooks=Hooks(), gate=Gate([]))


def test_a_sweep_is_made_at_once_and_again_whatever_happens(caplog: pytest.LogCaptureFixture) -> None:
    """A failure is logged and tried again with the next; none comes after the stop."""
    made = wiring()
    calls: list[int] = []

    def sweep() -> int:
        calls.append(len(calls))
        if len(calls) == 1:
            raise OSError("the bucket is away")
        if len(calls) == 3:
            made.stopping.set()
        return 2

    with caplog.at_level(logging.INFO):
        Sweeper(sweep, made, interval=0.0).run()
        Sweeper(sweep, made).run()
    assert calls == [0, 1, 2]
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert said == [
        ("WARNING", "sweep: the bucket is away; trying again later"),
        ("INFO", "large media of 2 days deleted"),
        ("INFO", "large media of 2 days deleted"),
    ]


def test_an_engine_sweeps_if_there_is_a_place(rig: Rig) -> None:
    """The thread is one of the engine's, ends with it, and a failing sweep ends nothing."""
    swept = threading.Event()

    def sweep() -> int:
        swept.set()
        raise OSError("the bucket is away")

    engine = Engine([rig.lane()], EngineSettings(), rig.hooks, sweep=sweep)
    engine.start()
    assert swept.wait(60)
    (job_id,) = rig.put("small")
    assert rig.result(job_id).get()
    assert engine.alive
    engine.drain()
