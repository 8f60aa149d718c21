"""Media and parameters through both clients, over a broker in memory."""

from __future__ import annotations

import asyncio
import io
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from pipemill import Array, Audio, Image, errors, testing
from pipemill.catalogue.model import BlobSettings
from pipemill.protocol import decode_message, encode_success, names
from pipemill.store.files import FileBlobs
from pipemill.store.memory import MemoryBroker, MemoryJobStore
from pipemill.transit import MIN_BYTES, RETENTION_DAYS
from tests.helpers import PATIENCE_SECONDS
from tests.unit.blocking import Blocking

QUEUE = "photos"

#: Builds the client under test, with the client's own arguments.
Build = Callable[..., Any]


@pytest.fixture
def broker() -> MemoryBroker:
    """A broker in memory that knows one queue."""
    broker = MemoryBroker()
    testing.announce(broker, QUEUE)
    return broker


@pytest.fixture(params=["blocking", "asynchronous"])
def build(request: pytest.FixtureRequest, broker: MemoryBroker) -> Iterator[Build]:
    """Each kind of client in turn."""
    if request.param == "blocking":
        yield lambda **options: testing.client(broker, **options)
        return
    with asyncio.Runner() as runner:
        yield lambda **options: Blocking(testing.async_client(broker, **options), runner)


@pytest.fixture
def client(build: Build) -> Any:
    """The client under test."""
    return build()


def sent(broker: MemoryBroker) -> list[Any]:
    """The inputs of all jobs that wait, as they travel."""
    worker = MemoryJobStore(broker, QUEUE)
    return [decode_message(leased.raw, QUEUE).inputs for leased in worker.take(100).jobs]


# Media


def test_media_go_and_come_at_any_depth(client: Any, broker: MemoryBroker) -> None:
    """Inputs and parameters may hold media, and the answer comes with objects in their place."""
    pixels = np.arange(12, dtype="uint8").reshape(2, 2, 3)
    inputs = [{"image": PIL.Image.fromarray(pixels), "text": "a"}, Audio.of(np.zeros(4, "float32"), sampling_rate=8000)]
    with testing.answering(broker, QUEUE, lambda inputs, **parameters: [inputs, parameters]):
        back, parameters = client.run(QUEUE, inputs, {"mask": np.eye(2)}, timeout=PATIENCE_SECONDS)
    assert np.asarray(back[0]["image"]).tolist() == pixels.tolist()
    assert back[1] == inputs[1]
    assert parameters["mask"].tolist() == [[1, 0], [0, 1]]


def test_every_way_to_an_answer_decodes(client: Any, broker: MemoryBroker) -> None:
    """submit_many, results and map give objects, as run does; plain answers among them stay as they are."""
    arrays = [np.full(3, n) for n in range(3)]
    with testing.answering(broker, QUEUE, lambda inputs: inputs):
        ids = [job.id for job in client.submit_many(QUEUE, [*arrays, "plain"])]
        many = [result.value for result in client.results(ids, PATIENCE_SECONDS)]
        mapped = list(client.map(QUEUE, [*arrays, "plain"], timeout=PATIENCE_SECONDS))
        assert client.job(ids[0]).result(PATIENCE_SECONDS).tolist() == [0, 0, 0]
    for answers in (many, mapped):
        assert [answer.tolist() for answer in answers[:3]] == [array.tolist() for array in arrays]
        assert answers[3] == "plain"


def test_map_takes_many_media_through_a_small_window(client: Any, broker: MemoryBroker) -> None:
    """Media and plain inputs mixed come back in order, whatever fails among them."""
    inputs: list[Any] = [Image(bytes([n])) if n % 3 else n for n in range(1, 100)]
    inputs[50] = object()
    with testing.answering(broker, QUEUE, lambda inputs: inputs):
        answers = list(client.map(QUEUE, inputs, window=7, timeout=PATIENCE_SECONDS, return_errors=True))
    assert isinstance(answers.pop(50), errors.NotSerialisable)
    del inputs[50]
    assert answers == inputs


def test_the_raw_form_is_to_be_had(build: Build, broker: MemoryBroker) -> None:
    """With decode=False answers are the JSON that other languages see."""
    with testing.answering(broker, QUEUE, lambda inputs: inputs):
        answer = build(decode=False).run(QUEUE, np.zeros(2, "uint8"), timeout=PATIENCE_SECONDS)
    assert answer == {"$array": "AAA=", "dtype": "uint8", "shape": [2]}


def test_what_isnt_media_is_refused_before_anything_is_sent(client: Any, broker: MemoryBroker) -> None:
    """Bytes, and media that can't be written, leave nothing behind."""
    for wrong in (b"bytes", Array(b"12", "float32", (3,)), PIL.Image.new("HSV", (1, 1)), [np.float32(math.nan)]):
        with pytest.raises(errors.NotSerialisable):
            client.submit(QUEUE, wrong)
        with pytest.raises(errors.NotSerialisable, match="inputs 1"):
            client.submit_many(QUEUE, ["fine", wrong])
    assert sent(broker) == []


def test_large_media_are_measured(client: Any, broker: MemoryBroker) -> None:
    """A queue's limit holds for media as for text."""
    testing.announce(broker, QUEUE, max_input_bytes=50_000)
    with pytest.raises(errors.PayloadTooLarge):
        client.submit(QUEUE, Image(bytes(50_000)))


# The place of large media


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    """A catalogue that sends contents of 1,024 bytes and more to a folder."""
    file = tmp_path / "pipemill.yaml"
    place = f"blobs: {{location: 'file://{tmp_path}/blobs', min_bytes: 1024}}"
    file.write_text(f"{place}\nqueues: {{{QUEUE}: {{task: echo}}}}")
    return file


@pytest.mark.parametrize("by", ["catalogue", "location"])
def test_large_contents_travel_beside_the_broker(build: Build, broker: MemoryBroker, catalogue: Path, by: str) -> None:
    """What is large goes to the place that the catalogue or the caller names, and is read from there; the rest not."""
    size = 1024 if by == "catalogue" else MIN_BYTES
    options = {"catalogue": catalogue} if by == "catalogue" else {"blobs": f"file://{catalogue.parent}/blobs"}
    client = build(**options)
    contents = [bytes(size - 1), bytes(size)]
    with testing.answering(broker, QUEUE, lambda inputs: inputs) as started:
        assert client.run(QUEUE, [Image(each) for each in contents], timeout=PATIENCE_SECONDS) == [
            Image(each) for each in contents
        ]
        assert list(client.map(QUEUE, [Image(contents[1])], timeout=PATIENCE_SECONDS)) == [Image(contents[1])]
        assert client.submit_many(QUEUE, [Image(contents[1])])[0].result(PATIENCE_SECONDS) == Image(contents[1])
    assert len([path for path in (catalogue.parent / "blobs").rglob("*") if path.is_file()]) == 3
    assert started[0].inputs[0] == Image(contents[0])
    assert started[0].inputs[1]["$image"].keys() == {"ref"}


@pytest.mark.parametrize("way", ["submit", "submit_many", "map"])
@pytest.mark.usefixtures("broker")
def test_large_contents_outlive_the_wait_for_the_start(build: Build, tmp_path: Path, way: str) -> None:
    """The retention counts from the moment at which a job may start: its media are there then."""
    file = tmp_path / "pipemill.yaml"
    place = f"blobs: {{location: 'file://{tmp_path}/blobs', min_bytes: 1024, retention_days: 1}}"
    file.write_text(f"{place}\nqueues: {{{QUEUE}: {{task: echo}}}}")
    client, media, days = build(catalogue=file), Image(bytes(2000)), 3 * 86_400
    if way == "submit":
        client.submit(QUEUE, media, countdown=days)
    elif way == "submit_many":
        client.submit_many(QUEUE, [media], countdown=days)
    else:
        with pytest.raises(errors.ResultTimeout):
            list(client.map(QUEUE, [media], timeout=0.01, countdown=days))
    (kept,) = [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]
    assert FileBlobs(f"file://{tmp_path}/blobs", retention_days=1, now=lambda: time.time() + days).sweep_now() == 0
    assert kept.exists()


def test_without_a_catalogue_the_catalogues_defaults_hold() -> None:
    """The constants for callers who only name the place are those of a catalogue that only names it."""
    settings = BlobSettings(location="s3://bucket")
    assert (settings.min_bytes, settings.retention_days) == (MIN_BYTES, RETENTION_DAYS)


def answer_with(broker: MemoryBroker, value: Any) -> str:
    """End a job with an answer that a worker wrote; its id."""
    broker.results["job"] = encode_success("job", value)
    return "job"


def test_contents_in_the_broker_are_fetched(client: Any, broker: MemoryBroker) -> None:
    """A worker may leave large contents in the broker; they are read when the answer is."""
    reference = broker.blobs.put(np.arange(3, dtype="<i4").tobytes(), 60)
    form = {"$array": {"ref": reference}, "dtype": "int32", "shape": [3]}
    assert client.result(answer_with(broker, [form]), 0)[0].tolist() == [0, 1, 2]


def test_contents_that_are_gone_are_told(client: Any, broker: MemoryBroker) -> None:
    """After its retention a content is missed by name, and what to do is said."""
    reference = broker.blobs.put(b"x", 60)
    broker.blobs.delete([reference])
    job_id = answer_with(broker, {"$image": {"ref": reference}})
    for ask in (client.result, lambda job_id, timeout: client.results([job_id], timeout)):
        with pytest.raises(errors.BlobMissing, match="retention has passed: submit the job again"):
            ask(job_id, 0)


def test_a_place_that_isnt_known_is_told(client: Any, build: Build, broker: MemoryBroker, catalogue: Path) -> None:
    """A client without the catalogue says what it lacks; it takes no place from the broker."""
    sender = build(catalogue=catalogue)
    with testing.answering(broker, QUEUE, lambda inputs: inputs):
        job = sender.submit(QUEUE, Image(bytes(2000)))
        assert job.result(PATIENCE_SECONDS) == Image(bytes(2000))
        with pytest.raises(errors.ConfigurationError, match="catalogue"):
            client.result(job.id, PATIENCE_SECONDS)


def test_map_puts_unreadable_media_in_their_place(client: Any, broker: MemoryBroker) -> None:
    """An answer whose media are broken is an error at its place, and raised unless errors are wanted."""
    with testing.answering(broker, QUEUE, lambda n: {"$image": "iVBORw0KGgo="} if n == 1 else n):
        answers = list(client.map(QUEUE, range(3), timeout=PATIENCE_SECONDS, return_errors=True))
        with pytest.raises(errors.MediaUnreadable):
            list(client.map(QUEUE, range(3), timeout=PATIENCE_SECONDS))
    assert [answers[0], answers[2]] == [0, 2]
    assert isinstance(answers[1], errors.MediaUnreadable)


def test_an_image_whose_file_is_broken_fails_alone(client: Any, broker: MemoryBroker) -> None:
    """Pillow reads a file when its pixels are wanted, which is when it is sent: that input's mistake, and no more."""
    buffer = io.BytesIO()
    PIL.Image.effect_noise((64, 64), 50).save(buffer, "PNG")

    def broken() -> PIL.Image.Image:
        return PIL.Image.open(io.BytesIO(buffer.getvalue()[:300]))

    with pytest.raises(errors.NotSerialisable, match="file can't be read"):
        client.submit(QUEUE, broken())
    with testing.answering(broker, QUEUE, lambda text: text):
        answers = list(client.map(QUEUE, ["a", broken()], timeout=PATIENCE_SECONDS, return_errors=True))
    assert answers[0] == "a"
    assert isinstance(answers[1], errors.NotSerialisable)


def test_map_waits_for_media_of_a_broker_that_restarts(
    client: Any, broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that is away while an answer's contents are read is waited for, as for anything else."""
    reference = broker.blobs.put(bytes(2000), 60)
    away = [errors.BrokerUnavailable("restarting")] * 3
    get = broker.blobs.get

    def restarting(reference: str, max_bytes: int | None = None) -> bytes | None:
        if away:
            raise away.pop()
        return get(reference, max_bytes)

    monkeypatch.setattr(broker.blobs, "get", restarting)
    with testing.answering(broker, QUEUE, lambda n: {"$image": {"ref": reference}} if n == 1 else n):
        answers = list(client.map(QUEUE, range(3), timeout=PATIENCE_SECONDS, return_errors=True))
    assert answers == [0, Image(bytes(2000)), 2]
    assert not away


async def test_an_event_loop_isnt_held_up_by_media(broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Media are written and read in other threads; plain jobs stay where they are."""
    import threading  # noqa: PLC0415  # only here

    seen: list[tuple[str, bool]] = []

    class Watched(Image):
        def envelope(self, carry: Any) -> Any:
            seen.append(("write", threading.current_thread() is threading.main_thread()))
            return super().envelope(carry)

    def watched_put(data: bytes) -> Any:
        seen.append(("read", threading.current_thread() is threading.main_thread()))
        return Image(data)

    monkeypatch.setattr("pipemill.codec.decoding.Image", watched_put)
    async with testing.async_client(broker) as client:
        with testing.answering(broker, QUEUE, lambda _: Image(b"\xff\xd8")):
            await client.run(QUEUE, Watched(b"x"), timeout=PATIENCE_SECONDS)
            await client.submit_many(QUEUE, [Watched(b"x")])
            assert [answer async for answer in client.map(QUEUE, [Watched(b"x")])] == [Image(b"\xff\xd8")]
    assert {kind for kind, _ in seen} == {"write", "read"}
    assert not any(in_main for _, in_main in seen)


# Parameters


@pytest.fixture
def sentiment(broker: MemoryBroker) -> str:
    """A queue of a real task, which checks parameters."""
    testing.announce(broker, "sentiment", task="text-classification")
    return "sentiment"


@pytest.mark.parametrize("parameters", [{"top_q": 2}, {"top_k": "many"}, {"trust_remote_code": True}])
def test_wrong_parameters_are_refused_at_once(
    client: Any, broker: MemoryBroker, sentiment: str, parameters: dict[str, Any]
) -> None:
    """What the worker would refuse is told before anything is sent, in its words, as either error."""
    (name,) = parameters
    for ask in (client.submit, client.submit_many, lambda *call: list(client.map(*call))):
        with pytest.raises(errors.ParameterRefused, match=name) as caught:
            ask(sentiment, ["a"], parameters)
        assert isinstance(caught.value, errors.SubmitError)
        assert isinstance(caught.value, errors.InvalidParameter)
    assert broker.records == {}


def test_parameters_are_checked_as_they_travel(client: Any, broker: MemoryBroker) -> None:
    """A tuple is a list to the worker, and NumPy's numbers are numbers; what a queue may add isn't missed."""
    testing.announce(broker, "zero", task="zero-shot-classification")
    testing.announce(broker, "spam", task="text-classification")
    client.submit("zero", "a", {"candidate_labels": ("x", "y")})
    client.submit("zero", "a", {"multi_label": True})
    client.submit("spam", "a", {"top_k": np.int64(3)})
    with pytest.raises(errors.NotSerialisable):
        client.submit("spam", "a", {"top_k": object()})


def test_the_check_can_be_left_to_the_worker(build: Build, broker: MemoryBroker, sentiment: str) -> None:
    """With check_parameters=False, and for tasks unknown here, everything is sent."""
    build(check_parameters=False).submit(sentiment, "a", {"top_q": 1})
    testing.announce(broker, "new", task="task-of-next-year")
    build().submit("new", "a", {"top_q": 1})
    assert len(broker.records) == 2


def test_an_unknown_queue_is_told_first(client: Any) -> None:
    """Parameters for a queue that isn't there are no parameters' fault."""
    with pytest.raises(errors.UnknownQueue):
        client.submit("nowhere", "a", {"top_q": 1})


def test_arguments_of_media_travel_by_reference_as_a_whole(client: Any, broker: MemoryBroker) -> None:
    """What is too large for a message goes beside it, media or not."""
    job = client.submit(QUEUE, Image(bytes(names.REFERENCE_BYTES)))
    assert job.id in broker.payloads
