"""The public API as a user writes it. Never executed; mypy checks it strictly, so no public type may be vague."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, assert_type

import pipemill
from pipemill import (
    Array,
    AsyncClient,
    AsyncJob,
    Audio,
    Client,
    DeadLetter,
    Image,
    Incident,
    Job,
    JobError,
    JobInfo,
    JobOptions,
    JobStatus,
    ParameterRefused,
    QueueFull,
    QueueInfo,
    QueueReport,
    Result,
    ResultTimeout,
    RetryLimitReached,
    StreamEvent,
    Usage,
    Video,
    testing,
)


def enqueue_and_poll(texts: list[str]) -> list[Any]:
    """What a web backend does."""
    with Client() as client:
        job = client.submit("sentiment", texts[0])
        assert_type(job, Job)
        assert_type(job.id, str)
        assert_type(job.queue, str | None)
        assert_type(job.status(), JobStatus)
        assert_type(client.job(job.id).status().ended, bool)
        info = job.describe()
        assert_type(info, JobInfo)
        assert_type(info.position, int | None)
        assert_type(info.estimate_seconds, float | None)
        assert_type(job.cancel(), bool)
        assert_type(job.result(), Any)
        jobs = client.submit_many("sentiment", texts, {"top_k": 1}, priority=9, idempotency_keys=texts)
        assert_type(jobs, list[Job])
        results = client.results([*jobs, "an id"], timeout=10)
        assert_type(results, list[Result])
        return [result.value for result in results if result.error is None]


def enqueue_with_all_options(client: Client) -> Any:
    """Every option in each of its forms."""
    moment = datetime.now(UTC) + timedelta(minutes=5)
    client.submit("sentiment", {"any": ["json"]}, priority=3, countdown=1.5, expires=moment, ignore_result=True)
    client.submit("sentiment", "good", eta=moment, expires=60, idempotency_key="order-7", job_id="mine")
    client.submit("sentiment", "good", eta=moment.timestamp())
    options: JobOptions = {"priority": 6, "expires": 60.0}
    return client.run("sentiment", "good", {"top_k": None}, timeout=5, **options)


def follow_a_text(client: Client, last: str | None) -> str:
    """What shows a text while it is written."""
    text = ""
    for event in client.stream("generator", [{"role": "user", "content": "Hi"}], {"max_new_tokens": 5}, timeout=60):
        assert_type(event, StreamEvent)
        text = event.text if event.restarted else text + event.text
        last = event.id
        if event.ended:
            assert_type(event.result, Any)
            assert_type(event.usage, Usage | None)
    job = client.submit("generator", "Hi", stream=True)
    assert_type(job.follow(after=last, timeout=5), Generator[StreamEvent, None, None])
    return text


async def follow_a_text_later(client: AsyncClient, job_id: str) -> int:
    """What another process does."""
    async for event in client.follow(job_id, after="1700000000000-0"):
        if event.usage is not None:
            return event.usage.total_tokens
    return len([event async for event in client.stream("generator", "Hi", priority=3)])


def give_way(client: Client, texts: list[str]) -> tuple[str, ...]:
    """What a careful producer does about errors."""
    try:
        client.submit_many("sentiment", texts, chunk=32)
    except QueueFull as error:
        assert_type(error.retry_after, float)
        return error.accepted
    try:
        client.run("sentiment", texts[0], timeout=5)
    except ResultTimeout as late:
        assert_type(isinstance(late, TimeoutError), bool)
    except JobError as failed:
        return (str(failed),)
    return ()


def run_in_bulk(client: Client, file: Path, show: Callable[[int, int], None]) -> Generator[Any, None, None]:
    """What a batch job does."""
    with file.open() as lines:
        answers = client.map("sentiment", lines, window=1024, timeout=60, on_progress=show, return_errors=True)
        assert_type(answers, Generator[Any, None, None])
        yield from answers


async def enqueue_and_poll_asynchronously(texts: list[str]) -> AsyncGenerator[Any, None]:
    """The same on an event loop."""
    async with AsyncClient("redis://localhost:6379/0", catalogue="pipemill.yaml") as client:
        job = await client.submit("sentiment", texts[0])
        assert_type(job, AsyncJob)
        assert_type(await job.status(), JobStatus)
        assert_type(await job.describe(), JobInfo)
        assert_type(await job.result(timeout=5), Any)
        assert_type(await client.submit_many("sentiment", texts), list[AsyncJob])
        assert_type(await client.results([job]), list[Result])
        assert_type(await client.cancel(job.id), bool)
        async for answer in client.map("sentiment", texts, priority=9):
            yield answer


def send_and_receive_media(file: Path, samples: Any) -> list[Any]:
    """What a producer of images and sounds does."""
    with Client(blobs="s3://bucket/prefix", decode=False, check_parameters=False, signing_keys="acme.key") as client:
        image = Image.of(file)
        assert_type(image, Image)
        sound = Audio.of(samples, sampling_rate=16_000)
        assert_type(sound.sampling_rate, int | None)
        array = Array.of(samples)
        assert_type((array.data, array.dtype, array.shape), tuple[bytes, str, tuple[int, ...]])
        inputs = [image, Image.at("https://example.org/cat.png"), sound, Video.of(b"mp4"), array]
        try:
            return [client.run("photos", inputs)]
        except ParameterRefused as error:
            return [str(error)]


async def look_at_dead_letters(client: Client, asynchronous: AsyncClient) -> list[tuple[Any, dict[str, Any]]]:
    """What an operator's script does."""
    letters = client.dead.latest("photos", 50)
    assert_type(letters, list[DeadLetter])
    letter = client.dead.show("photos", letters[0].id)
    assert_type([incident.at for incident in letter.history], list[float])
    assert_type(letter.history[0], Incident)
    assert_type(client.dead.replay("photos", [letter.id]), list[str])
    assert_type(client.dead.drop("photos"), int)
    assert_type(await asynchronous.dead.latest("photos"), list[DeadLetter])
    try:
        await asynchronous.dead.replay("photos")
    except RetryLimitReached as error:
        assert_type(error.transient, bool)
    return [letter.arguments()]


def look_at_queues(client: Client) -> dict[str, int]:
    """What a dashboard does."""
    reports = client.queues()
    assert_type(reports, list[QueueReport])
    assert_type(reports[0].info, QueueInfo)
    return {report.info.name: sum(report.waiting.values()) for report in reports}


def test_a_backend() -> None:
    """What a web backend's own tests do."""
    broker = testing.MemoryBroker()
    testing.announce(broker, "idle", max_depth=10, max_tenant_depth=5)
    with (
        testing.client(broker) as client,
        testing.answering(broker, "sentiment", lambda text, top_k=1: [text] * top_k) as started,
    ):
        assert_type(client, Client)
        assert_type(client.run("sentiment", "good", {"top_k": 2}), Any)
        assert_type(started[0].inputs, Any)
    assert_type(testing.async_client(broker), AsyncClient)
    assert_type(pipemill.__version__, str)
