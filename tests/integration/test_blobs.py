"""One contract for every place of large bytes: memory, files, fakeredis, real Valkey and real Redis."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from secrets import token_hex

import fakeredis
import pytest
import redis

from pipemill.errors import BrokerUnavailable, PayloadTooLarge
from pipemill.protocol import names
from pipemill.store.aio_queues import AsyncRedisQueueStore
from pipemill.store.base import BlobStore
from pipemill.store.blobs import MemoryBlobs
from pipemill.store.files import FileBlobs, TieredBlobs
from pipemill.store.jobs import RedisJobStore
from pipemill.store.memory import MemoryBroker, MemoryJobStore
from pipemill.store.memory_aio import AsyncMemoryQueueStore
from pipemill.store.memory_queues import MemoryQueueStore
from pipemill.store.queues import RedisQueueStore
from pipemill.store.redis_blobs import RedisBlobs
from tests.helpers import PATIENCE_SECONDS

#: How references of each kind look; "elsewhere" is a name that was never given.
FORMS = {
    "memory": r"memory:[0-9a-f]{32}",
    "files": r"files:\d{4}-\d\d-\d\d/[0-9a-f]{32}",
    "redis": r"redis:[0-9a-f]{32}",
}
HEX = "0123456789abcdef" * 2


@pytest.fixture(params=["memory", "file", "fsspec-memory", "tiered-near", "tiered-far", "fakeredis", "valkey", "redis"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BlobStore]:
    """Each kind of place in turn, empty."""
    if request.param == "memory":
        yield MemoryBlobs()
    elif request.param == "file":
        yield FileBlobs(f"file://{tmp_path}/not/there/yet")
    elif request.param == "fsspec-memory":
        yield FileBlobs(f"memory://{token_hex(4)}/prefix/")
    elif request.param.startswith("tiered"):
        least = 1 if request.param == "tiered-far" else 1_000_000
        yield TieredBlobs(MemoryBlobs(), FileBlobs(f"file://{tmp_path}"), least)
    elif request.param == "fakeredis":
        with fakeredis.FakeRedis(server_type="valkey") as client:
            yield RedisBlobs("redis://fake", client=client)
    else:
        url = request.getfixturevalue(f"{request.param}_server")
        made = RedisBlobs(url)
        yield made
        made.close()


def test_what_was_put_is_read_back(blobs: BlobStore) -> None:
    """Bytes of any value and length come back as they were, under a reference of their own."""
    kept = {blobs.put(data, 60): data for data in (b"", b"\x00\xff\r\n", b"x" * 100_000, b"\x00\xff\r\n")}
    assert len(kept) == 4
    assert {reference: blobs.get(reference) for reference in kept} == kept


def test_references_say_their_kind_and_nothing_else(blobs: BlobStore) -> None:
    """A reference is a kind and a random name, so that it can be matched strictly."""
    reference = blobs.put(b"data", 60)
    assert re.fullmatch(FORMS[reference.partition(":")[0]], reference)


def test_what_is_too_large_is_refused_by_its_size(blobs: BlobStore) -> None:
    """A bound is told by the error; what has just as many bytes is read."""
    reference = blobs.put(b"12345678", 60)
    assert blobs.get(reference, 8) == b"12345678"
    with pytest.raises(PayloadTooLarge, match="8 bytes, more than the 7"):
        blobs.get(reference, 7)


def test_what_is_gone_is_none_and_no_error(blobs: BlobStore) -> None:
    """Deleting forgets, deleting again changes nothing, and what was never there is gone as well."""
    first, second, third = (blobs.put(b"data", 60) for _ in range(3))
    blobs.delete([first, second])
    blobs.delete([first])
    blobs.delete([])
    assert [blobs.get(first), blobs.get(second, 100), blobs.get(third)] == [None, None, b"data"]
    assert blobs.get(first[:-32] + HEX, 100) is None


@pytest.mark.parametrize(
    "reference",
    [
        "",
        "data",
        "other:" + HEX,
        "redis:",
        "redis:" + HEX + "0",
        "redis:" + HEX + "\n",
        "redis:" + HEX.upper(),
        "redis:*",
        "memory:../" + HEX,
        "files:" + HEX,
        "files:2026-01-01/../" + HEX,
        "files:../../etc/passwd",
        "files:/etc/passwd",
        "files:2026-01-01/" + HEX + "/..",
        "files:2026-01-01/" + HEX + "\n",
        "files:\u0662\u0660\u0662\u0666-01-01/" + HEX,
        "file:///etc/passwd",
        "s3://bucket/key",
    ],
)
def test_anything_else_is_no_reference(blobs: BlobStore, reference: str) -> None:
    """A path, a URL, another kind or a name of another form is refused before anything is read."""
    with pytest.raises(ValueError, match="is no reference of kind"):
        blobs.get(reference, 100)
    with pytest.raises(ValueError, match="is no reference of kind"):
        blobs.delete([reference])


@pytest.mark.parametrize("server", ["valkey_server", "redis_server"])
def test_redis_keeps_them_for_their_time_under_one_prefix(request: pytest.FixtureRequest, server: str) -> None:
    """Each expires by itself, and the key's name is the contract's."""
    url = request.getfixturevalue(server)
    with redis.Redis.from_url(url) as client:
        store = RedisQueueStore(url, client=client)
        reference = store.blobs.put(b"data", 77)
        key = names.blob_key(reference.removeprefix("redis:"))
        assert key.startswith("pipemill:blob:")
        assert 0 < client.ttl(key) <= 77
        assert client.get(key) == b"data"


def test_an_unreachable_broker_is_told_in_our_words() -> None:
    """redis-py's errors don't come through, and making the store connects to nothing."""
    made = RedisBlobs("redis://:secret@127.0.0.1:1/0")
    for call in (lambda: made.put(b"x", 1), lambda: made.get(f"redis:{HEX}", 1), lambda: made.delete([f"redis:{HEX}"])):
        with pytest.raises(BrokerUnavailable, match="no answer") as raised:
            call()
        assert "secret" not in str(raised.value)
    made.close()


def test_what_no_server_takes_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value above the server's bound would only cut the connection, again and again."""
    monkeypatch.setattr("pipemill.store.redis_blobs.LARGEST_VALUE", 10)
    with pytest.raises(PayloadTooLarge, match=r"blobs\.location"):
        RedisBlobs("redis://127.0.0.1:1/0").put(b"x" * 11, 60)


def test_both_sides_of_a_store_read_each_others(broker_url: str) -> None:
    """What a producer puts a worker reads, and the other way; the asynchronous client's too."""
    producer, worker = RedisQueueStore(broker_url), RedisJobStore(broker_url, "queue")

    async def through_asyncio() -> bytes | None:
        store = AsyncRedisQueueStore(broker_url)
        try:
            return await asyncio.to_thread(store.blobs.get, worker.blobs.put(b"answer", 60))
        finally:
            await store.close()

    assert worker.blobs.get(producer.blobs.put(b"inputs", 60)) == b"inputs"
    assert asyncio.run(through_asyncio()) == b"answer"
    worker.close()
    producer.close()


def test_threads_of_an_asynchronous_client_share_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers are read in several threads at once; what each of them made but one would never be closed."""
    made: list[str] = []
    entered, another = threading.Event(), threading.Event()

    def make(url: str) -> list[str]:
        made.append(url)
        (another if entered.is_set() else entered).set()
        another.wait(0.2)
        return [url]

    monkeypatch.setattr("pipemill.store.aio_queues.RedisBlobs", make)
    store = AsyncRedisQueueStore("redis://127.0.0.1:1/0")
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(lambda: store.blobs)
        assert entered.wait(PATIENCE_SECONDS)
        second = threads.submit(lambda: store.blobs)
    assert first.result() is second.result()
    assert len(made) == 1


def test_the_stores_in_memory_share_their_brokers() -> None:
    """All sides of one broker in memory read the same; its clock ends them."""
    broker = MemoryBroker()
    reference = MemoryQueueStore(broker).blobs.put(b"inputs", 60)
    sides = (MemoryJobStore(broker, "queue"), AsyncMemoryQueueStore(broker))
    assert [side.blobs.get(reference) for side in sides] == [b"inputs"] * 2
    broker.advance(61)
    assert [side.blobs.get(reference) for side in sides] == [None] * 2
