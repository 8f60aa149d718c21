"""A web backend that shows texts while they are written. Run it with `uvicorn examples.streaming:app`.

curl -N -X POST localhost:8000/texts -H 'content-type: application/json' -d '{"prompt": "The food was"}'
curl -N localhost:8000/texts/JOB_ID -H 'Last-Event-ID: 1764150000123-0'
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from pipemill import AsyncClient, PipemillError, StreamEvent


@asynccontextmanager
async def lifespan(web: FastAPI) -> AsyncIterator[None]:
    """One client for the whole application."""
    async with AsyncClient() as client:
        web.state.pipemill = client
        yield


app = FastAPI(title="Texts", lifespan=lifespan)


def pipemill(request: Request) -> AsyncClient:
    """The application's client."""
    client: AsyncClient = request.app.state.pipemill
    return client


Pipemill = Annotated[AsyncClient, Depends(pipemill)]


class Prompt(BaseModel):
    """What is to be continued."""

    prompt: str = Field(min_length=1, max_length=10_000)


@app.post("/texts")
async def write(body: Prompt, client: Pipemill) -> StreamingResponse:
    """Enqueue one job and tell its text as server-sent events; the header `Location` is where to come back to."""
    job = await client.submit("generator", body.prompt, {"max_new_tokens": 200}, stream=True, expires=60.0)
    return told(client, job.id, None)


@app.get("/texts/{job_id}")
async def read_on(
    job_id: str, client: Pipemill, last_event_id: Annotated[str | None, Header()] = None
) -> StreamingResponse:
    """Go on after the last event that a browser has seen: it says which by itself when it connects again."""
    return told(client, job_id, last_event_id)


def told(client: AsyncClient, job_id: str, after: str | None) -> StreamingResponse:
    """A job's text as server-sent events."""

    async def lines() -> AsyncIterator[str]:
        try:
            async for event in client.follow(job_id, after=after, timeout=300):
                yield server_sent(event)
        except (PipemillError, ValueError) as error:  # The response has begun: an error can only be told as an event.
            yield f"event: failed\ndata: {json.dumps({'type': type(error).__name__, 'message': str(error)})}\n\n"

    return StreamingResponse(lines(), media_type="text/event-stream", headers={"Location": f"/texts/{job_id}"})


def server_sent(event: StreamEvent) -> str:
    """One event as a browser's EventSource reads it."""
    kind = "end" if event.ended else "restart" if event.restarted else "piece"
    data: dict[str, Any] = {"text": event.text}
    if event.ended:
        data = {"result": event.result, "usage": asdict(event.usage) if event.usage else None}
    return f"id: {event.id}\nevent: {kind}\ndata: {json.dumps(data)}\n\n"
