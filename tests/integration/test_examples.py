"""The examples, run as a user would."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import httpx
import pytest
from examples import streaming, web

from pipemill import Client
from pipemill.protocol import Outcome, encode_success
from pipemill.store.base import Completion, QueueInfo
from pipemill.store.jobs import RedisJobStore
from pipemill.store.streams import Piece
from pipemill_worker.engine import Engine, Lane
from pipemill_worker.pipelines.echo import EchoRunner
from pipemill_worker.policy.batching import BatchLimits

LIMITS = BatchLimits(max_items=8, max_cost=1000, max_amplification=2.0)


@pytest.fixture
def lane(broker_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lane]:
    """A queue called sentiment that takes two jobs at most, on a real broker, with nobody working on it yet."""
    monkeypatch.setenv("PIPEMILL_BROKER", broker_url)
    info = QueueInfo(name="sentiment", task="text-classification", max_depth=2)
    lane = Lane(info, RedisJobStore(broker_url, "sentiment"), EchoRunner(), limits=LIMITS, prefetch=8, device="cpu")
    lane.store.announce(info)
    yield lane
    lane.store.close()


def test_the_web_backend_enqueues_polls_cancels_and_refuses(lane: Lane) -> None:
    """202 with a place to ask, the position while it waits, the answer, 503 when full, 404 if unknown."""

    async def story() -> None:
        transport = httpx.ASGITransport(web.app)
        async with web.lifespan(web.app), httpx.AsyncClient(transport=transport, base_url="http://web") as http:
            first = await http.post("/sentiment", json={"text": "good"})
            second = await http.post("/sentiment", json={"text": "bad"})
            assert first.status_code == 202
            place, other = first.headers["Location"], second.headers["Location"]
            assert (await http.get(other)).json()["position"] == 1
            full = await http.post("/sentiment", json={"text": "one too many"})
            assert full.status_code == 503
            assert int(full.headers["Retry-After"]) >= 1
            assert (await http.delete(other)).json() == {"cancelled": True}
            engine = Engine([lane])
            engine.start()
            answered = (await http.get(place, params={"wait": 20})).json()
            assert answered == {"status": "succeeded", "result": "good"}
            assert (await http.get(other)).json()["status"] == "cancelled"
            assert (await http.get("/jobs/never-was")).status_code == 404
            assert (await http.post("/sentiment", json={"text": ""})).status_code == 422
            await asyncio.to_thread(engine.drain)

    asyncio.run(story())


def test_the_streaming_backend_tells_and_goes_on(broker_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text comes as server-sent events; after any of them another request goes on; an unknown job is told."""
    monkeypatch.setenv("PIPEMILL_BROKER", broker_url)
    with Client(broker_url) as client:
        worker = RedisJobStore(broker_url, "generator")
        worker.announce(QueueInfo(name="generator", task="text-generation"))
        job = client.submit("generator", "Once", stream=True)
        (leased,) = worker.take(1).jobs
        piece = Piece(field=leased.field, job_id=job.id, run=leased.field, offset=0, text=" upon")
        worker.emit([piece])
        end = Completion(field=leased.field, job_id=job.id, outcome=Outcome.SUCCEEDED, streamed=True)
        end.document, end.piece = encode_success(job.id, "Once upon a time"), piece._replace(offset=5, text=" a time")
        worker.complete([end])
        worker.close()

    async def story() -> None:
        transport = httpx.ASGITransport(streaming.app)
        async with (
            streaming.lifespan(streaming.app),
            httpx.AsyncClient(transport=transport, base_url="http://web") as http,
        ):
            told = (await http.get(f"/texts/{job.id}")).text.split("\n\n")
            assert [each.split("\n")[1:] for each in told[:2]] == [
                ["event: piece", 'data: {"text": " upon"}'],
                ["event: piece", 'data: {"text": " a time"}'],
            ]
            assert told[2].endswith('event: end\ndata: {"result": "Once upon a time", "usage": null}')
            first = told[0].split("\n")[0].removeprefix("id: ")
            rest = (await http.get(f"/texts/{job.id}", headers={"Last-Event-ID": first})).text.split("\n\n")
            assert rest == told[1:]
            assert '"type": "UnknownJob"' in (await http.get("/texts/nobody")).text
            assert '"type": "ValueError"' in (await http.get("/texts/x", headers={"Last-Event-ID": "x"})).text

    asyncio.run(story())
