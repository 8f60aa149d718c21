"""The engine tries again what may pass, and gives up with the history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from pipemill.errors import (
    DeliveryLimitReached,
    InferenceFailed,
    InferenceInterrupted,
    InvalidInput,
    JobCancelled,
    JobExpired,
    OutOfMemory,
    RetryLimitReached,
    SourceUnavailable,
)
from pipemill.protocol import Incident, Outcome, encode_arguments, encode_message
from pipemill.store.base import Completion, Submission
from pipemill.store.memory import MemoryJobStore
from pipemill_worker.policy.retries import RetryPolicy
from pipemill_worker.seams import Item, Prepared
from tests.helpers import until
from tests.unit.engine.rig import QUEUE, Rig, Runner

#: Waits that are over at once.
AT_ONCE = RetryPolicy(max_attempts=3, backoff_seconds=0.0, jitter=False)
#: Waits that end when a test moves the clock.
LONG = RetryPolicy(max_attempts=3, backoff_seconds=1_000.0, max_backoff_seconds=10_000.0, jitter=False)


class Failing(Runner):
    """Raises what a test says, as often as it says, before it does as others do."""

    def __init__(self, *errors: Exception, stage: str = "prepare", word: str | None = None):
        super().__init__()
        self.errors = list(errors)
        self.stage = stage
        #: The only word that fails in preparing; None is any.
        self.word = word
        self.attempts = 0

    def _fail(self, stage: str) -> None:
        if stage == self.stage:
            self.attempts += 1
            if self.errors:
                raise self.errors.pop(0)

    def prepare(self, inputs: Any, parameters: Mapping[str, Any]) -> Prepared:
        if self.word in {None, inputs}:
            self._fail("prepare")
        return super().prepare(inputs, parameters)

    def forward(self, items: Sequence[Item]) -> Sequence[Any]:
        self._fail("forward")
        return super().forward(items)

    def finish(self, prepared: Prepared, outputs: Sequence[Any]) -> Any:
        self._fail("finish")
        return super().finish(prepared, outputs)


@pytest.fixture
def rig() -> Rig:
    """A fresh broker."""
    return Rig()


def history(rig: Rig, job_id: str) -> list[tuple[str, int, str]]:
    """What is kept of a job that hasn't ended: kind, attempt and error of each incident."""
    (found,) = MemoryJobStore(rig.broker, QUEUE).histories([job_id])
    return [(each.kind.value, each.attempt, each.error) for each in found]


@pytest.mark.parametrize("stage", ["prepare", "forward", "finish"])
@pytest.mark.parametrize(
    "error", [SourceUnavailable("503"), ConnectionResetError("reset"), RuntimeError("for a while")]
)
def test_what_may_pass_is_tried_again(rig: Rig, stage: str, error: Exception) -> None:
    """Whatever the stage, the job has its answer at last, and leaves no history."""
    runner = Failing(error, error, stage=stage)
    lane = rig.lane(runner)
    lane.retry = AT_ONCE
    (job_id,) = rig.put("word")
    with rig.running(lane):
        assert rig.answers([job_id]) == ["WORD"]
    assert runner.attempts == 3
    assert history(rig, job_id) == []
    (report,) = rig.producer.reports()
    assert (report.totals["retried"], report.totals["succeeded"], report.dead) == (2, 1, 0)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (InvalidInput("no word"), InvalidInput),
        (RuntimeError("a bug"), InferenceFailed),
        (ValueError(), InferenceFailed),
    ],
)
def test_what_won_t_pass_is_not(rig: Rig, error: Exception, kind: type[Exception]) -> None:
    """A job's own bad input, and an error of which nobody knows: one attempt, no dead letter."""
    runner = Failing(error)
    lane = rig.lane(runner)
    lane.retry = AT_ONCE
    (job_id,) = rig.put("word")
    with rig.running(lane), pytest.raises(kind):
        rig.result(job_id).get()
    assert runner.attempts == 1
    assert rig.producer.reports()[0].dead == 0


def test_a_queue_may_try_again_after_any_failure_but_a_jobs_own(rig: Rig) -> None:
    """With any_failure a pipeline's bug is tried again; bad input isn't even then."""
    policy = RetryPolicy(max_attempts=3, backoff_seconds=0.0, any_failure=True)
    for error, attempts in ((RuntimeError("a bug"), 2), (InvalidInput("no"), 1)):
        runner = Failing(error)
        lane = rig.lane(runner)
        lane.retry = policy
        (job_id,) = rig.put("word")
        with rig.running(lane):
            rig.result(job_id)
        assert runner.attempts == attempts


def test_one_attempt_is_all_by_default(rig: Rig) -> None:
    """A lane that was told nothing of retries has none; the error is the job's end."""
    runner = Failing(SourceUnavailable("503"))
    (job_id,) = rig.put("word")
    with rig.running(rig.lane(runner)), pytest.raises(SourceUnavailable, match="503"):
        rig.result(job_id).get()
    assert rig.producer.reports()[0].dead == 0


def test_a_job_waits_in_the_store_and_its_neighbours_are_answered(rig: Rig) -> None:
    """Nobody holds it meanwhile; its history is there; its turn comes when the wait is over."""
    lane = rig.lane(Failing(SourceUnavailable("503"), word="first"))
    lane.retry = LONG
    first, second = rig.put("first", "second")
    with rig.running(lane) as engine:
        assert rig.answers([second]) == ["SECOND"]
        until(lambda: engine.works() == [], "nothing is held")
        assert rig.standing(first).queue == QUEUE
        assert history(rig, first) == [("failed", 1, "SourceUnavailable")]
        assert rig.producer.reports()[0].parked == 1
        rig.broker.advance(1_001)
        assert rig.answers([first]) == ["FIRST"]


def test_attempts_outlive_a_worker_that_dies(rig: Rig) -> None:
    """An attempt that failed before a crash counts after it, and both are told."""
    lane = rig.lane(Failing(SourceUnavailable("503")))
    lane.retry = LONG
    (job_id,) = rig.put("word")
    with rig.running(lane):
        until(lambda: rig.producer.reports()[0].parked, "it waits")
    rig.broker.advance(1_001)
    doomed = MemoryJobStore(rig.broker, QUEUE, lease_seconds=1.0)
    assert doomed.take(1).jobs
    rig.broker.advance(2)
    doomed.reap()
    assert history(rig, job_id) == [("failed", 1, "SourceUnavailable"), ("lost", 0, "")]
    last = rig.lane(Failing(*[SourceUnavailable("504")] * 5))
    last.retry = RetryPolicy(max_attempts=3, backoff_seconds=0.0)
    with rig.running(last), pytest.raises(RetryLimitReached, match=r"3 attempts failed.*504.*503.*died.*pipemill dead"):
        rig.result(job_id).get()
    letter = rig.producer.dead_letter(QUEUE, job_id)
    assert letter is not None
    assert (letter.error, letter.attempts, letter.deliveries) == ("RetryLimitReached", 3, 1)
    assert [(each.kind.value, each.attempt) for each in letter.history] == [
        ("failed", 1),
        ("lost", 0),
        ("failed", 2),
        ("failed", 3),
    ]
    assert letter.arguments() == ("word", {})


def test_only_a_suspect_is_alone_when_it_comes_back(rig: Rig) -> None:
    """A job that failed is leased with others, as before; one that a worker died with stays alone."""
    policies = {"plain": 0, "suspect": 1}
    for word, deliveries in policies.items():
        lane = rig.lane(Failing(SourceUnavailable("503"), word=word))
        lane.retry = LONG
        rig.put(word)
        if deliveries:
            owner = MemoryJobStore(rig.broker, QUEUE, lease_seconds=1.0)
            owner.take(1)
            rig.broker.advance(2)
            owner.reap()
        with rig.running(lane):
            until(lambda: rig.producer.reports()[0].parked == 1, "it waits")
        rig.broker.advance(1_001)
        rig.put("other")
        store = MemoryJobStore(rig.broker, QUEUE)
        taken = store.take(9).jobs
        assert [job.deliveries for job in taken] == ([1] if deliveries else [0, 0])
        store.complete([Completion(field=job.field, job_id="", outcome=Outcome.CANCELLED) for job in taken])
        rest = store.take(9).jobs
        store.complete([Completion(field=job.field, job_id="", outcome=Outcome.CANCELLED) for job in rest])
        store.close()


def test_out_of_memory_alone_is_tried_once_more(rig: Rig) -> None:
    """Others may have held the memory; a second failure is the end, however many attempts a queue allows."""
    runner = Failing(*[MemoryError()] * 9, stage="forward")
    lane = rig.lane(runner)
    lane.retry = RetryPolicy(max_attempts=9, backoff_seconds=0.0)
    (job_id,) = rig.put("large")
    with rig.running(lane), pytest.raises(RetryLimitReached, match=r"2 attempts failed.*OutOfMemory"):
        rig.result(job_id).get()
    assert runner.attempts == 2


def test_the_class_of_a_failure_says_whether_it_may_pass(rig: Rig) -> None:
    """Clients see what it was even where nothing is tried again."""
    kinds = [(MemoryError(), OutOfMemory), (TimeoutError(), InferenceInterrupted), (KeyError(), InferenceFailed)]
    for error, kind in kinds:
        (job_id,) = rig.put("word")
        with rig.running(rig.lane(Failing(error))):
            found = rig.result(job_id).error
        assert type(found) is kind


def test_a_retry_that_would_come_too_late_is_none(rig: Rig) -> None:
    """A job whose deadline comes before its next attempt fails with its error, and is no dead letter."""
    lane = rig.lane(Failing(SourceUnavailable("503")))
    lane.retry = LONG
    (job_id,) = rig.put("word", expires=rig.broker.now() + 500)
    with rig.running(lane), pytest.raises(SourceUnavailable):
        rig.result(job_id).get()
    assert rig.producer.reports()[0].dead == 0


def test_a_job_whose_deadline_passes_while_it_waits_expires(rig: Rig) -> None:
    """A retry that comes back too late isn't started."""
    runner = Failing(SourceUnavailable("503"))
    lane = rig.lane(runner)
    lane.retry = LONG
    (job_id,) = rig.put("word", expires=rig.broker.now() + 1_500)
    with rig.running(lane):
        until(lambda: rig.producer.reports()[0].parked, "it waits")
        rig.broker.advance(2_000)
        with pytest.raises(JobExpired):
            rig.result(job_id).get()
    assert runner.attempts == 1


def test_a_job_that_waits_can_be_cancelled(rig: Rig) -> None:
    """It ends at once; its turn changes nothing, and its history goes."""
    runner = Failing(SourceUnavailable("503"))
    lane = rig.lane(runner)
    lane.retry = LONG
    (job_id,) = rig.put("word")
    with rig.running(lane):
        until(lambda: rig.producer.reports()[0].parked, "it waits")
        assert rig.producer.cancel(job_id)
        rig.broker.advance(1_001)
        until(lambda: rig.producer.reports()[0].totals.get("cancelled"), "its turn has come")
        with pytest.raises(JobCancelled):
            rig.result(job_id).get()
    assert runner.attempts == 1
    assert history(rig, job_id) == []


def test_what_follows_a_job_follows_its_end_alone(rig: Rig) -> None:
    """A link isn't asked for after an attempt that failed."""
    lane = rig.lane(Failing(SourceUnavailable("503")))
    lane.retry = AT_ONCE
    canvas = b'[["linked"],{},{"callbacks":[{"task":"x"}],"errbacks":null,"chain":null,"chord":null}]'
    submission = Submission(job_id="linked", list_index=0, message=encode_message("linked", QUEUE, canvas))
    rig.producer.enqueue(QUEUE, [submission])
    with rig.running(lane):
        assert rig.answers(["linked"]) == ["LINKED"]
    assert rig.hooks.followed == [("linked", "LINKED", None)]


def test_a_job_without_a_result_is_given_up_all_the_same(rig: Rig) -> None:
    """Nobody waits for it, and its letter is there."""
    lane = rig.lane(Failing(*[SourceUnavailable("503")] * 3))
    lane.retry = AT_ONCE
    (job_id,) = rig.put("quiet", ignore_result=True)
    with rig.running(lane):
        until(lambda: rig.producer.reports()[0].dead == 1, "it is given up")
    assert rig.standing(job_id).result is None
    assert [letter.id for letter in rig.producer.dead_letters(QUEUE, 9)] == [job_id]


def test_the_delivery_limit_tells_who_died(rig: Rig) -> None:
    """The error names the workers, in short; the letter has all of it."""
    (job_id,) = rig.put("deadly")
    owners = []
    for _ in range(3):
        owner = MemoryJobStore(rig.broker, QUEUE, lease_seconds=1.0)
        owner.take(1)
        rig.broker.advance(2)
        owner.reap()
        owners.append(owner.owner)
    with rig.running(), pytest.raises(DeliveryLimitReached) as raised:
        rig.result(job_id).get()
    assert all(f"worker {owner} died" in str(raised.value) for owner in owners)
    letter = rig.producer.dead_letter(QUEUE, job_id)
    assert letter is not None
    assert (letter.deliveries, letter.attempts) == (3, 0)
    assert [each.worker for each in letter.history] == owners


def test_a_history_holds_nothing_of_the_inputs(rig: Rig) -> None:
    """What a pipeline says may repeat them: of that only the class is kept."""
    lane = rig.lane(Failing(*[ConnectionError("secret word")] * 3))
    lane.retry = AT_ONCE
    message = encode_message("a", QUEUE, encode_arguments("secret word", {}))
    rig.producer.enqueue(QUEUE, [Submission(job_id="a", list_index=0, message=message)])
    with rig.running(lane), pytest.raises(RetryLimitReached) as raised:
        rig.result("a").get()
    letter = rig.producer.dead_letter(QUEUE, "a")
    assert letter is not None
    kept: list[Incident] = list(letter.history)
    assert {each.text for each in kept} == {"the pipeline raised ConnectionError"}
    assert "secret" not in str(raised.value) + letter.text + repr(letter)


def test_a_replayed_job_is_tried_as_often_as_a_new_one(rig: Rig) -> None:
    """Its attempts and deliveries count anew, and it is answered under its id."""
    runner = Failing(*[SourceUnavailable("503")] * 5)
    lane = rig.lane(runner)
    lane.retry = AT_ONCE
    (job_id,) = rig.put("word")
    with rig.running(lane):
        with pytest.raises(RetryLimitReached):
            rig.result(job_id).get()
        assert rig.producer.replay(QUEUE, [job_id]) is not None
        assert rig.answers([job_id]) == ["WORD"]
    assert runner.attempts == 6


def test_a_dead_letter_without_an_id_is_kept_as_it_came(rig: Rig) -> None:
    """There is nobody to tell, and the message can be looked at."""
    rig.broker.push(QUEUE, b"\xff not json")
    with rig.running():
        until(lambda: rig.producer.reports()[0].dead == 1, "it is given up")
    (listed,) = rig.producer.dead_letters(QUEUE, 9)
    letter = rig.producer.dead_letter(QUEUE, listed.id)
    assert letter is not None
    assert (letter.error, letter.message) == ("MalformedJob", b"\xff not json")


def test_many_failures_cost_one_look(rig: Rig) -> None:
    """The histories of the jobs of one call are asked for together."""
    lane = rig.lane(Failing(*[SourceUnavailable("503")] * 64))
    lane.retry = LONG
    asked: list[int] = []
    real = lane.store.histories

    def counted(job_ids: Sequence[str]) -> Any:
        asked.append(len(job_ids))
        return real(job_ids)

    lane.store.histories = counted  # type: ignore[method-assign]  # to count calls
    submissions = [
        Submission(job_id=f"j{n}", list_index=0, message=encode_message(f"j{n}", QUEUE, encode_arguments("w", {})))
        for n in range(64)
    ]
    rig.producer.enqueue(QUEUE, submissions)
    with rig.running(lane):
        until(lambda: rig.producer.reports()[0].parked == 64, "all wait")
    assert sum(asked) == 64
    assert len(asked) < 64
