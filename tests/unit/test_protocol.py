"""The wire contract: our messages and results against Celery's and kombu's own code, and against garbage."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import orjson
import pytest
from celery import Celery
from celery.app.task import Context
from celery.exceptions import TaskRevokedError
from celery.worker.request import Request
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from kombu.transport.redis import Channel
from kombu.transport.virtual import Message
from kombu.utils.json import dumps

from pipemill.errors import JOB_ERRORS, JobCancelled, JobError, JobExpired, JobFailed, MalformedJob, NotSerialisable
from pipemill.protocol import (
    Job,
    JobStatus,
    decode_arguments,
    decode_message,
    decode_result,
    encode_arguments,
    encode_failure,
    encode_message,
    encode_success,
    message_bytes,
    message_id,
    message_tenant,
    names,
    split_deliveries,
)

QUEUE: Final = "sentiment"
#: A loaded machine is no failure: examples may take their time.
patient = settings(deadline=None)
#: The start of a result document that the scripts look at to see whether a job has ended.
STATUS: Final = re.compile(rb'^{"status": ?"([A-Z]+)"')

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
)


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Lists and objects of what ``inner`` makes."""
    return st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4)


JSON = st.recursive(SCALARS | TEXT, nested, max_leaves=20)
PARAMETERS = st.dictionaries(TEXT, JSON, max_size=4)
IDS = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=names.MAX_ID_LENGTH)
MOMENTS = st.none() | st.floats(0, 253_402_300_799)


@pytest.fixture(scope="module")
def app() -> Iterator[Celery]:
    """A Celery application over a broker and a result backend in memory."""
    with Celery("contract", broker="memory://", backend="cache+memory://", set_as_current=False) as made:

        def infer(*_inputs: Any, **_parameters: Any) -> None:
            """Stand in for the lanes' task."""

        made.task(name=names.TASK_NAME)(infer)
        yield made


def sent(app: Celery, **options: Any) -> bytes:
    """A message as Celery makes it, and as kombu's Redis transport would store it."""
    app.send_task(names.TASK_NAME, queue=QUEUE, **options)
    with app.connection_for_write() as connection:
        return dumps(connection.default_channel._get(QUEUE)).encode()  # type: ignore[no-any-return]  # kombu is untyped


# -- messages


@patient
@given(JSON, PARAMETERS, IDS, MOMENTS, MOMENTS, st.booleans(), st.integers(0, 9))
def test_messages_round_trip(  # noqa: PLR0913, PLR0917  # each is a field of the message
    inputs: Any, parameters: Any, job_id: str, eta: Any, expires: Any, ignore: Any, priority: Any
) -> None:
    """What a client puts into a message is what a worker reads from it."""
    raw = encode_message(
        job_id,
        QUEUE,
        encode_arguments(inputs, parameters),
        eta=eta,
        expires=expires,
        ignore_result=ignore,
        priority=priority,
    )
    job = decode_message(raw, QUEUE)
    assert (job.id, job.queue, job.inputs, job.parameters) == (job_id, QUEUE, inputs, parameters)
    assert (job.ignore_result, job.priority, job.by_reference, job.has_canvas) == (ignore, priority, False, False)
    for read, given_moment in ((job.eta, eta), (job.expires, expires)):
        assert (read is None) == (given_moment is None)
        assert read is None or math.isclose(read, given_moment, abs_tol=1e-5)
    assert message_id(raw) == job_id


def test_an_id_without_bytes_is_none() -> None:
    """Half a surrogate pair, which JSON can spell, can't be part of a key: such a message has no id to answer to."""
    raw = b'{"headers": {"id": "a\\ud800", "task": "pipemill.infer"}}'
    assert message_id(raw) is None
    assert_read_or_refused(raw)


@patient
@given(JSON, PARAMETERS)
def test_payloads_sent_by_reference_round_trip(inputs: Any, parameters: Any) -> None:
    """A message by reference says so and holds no inputs; the payload beside it holds them."""
    arguments = encode_arguments(inputs, parameters)
    job = decode_message(encode_message("a", QUEUE, arguments, by_reference=True), QUEUE)
    assert job.by_reference
    assert (job.inputs, job.parameters) == (None, {})
    assert decode_arguments(arguments)[:2] == (inputs, parameters)


@pytest.mark.parametrize(
    "inputs",
    [math.nan, [1.0, -math.inf], {"a": {"b": math.inf}}, {1: "a"}, b"bytes", {1, 2}, 2**64, "\ud800", object()],
)
def test_what_json_has_no_form_for_is_not_sent(inputs: Any) -> None:
    """Anything that would arrive as something else is refused, as inputs and among parameters."""
    with pytest.raises(NotSerialisable):
        encode_arguments(inputs, {})
    with pytest.raises(NotSerialisable):
        encode_arguments("text", {"parameter": inputs})


def test_the_word_null_is_a_text() -> None:
    """Inputs that look like nothing, or that hold it, are no NaN."""
    inputs = ["null", None, "null null null null null null"]
    assert decode_arguments(encode_arguments(inputs, {}))[0] == inputs


@patient
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    """Garbage raises MalformedJob and nothing else."""
    assert_read_or_refused(raw)


@patient
@given(JSON)
def test_any_json_is_read_or_refused(value: Any) -> None:
    """JSON that is no message raises MalformedJob and nothing else."""
    assert_read_or_refused(orjson.dumps(value))


HEADERS = st.fixed_dictionaries(
    {"id": IDS | JSON, "task": st.just(names.TASK_NAME) | JSON},
    optional={
        "eta": st.datetimes().map(datetime.isoformat) | JSON,
        "expires": st.datetimes().map(datetime.isoformat) | JSON,
        "ignore_result": JSON,
        "compression": JSON,
        "group": JSON,
        names.PAYLOAD_HEADER: JSON,
    },
)
BODIES = JSON | st.tuples(st.lists(JSON, max_size=2) | JSON, PARAMETERS | JSON, JSON).map(dumps)
MESSAGES = st.fixed_dictionaries(
    {"headers": HEADERS, "body": BODIES, "content-type": st.just("application/json") | JSON},
    optional={"properties": st.fixed_dictionaries({}, optional={"body_encoding": JSON, "priority": JSON}) | JSON},
)


@patient
@given(MESSAGES)
def test_almost_messages_are_read_or_refused(message: Any) -> None:
    """A message with anything in any of its places raises MalformedJob and nothing else."""
    assert_read_or_refused(orjson.dumps(message))


def assert_read_or_refused(raw: bytes) -> None:
    """It is a job of its own id, or MalformedJob says what a job looks like."""
    found = message_id(raw)
    assert found is None or 0 < len(found) <= names.MAX_ID_LENGTH
    try:
        job = decode_message(raw, QUEUE)
    except MalformedJob as error:
        text = str(error)
    else:
        assert isinstance(job, Job)
        assert job.id == found
        assert isinstance(job.parameters, dict)
        return
    assert 0 < len(text) < 400


@patient
@given(st.binary(max_size=100))
def test_any_body_is_read_or_refused(body: bytes) -> None:
    """A body that is no body raises MalformedJob and nothing else."""
    try:
        _, parameters, canvas = decode_arguments(body)
    except MalformedJob:
        return
    assert isinstance(parameters, dict)
    assert isinstance(canvas, dict)


# -- Celery's messages, and ours in Celery's hands


def test_celerys_messages_are_jobs(app: Celery) -> None:
    """A message from send_task with all its options is read as a job with the same options."""
    link = app.signature("after.that", queue="other")
    raw = sent(
        app,
        args=[["river", "stone"]],
        kwargs={"top_k": 2},
        task_id="job-1",
        eta=datetime(2050, 1, 2, tzinfo=UTC),
        expires=datetime(2051, 1, 2, tzinfo=UTC),
        priority=6,
        ignore_result=True,
        link=link,
    )
    job = decode_message(raw, QUEUE)
    assert (job.id, job.inputs, job.parameters) == ("job-1", ["river", "stone"], {"top_k": 2})
    assert job.eta == datetime(2050, 1, 2, tzinfo=UTC).timestamp()
    assert job.expires == datetime(2051, 1, 2, tzinfo=UTC).timestamp()
    assert (job.priority, job.ignore_result, job.has_canvas) == (6, True, True)
    assert job.canvas["callbacks"][0]["task"] == "after.that"


def test_a_plain_celery_message_has_no_canvas(app: Celery) -> None:
    """Nothing follows a job to which nothing was linked."""
    job = decode_message(sent(app, args=["river"]), QUEUE)
    assert (job.has_canvas, job.eta, job.expires, job.ignore_result) == (False, None, None, False)


@patient
@given(JSON, PARAMETERS, st.floats(1e9, 4e9), st.integers(0, 9))
def test_our_messages_are_celerys(app: Celery, inputs: Any, parameters: Any, moment: float, priority: int) -> None:
    """Celery's and kombu's own request parsing read our message: name, id, arguments, times and priority."""
    arguments = encode_arguments(inputs, parameters)
    raw = encode_message("job-1", QUEUE, arguments, eta=moment, expires=moment + 60, priority=priority)
    with app.connection_for_write() as connection:
        message = Message(json.loads(raw), channel=connection.default_channel)
        request = Request(message, app=app)
    assert (request.name, request.id, request.root_id) == (names.TASK_NAME, "job-1", "job-1")
    args, kwargs, embed = message.payload
    assert (args, kwargs) == ([inputs], parameters)
    assert embed == {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    assert request.eta.timestamp() == pytest.approx(moment, abs=1e-4)
    assert request.expires.timestamp() == pytest.approx(moment + 60, abs=1e-4)
    assert request.delivery_info["priority"] == priority
    assert request.delivery_info["routing_key"] == QUEUE


@patient
@given(st.integers(-3, 300))
def test_priorities_are_kombus(priority: int) -> None:
    """A job of any priority lies in the list where kombu would put it, and our lists are all of kombu's."""
    channel = Channel.__new__(Channel)
    kombus = channel._get_message_priority({"properties": {"priority": priority}}, reverse=False)
    assert names.list_key(QUEUE, names.priority_step(priority)) == channel._q_for_pri(QUEUE, kombus)
    assert names.list_keys(QUEUE) == [channel._q_for_pri(QUEUE, step) for step in Channel.priority_steps]


# -- delivery marks


@patient
@given(st.integers(0, 10**6), st.binary(max_size=50))
def test_delivery_marks_round_trip(count: int, raw: bytes) -> None:
    """The number of deliveries is told apart from the message, whatever the message is."""
    assume(raw[:1] != names.DELIVERY_MARK)
    marked = names.DELIVERY_MARK + str(count).encode() + names.DELIVERY_END + raw
    assert split_deliveries(marked) == (count, raw)
    assert split_deliveries(raw) == (0, raw)


@patient
@given(st.binary(max_size=30).map(lambda rest: names.DELIVERY_MARK + rest))
def test_a_broken_mark_is_part_of_the_message(stored: bytes) -> None:
    """Bytes that only begin like a mark lose nothing."""
    count, raw = split_deliveries(stored)
    assert count >= 0
    assert stored.endswith(raw)


def test_an_absurd_count_is_no_mark() -> None:
    """A count of thousands of digits, which only an attacker writes, doesn't stop the intake."""
    stored = names.DELIVERY_MARK + b"9" * 5_000 + names.DELIVERY_END + b"{}"
    assert split_deliveries(stored) == (0, stored)


# -- results

ANSWERS = st.recursive(SCALARS | TEXT | st.sampled_from([math.nan, math.inf, -math.inf]), nested, max_leaves=20)


def same(one: Any, other: Any) -> bool:
    """Equal, NaN being NaN."""
    return json.dumps(one) == json.dumps(other)


@patient
@given(ANSWERS)
def test_answers_round_trip(app: Celery, answer: Any) -> None:
    """An answer is read back by us and by Celery, NaN and infinities included, and shows the scripts its status."""
    document = encode_success("job-1", answer, links={"group_id": "g"})
    result = decode_result("job-1", document)
    assert result is not None
    assert result.status is JobStatus.SUCCEEDED
    assert same(result.get(), answer)
    meta = app.backend.decode_result(document)
    assert (meta["status"], meta["task_id"], meta["group_id"]) == ("SUCCESS", "job-1", "g")
    assert same(meta["result"], answer)
    assert status_in(document) == b"SUCCESS"


def status_in(document: bytes) -> bytes | None:
    """The status as the scripts find it."""
    found = STATUS.match(document)
    return found[1] if found else None


@patient
@given(ANSWERS)
def test_celerys_answers_are_read(app: Celery, answer: Any) -> None:
    """A result that Celery's own backend encoded is read by us, NaN and infinities included."""
    meta = app.backend._get_result_meta(answer, "SUCCESS", None, Context(id="job-1"))
    document = app.backend.encode(meta).encode()
    result = decode_result("job-1", document)
    assert result is not None
    assert same(result.get(), answer)
    assert status_in(document) == b"SUCCESS"


@pytest.mark.parametrize("name", JOB_ERRORS)
def test_errors_round_trip(name: str, app: Celery) -> None:
    """A failure is raised as what the worker meant by us, and by class name or as a revoke by Celery."""
    document = encode_failure("job-1", JOB_ERRORS[name]("what to do"))
    result = decode_result("job-1", document)
    assert result is not None
    with pytest.raises(JOB_ERRORS[name]) as raised:
        result.get()
    raised_by_celery = app.backend.decode_result(document)["result"]
    if name in {"JobCancelled", "JobExpired"}:
        assert isinstance(raised_by_celery, TaskRevokedError)
        assert status_in(document) == b"REVOKED"
    else:
        assert str(raised.value) == "what to do"
        assert (type(raised_by_celery).__name__, str(raised_by_celery)) == (name, "what to do")
        assert status_in(document) == b"FAILURE"


@pytest.mark.parametrize(
    ("state", "error", "status", "kind"),
    [
        ("FAILURE", ValueError("a", 3), JobStatus.FAILED, JobFailed),
        ("FAILURE", JobExpired("late"), JobStatus.FAILED, JobExpired),
        ("REVOKED", TaskRevokedError("revoked"), JobStatus.CANCELLED, JobCancelled),
        ("REVOKED", TaskRevokedError("expired"), JobStatus.EXPIRED, JobExpired),
    ],
)
def test_celerys_errors_are_read(
    state: str, error: Exception, status: JobStatus, kind: type[JobError], app: Celery
) -> None:
    """A failure or revoke that Celery's own backend encoded is one of our errors, and names what it was."""
    meta = app.backend._get_result_meta(app.backend.prepare_exception(error), state, None, Context(id="job-1"))
    result = decode_result("job-1", app.backend.encode(meta).encode())
    assert result is not None
    assert result.status is status
    with pytest.raises(kind) as raised:
        result.get()
    if kind is JobFailed:
        assert str(raised.value) == "ValueError: a; 3"


@pytest.mark.parametrize("state", ["PENDING", "STARTED", "RETRY", "RECEIVED"])
def test_unfinished_results_are_none(state: str, app: Celery) -> None:
    """A document of a task that hasn't ended is no result."""
    meta = app.backend._get_result_meta(None, state, None, Context(id="job-1"))
    assert decode_result("job-1", app.backend.encode(meta).encode()) is None


# -- names


@patient
@given(st.text(st.characters(exclude_characters="|"), min_size=1))
def test_owners_tell_their_queue(queue: str) -> None:
    """The name of a lease's owner holds its queue, and no two are the same."""
    assert names.owner_queue(names.new_owner(queue)) == queue
    assert names.new_owner(queue) != names.new_owner(queue)


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_whose_a_job_is_stands_in_its_message(separators: tuple[str, str]) -> None:
    """Found without reading JSON, as the scripts do it, in messages of ours and of Celery's; never in the inputs."""
    trap = '"pipemill_tenant":"mallory","pipemill_bytes":7,'
    message = json.loads(encode_message("a", QUEUE, encode_arguments([trap], {}), tenant="acme"))
    message["headers"] = {"argsrepr": trap, **message["headers"]}
    raw = json.dumps(message, separators=separators).encode()
    assert (message_tenant(raw), message_bytes(raw)) == ("acme", message["headers"]["pipemill_bytes"])
    message["body"] = json.dumps([[trap], {}, {}])
    del message["headers"]["pipemill_tenant"], message["headers"]["pipemill_bytes"]
    raw = json.dumps(message, separators=separators).encode()
    assert (message_tenant(raw), message_bytes(raw)) == ("", 0)


def test_a_job_counts_for_what_the_broker_holds() -> None:
    """Base64 takes a third more in a message; by reference the payload is as long as it is; each has an envelope."""
    arguments = encode_arguments("x" * 3_000, {})
    inline = message_bytes(encode_message("a", QUEUE, arguments))
    beside = message_bytes(encode_message("a", QUEUE, arguments, by_reference=True))
    assert beside - names.ENVELOPE_BYTES == len(arguments)
    assert 4 * len(arguments) <= 3 * (inline - names.ENVELOPE_BYTES) <= 4 * len(arguments) + 3
