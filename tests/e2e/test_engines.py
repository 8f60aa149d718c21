"""Texts written by other engines, through a real broker and real workers."""

from __future__ import annotations

import os
import sys

import pytest

from pipemill import Client
from tests.e2e.rig import Process, Serve, report_on
from tests.e2e.test_streams import Follower, asked, frozen_while_it_tells, read
from tests.unit.pipelines.engines.test_engines import STAND_IN
from tests.unit.pipelines.test_streams import answered
from tests.unit.pipelines.test_writing import direct, prompts

QUEUE = """
worker: {{lease_seconds: 2, torch_threads: 1, max_deliveries: 10}}
queues:
  generator: {{task: text-generation, model: "builtin:generator", device: cpu, prefetch: 64, engine: {engine}}}
"""
#: Where vLLM isn't installed, what stands in for it is; the continuous batching is transformers' own.
ENGINES = ("continuous", f"vllm, vllm_python: {sys.executable}")


def serve_by(serve: Serve, engine: str) -> Process:
    """A worker whose queue has chosen an engine."""
    return serve(QUEUE.format(engine=engine), PYTHONPATH=os.fspath(STAND_IN))


@pytest.mark.parametrize("engine", ENGINES)
def test_mixed_jobs_are_answered_as_alone(serve: Serve, client: Client, engine: str) -> None:
    """What the engine knows and what it doesn't, mixed: each is its own direct call's; then the worker ends well."""
    worker = serve_by(serve, engine)
    jobs = [(text, given) for text, given in prompts(44) if "seed" not in given] + asked(5)
    sent = [client.submit("generator", *job) for job in jobs]
    for job, result in zip(jobs, client.results(sent, timeout=300), strict=True):
        assert result.get() == direct(*job)
    (lane,) = report_on(client, "generator").lanes.values()
    assert lane["writes_together"]
    assert lane["engine"] == engine.partition(",")[0]
    assert worker.stop() == 0


def test_streams_outlive_their_worker(serve: Serve, client: Client) -> None:
    """The promises of the queue are the same: after kill -9 every stream begins anew, and ends complete and right."""
    worker, jobs = serve_by(serve, ENGINES[1]), asked(22)
    follower = Follower(serve.broker, [client.submit("generator", *job, stream=True).id for job in jobs])
    with frozen_while_it_tells(worker, follower):
        worker.kill()
    second = serve_by(serve, ENGINES[1])
    follower.wait()
    assert follower.errors == {}
    for job, events in zip(jobs, follower.events.values(), strict=True):
        assert read(events) == answered(*job)
        assert sum(event.restarted for event in events) <= 1
    assert second.stop() == 0
