"""Both clients, over a broker in memory: what one does, the other does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipemill import bulk, errors, replies, testing
from pipemill.aio import AsyncClient
from pipemill.client import Client
from pipemill.jobs import UPLOAD_AT_MOST, parts
from pipemill.protocol import JobStatus, Outcome, decode_message, encode_failure, encode_success, names
from pipemill.store.base import Accepted, Completion, QueueInfo, Standing, Submission, Taken
from pipemill.store.memory import MemoryBroker, MemoryJobStore
from pipemill.store.memory_aio import AsyncMemoryQueueStore
from pipemill.store.memory_queues import MemoryQueueStore
from tests.helpers import PATIENCE_SECONDS, until
from tests.unit.blocking import Blocking

QUEUE = "sentiment"

#: Builds the client under test for a store, with the client's own arguments.
Build = Callable[..., Any]


@pytest.fixture
def broker() -> MemoryBroker:
    """A broker in memory that knows one queue."""
    broker = MemoryBroker()
    testing.announce(broker, QUEUE, max_depth=100, max_input_bytes=100_000)
    return broker


@pytest.fixture(params=["blocking", "asynchronous"])
def build(request: pytest.FixtureRequest) -> Iterator[Build]:
    """Each kind of client in turn."""
    if request.param == "blocking":
        yield lambda store, **options: Client(store=store, **options)
        return
    with asyncio.Runner() as runner:

        def build_asynchronous(store: MemoryQueueStore, **options: Any) -> Blocking:
            twin = AsyncMemoryQueueStore(MemoryBroker())
            twin._store = store
            return Blocking(AsyncClient(store=twin, **options), runner)

        yield build_asynchronous


@pytest.fixture
def client(build: Build, broker: MemoryBroker) -> Any:
    """The client under test."""
    return build(MemoryQueueStore(broker))


def take(broker: MemoryBroker, n: int = 1) -> tuple[MemoryJobStore, Taken]:
    """Lease jobs as a worker would."""
    worker = MemoryJobStore(broker, QUEUE)
    return worker, worker.take(n)


def finish(worker: MemoryJobStore, taken: Taken, value: Any) -> None:
    """Answer leased jobs, or fail them with an error."""
    ends = []
    for leased in taken.jobs:
        job = decode_message(leased.raw, QUEUE)
        failed = isinstance(value, errors.JobError)
        document = encode_failure(job.id, value) if failed else encode_success(job.id, value)
        outcome = Outcome.FAILED if failed else Outcome.SUCCEEDED
        ends.append(Completion(field=leased.field, job_id=job.id, outcome=outcome, document=document))
    worker.complete(ends)


# Submitting one job


def test_run_gives_the_answer(client: Any, broker: MemoryBroker) -> None:
    """Inputs and parameters reach the queue, the answer comes back."""
    with testing.answering(broker, QUEUE, lambda text, top_k: [text] * top_k):
        assert client.run(QUEUE, "good", {"top_k": 2}, timeout=PATIENCE_SECONDS) == ["good", "good"]


def test_a_job_tells_where_it_stands(client: Any, broker: MemoryBroker) -> None:
    """Queued, running and succeeded are told apart, by handle and by id."""
    job = client.submit(QUEUE, "good")
    assert (job.status(), client.status(job.id), job.queue) == (JobStatus.QUEUED, JobStatus.QUEUED, QUEUE)
    worker, taken = take(broker)
    worker.renew({taken.jobs[0].field: job.id})
    assert job.status() is JobStatus.RUNNING
    finish(worker, taken, {"label": "good"})
    assert client.job(job.id).status() is JobStatus.SUCCEEDED
    assert job.result() == {"label": "good"}


def test_describe_has_position_and_estimate(client: Any, build: Build, broker: MemoryBroker) -> None:
    """A queued job's position is told, and its time once the workers say how fast they are."""
    first, second, third = (client.submit(QUEUE, text) for text in "abc")
    assert second.describe() == replies.JobInfo(id=second.id, status=JobStatus.QUEUED, queue=QUEUE, position=1)
    MemoryJobStore(broker, QUEUE).report({"rate": 4.0})
    info = build(MemoryQueueStore(broker)).describe(third.id)
    assert (info.position, info.estimate_seconds) == (2, 0.5)
    worker, taken = take(broker)
    worker.renew({taken.jobs[0].field: first.id})
    assert first.describe() == replies.JobInfo(id=first.id, status=JobStatus.RUNNING, queue=QUEUE)
    assert client.describe("stranger").status is JobStatus.UNKNOWN


def test_urgent_jobs_come_first(client: Any, broker: MemoryBroker) -> None:
    """0 is the most urgent; priorities are filed under Celery's four steps."""
    submitted = {priority: client.submit(QUEUE, priority, priority=priority).id for priority in (9, 5, 4, 0, 2)}
    _, taken = take(broker, 9)
    order = [decode_message(leased.raw, QUEUE).id for leased in taken.jobs]
    assert order == [submitted[priority] for priority in (0, 2, 5, 4, 9)]


@pytest.mark.parametrize("priority", [-1, 10, 2.5, "high", None])
def test_a_priority_out_of_bounds_is_refused(client: Any, priority: Any) -> None:
    """The error says which numbers there are."""
    with pytest.raises(ValueError, match="whole number from 0"):
        client.submit(QUEUE, "good", priority=priority)


def test_a_countdown_holds_a_job_back(client: Any, broker: MemoryBroker) -> None:
    """A job isn't started before its time, and is queued until then."""
    with testing.answering(broker, QUEUE, str.upper):
        job = client.submit(QUEUE, "good", countdown=1000)
        until(lambda: broker.queues[QUEUE].parked, "the job is parked")
        assert job.status() is JobStatus.QUEUED
        broker.advance(1001)
        assert job.result(PATIENCE_SECONDS) == "GOOD"


def test_moments_reach_the_message(client: Any, broker: MemoryBroker) -> None:
    """A datetime and seconds mean the same moment; expires counts from now."""
    moment = datetime.now(UTC) + timedelta(hours=1)
    client.submit(QUEUE, "a", eta=moment, expires=moment)
    client.submit(QUEUE, "b", eta=moment.timestamp(), expires=3600)
    first, second = (decode_message(leased.raw, QUEUE) for leased in take(broker, 2)[1].jobs)
    assert first.eta == second.eta == first.expires == moment.timestamp()
    assert second.expires == pytest.approx(moment.timestamp(), abs=PATIENCE_SECONDS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"countdown": 1, "eta": datetime(2030, 1, 1, tzinfo=UTC)}, "countdown or eta, not both"),
        ({"eta": datetime(2030, 1, 1)}, "eta must say its time zone"),  # noqa: DTZ001  # it is what is refused
        ({"expires": datetime(2030, 1, 1)}, "expires must say its time zone"),  # noqa: DTZ001  # it is what is refused
        ({"eta": 1_900_000_000_000}, "eta must be a number of seconds"),
        ({"countdown": float("nan")}, "countdown must be a number of seconds"),
        ({"countdown": 8 * 24 * 3600}, "7 days at most"),
        ({"job_id": ""}, "job_id must be 1 to 255 printable characters"),
        ({"job_id": "a\nb"}, "job_id must be 1 to 255 printable characters"),
        ({"idempotency_key": "x" * 256}, "idempotency_key must be 1 to 255 printable characters"),
    ],
)
def test_options_that_cant_be_meant_are_refused(
    client: Any, broker: MemoryBroker, options: dict[str, Any], message: str
) -> None:
    """The error says what is wrong, and nothing is stored."""
    with pytest.raises(ValueError, match=message):
        client.submit(QUEUE, "good", **options)
    assert broker.records == {}


def test_an_expired_job_says_so(client: Any, broker: MemoryBroker) -> None:
    """A job that isn't started before its deadline ends as expired."""
    job = client.submit(QUEUE, "good", expires=10)
    broker.advance(11)
    with testing.answering(broker, QUEUE, str.upper), pytest.raises(errors.JobExpired, match="submit it again"):
        job.result(PATIENCE_SECONDS)
    assert job.status() is JobStatus.EXPIRED


def test_a_job_submitted_after_its_deadline_has_expired(client: Any, broker: MemoryBroker) -> None:
    """It is accepted and told as expired, in a bulk run at its own place; no worker sees it, no queue is full of it."""
    past = datetime.now(UTC) - timedelta(seconds=1)
    job = client.submit(QUEUE, "late", expires=past)
    assert job.status() is JobStatus.EXPIRED
    with pytest.raises(errors.JobExpired, match="submit it again"):
        job.result(0)
    found = list(client.map(QUEUE, ["late", "too"], expires=past, return_errors=True, timeout=PATIENCE_SECONDS))
    assert [type(each) for each in found] == [errors.JobExpired] * 2
    many = client.submit_many(QUEUE, ["late"] * 101, expires=past)  # more than fit
    assert {result.status for result in client.results([job.id for job in many], 0)} == {JobStatus.EXPIRED}
    assert take(broker, 9)[1].jobs == []


def test_a_job_nobody_starts_is_told_as_expired(client: Any, broker: MemoryBroker) -> None:
    """Without any worker, a job well past its deadline isn't said to be queued."""
    job = client.submit(QUEUE, "late", expires=10)
    broker.advance(11)
    assert job.status() is JobStatus.QUEUED  # a worker may have started it, and not said so yet
    broker.advance(5)
    assert job.status() is JobStatus.EXPIRED
    with pytest.raises(errors.JobExpired):
        job.result(0)


def test_an_ignored_result_leaves_no_trace(client: Any, broker: MemoryBroker) -> None:
    """Who asked for no result can't wait for one, and is told why."""
    with testing.answering(broker, QUEUE, str.upper):
        job = client.submit(QUEUE, "good", ignore_result=True)
        until(lambda: job.status() is JobStatus.UNKNOWN, "the job has ended")
    with pytest.raises(errors.UnknownJob, match="ignore_result"):
        job.result(0)


def test_equal_idempotency_keys_are_one_job(client: Any, broker: MemoryBroker) -> None:
    """The second handle is of the first job."""
    first = client.submit(QUEUE, "good", idempotency_key="order-7")
    second = client.submit(QUEUE, "good", idempotency_key="order-7")
    other = client.submit(QUEUE, "good", idempotency_key="order-8", job_id="mine")
    assert first.id == second.id
    assert other.id == "mine"
    assert len(broker.records) == 2


# Refusals


def test_an_unknown_queue_says_what_to_do(client: Any) -> None:
    """The nearest name, the known queues and the two ways out are told."""
    expected = (
        r"queue 'sentimnet' is unknown; did you mean 'sentiment'\? Known queues: 'sentiment'. "
        "Start a worker for it, or give the client the catalogue that names it"
    )
    with pytest.raises(errors.UnknownQueue, match=expected):
        client.submit("sentimnet", "good")


def test_a_broker_without_queues_says_so(build: Build) -> None:
    """There is nothing to mean, so nothing is guessed; a long name is cut."""
    client = build(MemoryQueueStore(MemoryBroker()))
    with pytest.raises(errors.UnknownQueue, match=r"is unknown\. This broker knows no queue yet\. Start") as caught:
        client.submit("q" * 255, "good")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("queue", ["", "q" * 256, "\ud800", "a\x06b", None])
def test_a_name_that_no_queue_can_have_is_refused(client: Any, queue: Any) -> None:
    """It is told before the broker is bothered with it."""
    for ask in (client.submit, client.submit_many, client.map):
        with pytest.raises(errors.UnknownQueue, match="1 to 255 printable characters") as caught:
            ask(queue, ["good"])
        assert len(str(caught.value)) < 300


def test_queues_of_the_catalogue_are_known(build: Build, tmp_path: Path) -> None:
    """A client with a catalogue submits before any worker ever ran, under the catalogue's limits."""
    file = tmp_path / "pipemill.yaml"
    file.write_text("queues: {mirror: {task: echo, limits: {max_depth: 2, max_input_bytes: 50000}}}")
    client = build(MemoryQueueStore(MemoryBroker()), catalogue=file)
    assert client.submit("mirror", "good").status() is JobStatus.QUEUED
    assert [report.info for report in client.queues()] == [
        QueueInfo(name="mirror", task="echo", max_depth=2, max_input_bytes=50_000)
    ]
    with pytest.raises(errors.UnknownQueue, match="Start a worker for it, or add it to the catalogue"):
        client.submit("other", "good")


def test_the_catalogue_limits_the_first_job_too(build: Build, tmp_path: Path) -> None:
    """The size is checked against the catalogue when nobody announced the queue."""
    file = tmp_path / "pipemill.yaml"
    file.write_text("queues: {mirror: {task: echo, limits: {max_input_bytes: 50000}}}")
    client = build(MemoryQueueStore(MemoryBroker()), catalogue=file)
    with pytest.raises(errors.PayloadTooLarge):
        client.submit("mirror", "x" * 60_000)
    with pytest.raises(errors.UnknownQueue):
        client.submit("other", "x" * 60_000)


class CountingStore(MemoryQueueStore):
    """Counts looks at limits."""

    def __init__(self, broker: MemoryBroker):
        super().__init__(broker)
        self.looks = 0

    def info(self, queue: str) -> QueueInfo | None:
        """What the queue announced of itself."""
        self.looks += 1
        return super().info(queue)


def test_large_inputs_go_beside_the_message(build: Build, broker: MemoryBroker) -> None:
    """Above the reference size the payload lies apart; the limit is looked up once, and for small jobs never."""
    store = CountingStore(broker)
    client = build(store)
    client.submit(QUEUE, "small")
    assert (store.looks, broker.payloads) == (0, {})
    with testing.answering(broker, QUEUE, len, max_depth=100, max_input_bytes=100_000) as started:
        assert client.run(QUEUE, "x" * 50_000, timeout=PATIENCE_SECONDS) == 50_000
        assert client.run(QUEUE, "x" * 50_000, timeout=PATIENCE_SECONDS) == 50_000
    assert [job.by_reference for job in started] == [False, True, True]
    assert store.looks == 1


def test_too_large_inputs_name_size_and_limit(client: Any, broker: MemoryBroker) -> None:
    """What is over the queue's limit is refused before anything is sent."""
    with pytest.raises(errors.PayloadTooLarge, match=r"are 1000\d\d bytes as JSON and queue 'sentiment' takes 100000"):
        client.submit(QUEUE, "x" * 100_000)
    with pytest.raises(errors.PayloadTooLarge, match="split them"):
        client.submit_many(QUEUE, ["small", "x" * 100_000])
    assert (broker.records, broker.payloads) == ({}, {})


@pytest.mark.parametrize("inputs", [{1, 2}, float("nan"), [1.0, float("inf")], "\ud800", b"bytes", {1: "a"}])
def test_what_json_has_no_form_for_is_refused(client: Any, broker: MemoryBroker, inputs: Any) -> None:
    """Nothing is changed silently on its way, and nothing is stored."""
    with pytest.raises(errors.NotSerialisable, match="must be JSON"):
        client.submit(QUEUE, inputs)
    with pytest.raises(errors.NotSerialisable, match="must be JSON"):
        client.submit(QUEUE, None, {"parameter": inputs})
    assert broker.records == {}


def test_a_mistake_in_one_of_many_names_it_and_sends_none(client: Any, broker: MemoryBroker) -> None:
    """All jobs of a call are checked before the first is sent."""
    with pytest.raises(errors.NotSerialisable, match="inputs 90 "):
        client.submit_many(QUEUE, [*range(90), {1, 2}])
    assert broker.records == {}


@pytest.mark.parametrize("parameters", ["top_k=2", [("top_k", 2)], 7])
def test_parameters_must_be_a_mapping(client: Any, parameters: Any) -> None:
    """What isn't a mapping is a slip of the caller."""
    with pytest.raises(TypeError, match="mapping of names to values"):
        client.submit(QUEUE, "good", parameters)


@pytest.mark.parametrize("inputs", ["text", b"bytes", {"text": "good"}, 7])
def test_many_inputs_must_be_many(client: Any, inputs: Any) -> None:
    """A string isn't taken for one job per character."""
    with pytest.raises(TypeError, match="one element per job"):
        client.submit_many(QUEUE, inputs)
    with pytest.raises(TypeError, match="one element per job"):
        client.map(QUEUE, inputs)


def test_a_full_queue_says_when_to_try_again(client: Any, broker: MemoryBroker) -> None:
    """The refusal tells depth, mend and a time that fits the workers' rate."""
    client.submit_many(QUEUE, range(100))
    MemoryJobStore(broker, QUEUE).report({"rate": 0.5})
    with pytest.raises(
        errors.QueueFull, match=r"100 jobs wait, 100 may\): submit again in 2.0 s, start more"
    ) as caught:
        client.submit(QUEUE, "more")
    assert (caught.value.retry_after, caught.value.accepted) == (2.0, ())


@pytest.mark.parametrize(
    ("depth", "refused", "rate", "seconds"),
    [
        (100, 1, 0.0, replies.UNKNOWN_RATE_SECONDS),
        (100, 50, 10.0, 5.0),
        (90, 50, 10.0, 5.0),
        (120, 10, 10.0, 3.0),
        (100, 1, 1000.0, 0.1),
        (100, 1000, 1.0, 60.0),
    ],
)
def test_retry_after_is_the_excess_over_the_rate(depth: int, refused: int, rate: float, seconds: float) -> None:
    """Jobs too many ÷ jobs a second, between a tenth of a second and a minute."""
    accepted = Accepted(job_ids=[], depth=depth, max_depth=100, bound="max_depth", limit=100, standing=depth, rate=rate)
    assert replies.retry_after(accepted, refused) == seconds


@pytest.mark.parametrize(
    ("bound", "seconds"),
    [
        ("max_depth", 1.0),
        ("max_bytes", 2.0),
        ("max_tenant_depth", 4.0),
        ("max_tenant_bytes", 8.0),
        ("max_memory_share", replies.MEMORY_FULL_SECONDS),
    ],
)
def test_retry_after_knows_shares_and_bytes(bound: str, seconds: float) -> None:
    """A tenant's jobs go at its share of the rate; bytes too many are so many jobs of those waiting."""
    accepted = Accepted(
        job_ids=[],
        depth=100,
        max_depth=100,
        bound=bound,
        limit=100,
        standing=100,
        standing_jobs=100 if bound.endswith("depth") else 10,
        refused_bytes=20,
        tenants=4,
        rate=1.0,
    )
    assert replies.retry_after(accepted, 1) == seconds


def test_jobs_say_whose_they_are(build: Build, broker: MemoryBroker) -> None:
    """The client's tenant holds for every job that names none; an empty name is nobody's."""
    client = build(MemoryQueueStore(broker), tenant="acme")
    client.submit(QUEUE, "a")
    client.submit(QUEUE, "b", tenant="bolt")
    client.submit(QUEUE, "c", tenant="")
    client.submit_many(QUEUE, ["d"])
    client.submit_many(QUEUE, ["e"], tenant="bolt")
    jobs = [decode_message(leased.raw, QUEUE) for leased in take(broker, 9)[1].jobs]
    tenants = {job.inputs: job.headers.get(names.TENANT_HEADER) for job in jobs}
    assert tenants == {"a": "acme", "b": "bolt", "c": None, "d": "acme", "e": "bolt"}


@pytest.mark.parametrize("name", ["two words", "a:b", "x" * 65, "ä", "a|b", '"'])
def test_a_tenants_name_is_checked(build: Build, broker: MemoryBroker, name: str) -> None:
    """What can't be one is refused before anything is sent, with the form that can."""
    client = build(MemoryQueueStore(broker))
    with pytest.raises(ValueError, match="1 to 64 letters, digits"):
        client.submit(QUEUE, "x", tenant=name)
    with pytest.raises(ValueError, match="1 to 64 letters, digits"):
        build(MemoryQueueStore(broker), tenant=name)


@pytest.mark.parametrize(
    ("limits", "bound", "text"),
    [
        ({"max_tenant_depth": 1}, "max_tenant_depth", "is full for tenant 'acme' .1 of its jobs wait, 1 may"),
        ({"max_bytes": 1}, "max_bytes", r"bytes wait, 1 may.: .*raise the queue's limits.max_bytes"),
        ({"max_tenant_bytes": 1}, "max_tenant_bytes", "is full for tenant 'acme' .* of its bytes wait, 1 may"),
        ({"max_memory_share": 0.5}, "max_memory_share", "the broker's memory is full .90 % in use, .* below 50 %"),
    ],
)
def test_a_full_queue_says_which_bound_was_met(
    client: Any, broker: MemoryBroker, limits: dict[str, Any], bound: str, text: str
) -> None:
    """Each bound has its words, its mend, and a time to come back."""
    testing.announce(broker, QUEUE, **limits)
    if bound == "max_memory_share":
        broker.memory_share = 0.9
    else:
        client.submit(QUEUE, "a", tenant="acme")
    with pytest.raises(errors.QueueFull, match=text) as caught:
        client.submit(QUEUE, "b", tenant="acme")
    assert (caught.value.bound, caught.value.accepted) == (bound, ())
    assert caught.value.retry_after > 0


@pytest.mark.parametrize("limits", [{"max_tenant_depth": 3}, {"max_bytes": 3_000}, {"max_tenant_bytes": 3_000}])
def test_map_waits_for_room_under_any_bound(client: Any, broker: MemoryBroker, limits: dict[str, int]) -> None:
    """A bulk run goes on when there is room again, whichever bound it met, and loses nothing."""
    with testing.answering(broker, QUEUE, lambda n: n, **limits):
        found = client.map(QUEUE, range(40), tenant="acme", timeout=PATIENCE_SECONDS)
        assert list(found) == list(range(40))


def test_many_jobs_that_dont_all_fit_are_partly_accepted(client: Any, broker: MemoryBroker) -> None:
    """The error has the ids of the first jobs, over all chunks; the rest isn't stored."""
    with pytest.raises(errors.QueueFull, match="100 of 130 jobs were accepted") as caught:
        client.submit_many(QUEUE, range(130), chunk=32)
    assert list(caught.value.accepted) == list(broker.records)
    _, taken = take(broker, 200)
    assert [decode_message(leased.raw, QUEUE).inputs for leased in taken.jobs] == list(range(100))


def test_many_jobs_share_parameters_and_options(client: Any, broker: MemoryBroker) -> None:
    """Inputs may be any iterable; handles are in its order."""
    jobs = client.submit_many(QUEUE, (n for n in range(70)), {"top_k": 1}, priority=3)
    taken = [decode_message(leased.raw, QUEUE) for leased in take(broker, 99)[1].jobs]
    assert [job.id for job in jobs] == [job.id for job in taken]
    assert {(job.parameters["top_k"], job.priority) for job in taken} == {(1, 3)}
    assert client.submit_many(QUEUE, []) == []


def test_many_jobs_have_a_key_each(client: Any, broker: MemoryBroker) -> None:
    """Submitting again with the same keys is the same jobs; a wrong number of keys sends nothing."""
    first = client.submit_many(QUEUE, ["ab"] * 2, idempotency_keys=["1", "2"])
    again = client.submit_many(QUEUE, ["ab", "ab"], idempotency_keys=["1", "2"])
    assert [job.id for job in first] == [job.id for job in again]
    with pytest.raises(ValueError, match="one idempotency key for each of the 3 inputs, not 1"):
        client.submit_many(QUEUE, [1, 2, 3], idempotency_keys=["1"])
    assert len(broker.records) == 2


@pytest.mark.parametrize("chunk", [0, 1001])
def test_a_chunk_has_bounds(client: Any, broker: MemoryBroker, chunk: int) -> None:
    """No script is empty or endless."""
    with pytest.raises(ValueError, match="chunk must be from 1 to 1000"):
        client.submit_many(QUEUE, [1], chunk=chunk)
    assert broker.records == {}


def test_a_part_has_few_bytes_of_payloads() -> None:
    """What is sent ahead of a call is bounded; a payload that is larger goes by itself."""
    sizes = [1, UPLOAD_AT_MOST - 1, 1, UPLOAD_AT_MOST + 1, 5, None]
    made = [
        Submission(job_id=str(at), list_index=0, message=b"", payload=None if size is None else bytes(size))
        for at, size in enumerate(sizes)
    ]
    assert [[job.job_id for job in part] for part in parts(made, 64)] == [["0", "1"], ["2"], ["3"], ["4", "5"]]
    assert [len(part) for part in parts(made[4:] * 3, 4)] == [4, 2]
    assert parts([], 64) == []


# Results


def test_a_result_that_doesnt_come_in_time_goes_on(client: Any, broker: MemoryBroker) -> None:
    """The timeout says where the job stands; asking again is answered."""
    client.submit(QUEUE, "before")
    job = client.submit(QUEUE, "good")
    with pytest.raises(errors.ResultTimeout, match=r"in queue 'sentiment' \(jobs before it: 1\) after 0 s"):
        job.result(0)
    with pytest.raises(TimeoutError):
        job.result(0.01)
    with testing.answering(broker, QUEUE, str.upper):
        assert job.result(PATIENCE_SECONDS) == "GOOD"


@pytest.mark.parametrize("kind", list(errors.JOB_ERRORS.values()))
def test_a_failed_job_raises_what_the_worker_meant(
    client: Any, broker: MemoryBroker, kind: type[errors.JobError]
) -> None:
    """The error's class and text come back."""
    job = client.submit(QUEUE, "good")
    finish(*take(broker), kind("what went wrong"))
    with pytest.raises(kind):
        job.result(PATIENCE_SECONDS)
    assert job.status() in {JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.EXPIRED}


@pytest.mark.parametrize("job_id", ["stranger", "", "x" * 1000, "a\nb", "\ud800"])
def test_a_stranger_is_unknown(client: Any, job_id: str) -> None:
    """An id that can't be one is a job that can't be; no broker is bothered with it."""
    assert client.status(job_id) is JobStatus.UNKNOWN
    for ask in (client.job(job_id).result, client.job(job_id).cancel, lambda: client.results([job_id])):
        with pytest.raises(errors.UnknownJob, match="submit it again") as caught:
            ask()
        assert len(str(caught.value)) < 400


def test_results_tell_how_each_job_ended(client: Any, broker: MemoryBroker) -> None:
    """Answers and errors come in the order of the ids, and nothing is raised for a job that failed."""

    def answer(n: int) -> int:
        if n == 3:
            raise errors.InvalidInput("no threes")
        return n * n

    jobs = client.submit_many(QUEUE, range(100))
    with testing.answering(broker, QUEUE, answer):
        results = client.results([job.id for job in jobs], PATIENCE_SECONDS)
    assert [result.value for result in results] == [None if n == 3 else n * n for n in range(100)]
    assert (results[3].status, str(results[3].error)) == (JobStatus.FAILED, "no threes")
    assert client.results([]) == []


def test_a_known_job_id_is_that_job(client: Any, broker: MemoryBroker) -> None:
    """Submitting an id again enqueues nothing, as after a reply that was lost."""
    assert client.submit(QUEUE, "a", job_id="mine").id == client.submit(QUEUE, "b", job_id="mine").id == "mine"
    assert len(take(broker, 9)[1].jobs) == 1


def test_results_of_a_stranger_or_too_late_are_told(client: Any) -> None:
    """Waiting for many ends with an error when it can't end well."""
    job = client.submit(QUEUE, "good")
    with pytest.raises(errors.ResultTimeout, match=r"1 of 1 jobs haven't ended after 0\.01 s"):
        client.results([job.id], 0.01)
    job.cancel()
    with pytest.raises(errors.UnknownJob, match="'stranger'"):
        client.results([job.id, "stranger"], 0)


def test_cancel_ends_a_job(client: Any, broker: MemoryBroker) -> None:
    """A cancelled job says so at once; one that has ended isn't cancelled."""
    job, other = client.submit(QUEUE, "good"), client.submit(QUEUE, "bad")
    assert job.cancel() is True
    assert job.status() is JobStatus.CANCELLED
    with pytest.raises(errors.JobCancelled):
        job.result()
    assert job.cancel() is False
    with testing.answering(broker, QUEUE, str.upper) as started:
        assert other.result(PATIENCE_SECONDS) == "BAD"
    assert [each.id for each in started] == [other.id]


def test_queues_are_reported(client: Any) -> None:
    """Every known queue tells how many jobs wait."""
    client.submit_many(QUEUE, range(3))
    (report,) = client.queues()
    assert (report.info.name, sum(report.waiting.values())) == (QUEUE, 3)


# Bulk


def test_map_answers_in_order(client: Any, broker: MemoryBroker) -> None:
    """Any number of inputs come back as answers in their order."""
    with testing.answering(broker, QUEUE, lambda n, by: n * by):
        assert list(client.map(QUEUE, iter(range(1000)), {"by": 2}, timeout=PATIENCE_SECONDS)) == list(
            range(0, 2000, 2)
        )
        assert list(client.map(QUEUE, [], {"by": 2})) == []


@pytest.mark.parametrize("window", [1, 2, 7, 64, 200])
def test_map_keeps_to_its_window(client: Any, broker: MemoryBroker, window: int) -> None:
    """Inputs are drawn as answers are given, never further ahead than the window."""
    drawn = given = ahead = 0

    def inputs() -> Iterator[int]:
        nonlocal drawn, ahead
        for n in range(150):
            drawn += 1
            ahead = max(ahead, drawn - given)
            yield n

    with testing.answering(broker, QUEUE, lambda n: n):
        for answer in client.map(QUEUE, inputs(), window=window, timeout=PATIENCE_SECONDS):
            assert answer == given
            given += 1
    assert given == 150
    assert ahead <= window


def test_map_waits_for_room(client: Any, broker: MemoryBroker) -> None:
    """A full queue is no error of a bulk run, and no job is lost or doubled by it."""
    with testing.answering(broker, QUEUE, lambda n: n, max_depth=3) as started:
        assert list(client.map(QUEUE, range(60), timeout=PATIENCE_SECONDS)) == list(range(60))
    assert [job.inputs for job in started] == list(range(60))


def test_map_raises_an_error_at_its_place_and_cancels_the_rest(client: Any, broker: MemoryBroker) -> None:
    """Answers before the error are given, jobs after it don't run on for nobody."""
    answers: list[int] = []
    running = client.map(QUEUE, [1, 2, 0, *range(1, 50)], timeout=PATIENCE_SECONDS)
    with testing.answering(broker, QUEUE, lambda n: 6 // n), pytest.raises(errors.InferenceFailed):
        answers.extend(running)
    assert answers == [6, 3]
    assert broker.records == {}


def test_map_returns_errors_if_told_to(client: Any, broker: MemoryBroker) -> None:
    """One bad input fails alone, whether the worker or the client refuses it."""
    inputs = [3, 0, {1, 2}, "x" * 100_000, 2]
    with testing.answering(broker, QUEUE, lambda n: 6 // n, max_input_bytes=100_000):
        first, *bad, last = client.map(QUEUE, inputs, timeout=PATIENCE_SECONDS, return_errors=True)
    assert (first, last) == (2, 3)
    assert [type(error) for error in bad] == [
        errors.InferenceFailed,
        errors.NotSerialisable,
        errors.PayloadTooLarge,
    ]


def test_closing_a_map_cancels_what_is_on_its_way(client: Any, broker: MemoryBroker) -> None:
    """Who stops half-way leaves no work behind."""
    running = client.map(QUEUE, range(80), window=40, timeout=PATIENCE_SECONDS)
    worker = MemoryJobStore(broker, QUEUE)
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: finish(worker, until(lambda: _some(worker), "a job"), "first"))
    thread.start()
    answers.append(next(running))
    thread.join()
    running.close()
    assert answers == ["first"]
    assert broker.records == {}
    assert {client.status(job_id) for job_id in broker.results} == {JobStatus.SUCCEEDED, JobStatus.CANCELLED}


def _some(worker: MemoryJobStore) -> Taken | None:
    taken = worker.take(1)
    return taken if taken.jobs else None


def test_map_gives_up_in_time(client: Any, broker: MemoryBroker) -> None:
    """Without workers the timeout of the next answer ends the run, and its jobs."""
    with pytest.raises(errors.ResultTimeout, match=r"didn't answer input 0 .* in 0.05 s"):
        list(client.map(QUEUE, range(10), timeout=0.05))
    assert broker.records == {}
    assert len(broker.results) == 10


def test_map_tells_its_progress(client: Any, broker: MemoryBroker) -> None:
    """The numbers of ended and drawn jobs only grow, and end at the number of inputs."""
    told: list[tuple[int, int]] = []
    with testing.answering(broker, QUEUE, lambda n: n):
        list(
            client.map(
                QUEUE,
                [*range(99), {1, 2}],
                window=10,
                return_errors=True,
                timeout=PATIENCE_SECONDS,
                on_progress=lambda *numbers: told.append(numbers),
            )
        )
    assert told == sorted(told)
    assert told[-1] == (100, 100)


def test_map_reads_parameters_when_it_draws_an_input(client: Any, broker: MemoryBroker) -> None:
    """A caller may change the mapping between two inputs."""
    parameters: dict[str, int] = {}

    def inputs() -> Iterator[int]:
        for n in range(100):
            parameters["by"] = n
            yield n

    with testing.answering(broker, QUEUE, lambda n, by: n * by):
        answers = list(client.map(QUEUE, inputs(), parameters, timeout=PATIENCE_SECONDS))
    assert answers == [n * n for n in range(100)]


def test_map_passes_options_on(client: Any, broker: MemoryBroker) -> None:
    """Jobs of a bulk run can be the least urgent, and can have a deadline that counts from their submission."""
    with testing.answering(broker, QUEUE, lambda n: n) as started:
        list(client.map(QUEUE, range(3), priority=9, expires=60, timeout=PATIENCE_SECONDS))
    assert [job.priority for job in started] == [9, 9, 9]
    assert all(job.expires for job in started)


@pytest.mark.parametrize(
    ("options", "message"), [({"window": 0}, "window must be 1"), ({"priority": 10}, "priority must be")]
)
def test_map_checks_its_options_at_once(client: Any, options: dict[str, Any], message: str) -> None:
    """A slip isn't found only when the first answer is asked for."""
    with pytest.raises(ValueError, match=message):
        client.map(QUEUE, [1], **options)


def test_map_needs_a_known_queue(client: Any) -> None:
    """An unknown queue is told by the first answer asked for."""
    with pytest.raises(errors.UnknownQueue, match="did you mean 'sentiment'"):
        next(client.map("sentimnet", [1]))


class AwayStore(MemoryQueueStore):
    """A broker that restarts: calls fail while it is away, after they were heard or before."""

    def __init__(self, broker: MemoryBroker):
        super().__init__(broker)
        self.calls = 0
        self.away: Callable[[int], bool] = lambda call: call % 3 == 1
        self.error: Exception = errors.BrokerUnavailable("away")

    def enqueue(self, queue: str, submissions: Sequence[Submission]) -> Accepted | None:
        """Accept jobs; sometimes the reply is lost."""
        accepted = super().enqueue(queue, submissions)
        self._fail()
        return accepted

    def standings(self, job_ids: Sequence[str]) -> list[Standing]:
        """What is known of each job, if the broker is there."""
        self._fail()
        return super().standings(job_ids)

    def _fail(self) -> None:
        self.calls += 1
        if self.away(self.calls):
            raise self.error


def test_map_outlives_a_broker_that_restarts(build: Build, broker: MemoryBroker) -> None:
    """Lost replies neither end the run nor run a job twice."""
    client = build(AwayStore(broker))
    with testing.answering(broker, QUEUE, lambda n: n) as started:
        assert list(client.map(QUEUE, range(200), window=20, timeout=PATIENCE_SECONDS)) == list(range(200))
    assert [job.inputs for job in started] == list(range(200))


def test_map_gives_up_on_a_broker_that_stays_away(
    build: Build, broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own error ends the run when patience is over."""
    monkeypatch.setattr(bulk, "BROKER_PATIENCE_SECONDS", 0.05)
    store = AwayStore(broker)
    store.away = lambda call: call > 1
    with pytest.raises(errors.BrokerUnavailable, match="away"):
        list(build(store).map(QUEUE, range(5)))


def test_map_cancels_jobs_whose_acceptance_it_didnt_hear_of(build: Build, broker: MemoryBroker) -> None:
    """Whatever breaks a run off between sending and hearing leaves no work behind."""
    store = AwayStore(broker)
    store.error = RuntimeError("broken off")
    with pytest.raises(RuntimeError, match="broken off"):
        next(build(store).map(QUEUE, range(5)))
    assert (len(broker.results), broker.records) == (5, {})


# The client itself


def test_threads_share_a_client(broker: MemoryBroker) -> None:
    """Every thread gets its own answers."""
    client, wrong = testing.client(broker), []

    def work(start: int) -> None:
        wrong.extend(n for n in range(start, start + 20) if client.run(QUEUE, n, timeout=PATIENCE_SECONDS) != n)

    with testing.answering(broker, QUEUE, lambda n: n):
        threads = [threading.Thread(target=work, args=(start * 100,)) for start in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_handles_of_one_job_are_equal(broker: MemoryBroker) -> None:
    """Handles compare and hash by id, and show no inputs."""
    with testing.client(broker) as client:
        job = client.submit(QUEUE, "secret text", job_id="a")
        assert job == client.job("a")
        assert len({job, client.job("a"), client.job("b")}) == 2
        assert job != "a"
        assert repr(job) == "Job(id='a', queue='sentiment')"
        assert [result.status for result in client.results([job] if job.cancel() else [])] == [JobStatus.CANCELLED]


def test_the_broker_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The argument wins over the environment, which wins over the catalogue, which wins over localhost."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PIPEMILL_BROKER", raising=False)
    monkeypatch.delenv("PIPEMILL_CATALOGUE", raising=False)
    file = tmp_path / "some.yaml"
    file.write_text("broker: redis://catalogue:6379/1\nqueues: {mirror: {task: echo}}")

    def url(*args: Any, **options: Any) -> str:
        with Client(*args, **options) as client:
            return client._store.url.url

    assert url() == "redis://localhost:6379/0"
    assert url(catalogue=file) == "redis://catalogue:6379/1"
    monkeypatch.setenv("PIPEMILL_BROKER", "redis://environment:6379/2")
    assert url(catalogue=file) == "redis://environment:6379/2"
    assert url("redis://argument:6379/3", catalogue=file) == "redis://argument:6379/3"


def test_a_url_that_isnt_one_is_refused() -> None:
    """The error names the forms there are, and hides the password."""
    with pytest.raises(errors.ConfigurationError, match="redis://, rediss:// or unix://") as caught:
        Client("http://user:hunter2@host")
    assert "hunter2" not in str(caught.value)


def test_priorities_are_filed_as_kombu_does() -> None:
    """A client's list for a priority is the list in which a Celery worker would look."""
    assert [names.priority_step(priority) for priority in range(10)] == [0, 0, 0, 3, 3, 3, 6, 6, 6, 9]
