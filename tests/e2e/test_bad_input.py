"""One bad job fails alone, with a text that says what to do; its neighbours are answered and the worker lives."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
import redis

from pipemill import Client, errors
from pipemill.client import Job
from pipemill.protocol import names
from tests.e2e.mill import Mill
from tests.e2e.rig import Serve, report_on
from tests.helpers import until
from tests.unit.pipelines.tiny import WORDS, assert_same

QUEUE = "text-classification"
GOOD = "river stone cloud"


@pytest.fixture(autouse=True)
def neighbours(mill: Mill) -> Iterator[None]:
    """Around each test's bad jobs there are good ones, which are answered; the worker survives."""
    before = mill.client.submit_many(QUEUE, [GOOD] * 8)
    yield
    after = mill.client.submit_many(QUEUE, [GOOD] * 8)
    expected = mill.pipeline(QUEUE)(GOOD)
    for result in mill.client.results([*before, *after], timeout=60):
        assert_same(result.get(), expected)
    assert not mill.worker.ended


def test_a_poisoned_text_in_a_batch(mill: Mill) -> None:
    """A text on which the forward pass itself fails costs its 63 neighbours nothing."""
    texts = [WORDS[index % len(WORDS)] for index in range(64)]
    texts[40] = "example"
    jobs = mill.client.submit_many("poisoned", texts)
    results = mill.client.results(jobs, timeout=60)
    pipe = mill.pipeline(QUEUE, mill.models / "poisoned")
    with pytest.raises(errors.InferenceFailed, match="the pipeline raised IndexError: index out of range"):
        results[40].get()
    for index in (index for index in range(64) if index != 40):
        assert_same(results[index].get(), pipe(texts[index]))


@pytest.mark.parametrize(
    ("inputs", "error", "text"),
    [
        (17, errors.InvalidInput, "the input must be a string, not a number"),
        (None, errors.InvalidInput, "not null"),
        ("", errors.InvalidInput, "empty string"),
        ([], errors.InvalidInput, "the list of texts is empty"),
        ([GOOD, 17], errors.InvalidInput, "element 1 of the inputs must be a string"),
        ({"txt": GOOD}, errors.InvalidInput, "must have the keys 'text'"),
        ([GOOD] * 1025, errors.InvalidInput, "1025 texts in one job"),
        ("river " * 700, errors.InputTooLong, '702 tokens, the model takes at most 512: pass {"truncation": true}'),
    ],
    ids=["number", "null", "empty", "none", "element", "key", "many", "long"],
)
def test_bad_inputs(inputs: Any, error: type[errors.JobError], text: str, mill: Mill) -> None:
    """What the pipeline can't take is refused with what was given and what is taken."""
    with pytest.raises(error) as raised:
        mill.client.run(QUEUE, inputs, timeout=60)
    assert text in str(raised.value)
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"trust_remote_code": True}, "trust_remote_code"),
        ({"top_q": 3}, "did you mean top_k"),
        ({"top_k": "three"}, "top_k"),
        ({"batch_size": 8}, "batch_size"),
    ],
    ids=["forbidden", "unknown", "type", "operators"],
)
def test_bad_parameters(parameters: dict[str, Any], text: str, mill: Mill) -> None:
    """An unknown, a forbidden or a wrong parameter is named."""
    with pytest.raises(errors.InvalidParameter) as raised:
        mill.client.run(QUEUE, GOOD, parameters, timeout=60)
    assert text in str(raised.value)


def message(body: Any = None, *, body_text: str | None = None, **changes: Any) -> dict[str, Any]:
    """A Celery message for a job, with a mistake in it."""
    task, job_id = changes.pop("task", names.TASK_NAME), changes.pop("id", str(uuid4()))
    encoded = json.dumps([[GOOD], {}, {}] if body is None else body).encode()
    return {
        "body": b64encode(encoded).decode() if body_text is None else body_text,
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"id": job_id, "task": task},
        "properties": {"body_encoding": "base64"},
        **changes,
    }


def nested(depth: int) -> Any:
    """Lists in lists."""
    value: Any = GOOD
    for _ in range(depth):
        value = [value]
    return value


MALFORMED: dict[str, tuple[dict[str, Any], type[errors.JobError], str]] = {
    "task name": (message(task="tasks.add"), errors.MalformedJob, "answers to the task name 'pipemill.infer'"),
    "pickle": (
        message(**{"content-type": "application/x-python-serialize"}),
        errors.MalformedJob,
        "set task_serializer='json'",
    ),
    "no argument": (message([[], {}, {}]), errors.MalformedJob, "exactly one positional argument"),
    "two arguments": (message([[GOOD, GOOD], {}, {}]), errors.MalformedJob, "got 2"),
    "no list": (message({"args": [GOOD]}), errors.MalformedJob, "[[inputs], {parameters}, {...}]"),
    "base64": (message(body_text="%%%"), errors.MalformedJob, "isn't base64"),
    "no JSON": (message(body_text=b64encode(b"{").decode()), errors.MalformedJob, "must be JSON"),
    "no body": (message(body=None) | {"body": None}, errors.MalformedJob, "the message has no body"),
    "eta": (message(headers={"id": "eta-job", "task": names.TASK_NAME, "eta": "soon"}), errors.MalformedJob, "'eta'"),
    "nested": (message([[nested(300)], {}, {}]), errors.InvalidInput, "element 0 of the inputs must be a string"),
    "null parameters": (message([[GOOD], None, {}]), errors.MalformedJob, "keyword arguments"),
    "deep parameter": (message([[GOOD], {"top_k": nested(300)}, {}]), errors.InvalidParameter, "top_k"),
    "link error": (message([[17], {}, {"errbacks": "x"}]), errors.InvalidInput, "must be a string"),
    "chain": (message([[GOOD], {}, {"chain": {"task": 1}}]), errors.MalformedJob, "can't be followed"),
}


@pytest.mark.parametrize("mistake", MALFORMED)
def test_malformed_messages_with_an_id(mistake: str, mill: Mill) -> None:
    """A message that is no job, but has an id, fails under that id."""
    raw, error, text = MALFORMED[mistake]
    with redis.Redis.from_url(mill.url) as broker:
        broker.lpush(QUEUE, json.dumps(raw))
    result = until(lambda: result_of(mill.url, raw["headers"]["id"]), "the job has ended")
    assert result["status"] == "FAILURE"
    assert result["result"]["exc_type"] == error.__name__
    assert text in result["result"]["exc_message"][0]


def result_of(url: str, job_id: str) -> Any:
    """A result document as any Celery client reads it."""
    with redis.Redis.from_url(url) as broker:
        document = broker.get(names.result_key(job_id))
    return json.loads(document) if document else None


@pytest.mark.parametrize(
    "raw",
    [
        b"not JSON",
        b"",
        b"{}",
        b"[]",
        b"null",
        b'{"headers": {"task": "pipemill.infer"}}',
        b"\x80\x05K\x01.",
        b"[" * 9999,
    ],
    ids=["text", "empty", "object", "list", "null", "no id", "pickle", "deep"],
)
def test_malformed_messages_without_an_id(raw: bytes, mill: Mill) -> None:
    """A message with nobody to answer to is kept as a dead letter, as it came."""
    before = report_on(mill.client, QUEUE).totals.get("dead", 0)
    with redis.Redis.from_url(mill.url) as broker:
        broker.lpush(QUEUE, raw)
        until(lambda: report_on(mill.client, QUEUE).totals.get("dead", 0) == before + 1, "the message is dead")
    (letter,) = mill.client.dead.latest(QUEUE, 1)
    assert (letter.id[:11], letter.error) == ("unreadable-", "MalformedJob")
    assert mill.client.dead.show(QUEUE, letter.id).message == raw


def test_oversized_inputs_are_refused_at_once(mill: Mill) -> None:
    """Our client doesn't send inputs larger than the queue takes."""
    with pytest.raises(errors.PayloadTooLarge, match="100000"):
        mill.client.submit("echo", "x" * 100_001)


def test_oversized_inputs_of_others_fail(mill: Mill) -> None:
    """Inputs that another client sent although they are too large fail; those within the limit are answered."""
    raw = message([["x" * 200_000], {}, {}])
    with redis.Redis.from_url(mill.url) as broker:
        broker.lpush("echo", json.dumps(raw))
    result = until(lambda: result_of(mill.url, raw["headers"]["id"]), "the job has ended")
    assert result["result"]["exc_type"] == "InvalidInput"
    assert "larger than the 100000 bytes" in result["result"]["exc_message"][0]
    text = "x" * 90_000
    assert mill.client.run("echo", text, timeout=60) == text


@pytest.mark.parametrize("canvas", [{"callbacks": [17]}, {"callbacks": 3}, {"errbacks": [[]]}, {"chord": "x"}])
@pytest.mark.parametrize("inputs", [GOOD, 17], ids=["success", "failure"])
def test_garbage_behind_a_job(inputs: Any, canvas: dict[str, Any], mill: Mill) -> None:
    """Whatever stands where a link, an errback or a chord belongs: the job ends, one way or the other."""
    raw = message([[inputs], {}, canvas])
    raw["headers"]["group"] = "no-group"
    with redis.Redis.from_url(mill.url) as broker:
        broker.lpush(QUEUE, json.dumps(raw))
    result = until(lambda: result_of(mill.url, raw["headers"]["id"]), "the job has ended")
    assert result["status"] in {"SUCCESS", "FAILURE"}


def test_an_answer_that_cant_be_written(mill: Mill) -> None:
    """An answer nested deeper than JSON writers go is told as such."""
    raw = message([[nested(300)], {}, {}])
    with redis.Redis.from_url(mill.url) as broker:
        broker.lpush("echo", json.dumps(raw))
    result = until(lambda: result_of(mill.url, raw["headers"]["id"]), "the job has ended")
    assert result["result"]["exc_type"] == "ResultNotSerialisable"


def test_a_full_queue_refuses(mill: Mill) -> None:
    """Above its depth a queue refuses at once, and says which jobs were accepted and when to come back."""
    with pytest.raises(errors.QueueFull) as raised:
        mill.client.submit_many("small", range(8))
    assert len(raised.value.accepted) == 5
    assert raised.value.retry_after > 0
    with pytest.raises(errors.QueueFull):
        mill.client.submit("small", "one more")
    accepted = [mill.client.job(job_id) for job_id in raised.value.accepted]
    assert all(job.cancel() for job in accepted)


def test_a_full_queue_takes_again(serve: Serve, client: Client) -> None:
    """Once a worker came, what was refused is accepted, and everything is answered."""
    catalogue = serve.catalogue("queues: {small: {task: echo, limits: {max_depth: 5}}}")
    with Client(serve.broker, catalogue=catalogue) as early, pytest.raises(errors.QueueFull) as raised:
        early.submit_many("small", range(8))
    serve(catalogue)
    first = client.results(raised.value.accepted, timeout=60)
    assert [result.get() for result in first] == list(range(5))

    def accepted() -> Job | None:
        try:
            return client.submit("small", "late")
        except errors.QueueFull:
            return None

    late = until(accepted, "the queue takes again")
    assert late is not None
    assert late.result(timeout=60) == "late"
