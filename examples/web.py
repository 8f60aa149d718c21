"""A web backend that enqueues and polls. Run it with `uvicorn examples.web:app`; PIPEMILL_BROKER names the broker.

curl -X POST localhost:8000/sentiment -H 'content-type: application/json' -d '{"text": "A warm, funny film."}'
curl localhost:8000/jobs/JOB_ID
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import ceil
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from pipemill import AsyncClient, BrokerError, JobError, JobStatus, PayloadTooLarge, QueueFull, UnknownJob


@asynccontextmanager
async def lifespan(web: FastAPI) -> AsyncIterator[None]:
    """One client for the whole application."""
    async with AsyncClient() as client:
        web.state.pipemill = client
        yield


app = FastAPI(title="Sentiment", lifespan=lifespan)


def pipemill(request: Request) -> AsyncClient:
    """The application's client."""
    client: AsyncClient = request.app.state.pipemill
    return client


Pipemill = Annotated[AsyncClient, Depends(pipemill)]


class Text(BaseModel):
    """What is to be judged."""

    text: str = Field(min_length=1, max_length=10_000)


@app.post("/sentiment", status_code=202)
async def enqueue(body: Text, client: Pipemill, response: Response) -> dict[str, str]:
    """Enqueue one job and answer at once: where to ask for the result."""
    job = await client.submit("sentiment", body.text, {"truncation": True}, expires=60.0)
    response.headers["Location"] = f"/jobs/{job.id}"
    return {"id": job.id}


@app.get("/jobs/{job_id}")
async def poll(job_id: str, client: Pipemill, wait: float = 0.0) -> dict[str, Any]:
    """Say where a job stands, with its answer once it has one; `wait` up to 20 seconds for the end."""
    job = client.job(job_id)
    if wait:
        await client.results([job_id], timeout=min(wait, 20.0))
    known = await job.describe()
    if known.status is JobStatus.UNKNOWN:
        raise UnknownJob(f"no trace of job {job_id}: it was never accepted, or its result has expired")
    if not known.status.ended:
        return {"status": known.status, "position": known.position, "estimate_seconds": known.estimate_seconds}
    try:
        return {"status": known.status, "result": await job.result(timeout=0)}
    except JobError as error:
        return {"status": known.status, "error": {"type": type(error).__name__, "message": str(error)}}


@app.delete("/jobs/{job_id}")
async def cancel(job_id: str, client: Pipemill) -> dict[str, bool]:
    """End a job that hasn't ended."""
    return {"cancelled": await client.cancel(job_id)}


@app.exception_handler(QueueFull)
async def refuse_politely(_: Request, error: QueueFull) -> JSONResponse:
    """A full queue is not an error of ours: say when to come back."""
    return JSONResponse({"detail": str(error)}, 503, headers={"Retry-After": str(ceil(error.retry_after))})


@app.exception_handler(UnknownJob)
async def not_found(_: Request, error: UnknownJob) -> JSONResponse:
    """Nothing is known of that job."""
    return JSONResponse({"detail": str(error)}, 404)


@app.exception_handler(PayloadTooLarge)
async def too_large(_: Request, error: PayloadTooLarge) -> JSONResponse:
    """The inputs are larger than the queue takes."""
    return JSONResponse({"detail": str(error)}, 413)


@app.exception_handler(BrokerError)
async def away(_: Request, __: BrokerError) -> JSONResponse:
    """The broker is away; its address is nobody's business."""
    return JSONResponse({"detail": "the queue is away, try again soon"}, 503, headers={"Retry-After": "5"})
