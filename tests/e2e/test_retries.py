"""Real workers try again what may pass, give up with the history, and take back what is replayed."""

from __future__ import annotations

import io
import json
import os
import sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from PIL import Image as Pillow

from pipemill import Client, Image, JobStatus, errors
from tests.e2e.rig import ROOT, Process, Serve, report_on
from tests.helpers import until
from tests.tasks.models import BUILDERS
from tests.unit.media import test_fetch as fetching
from tests.unit.media.test_fetch import Server, say

server = fetching.server

URL = "http://media.example.org/cat.png"
#: Where workers that a script of the tests starts find it, and the packages beside it.
SOURCES = os.pathsep.join(map(str, (ROOT, ROOT / "producer", ROOT / "worker")))
POISONED = "worker: {lease_seconds: 2, max_deliveries: 2}\nqueues: {echo: {task: echo}}"


def png() -> bytes:
    """A picture."""
    written = io.BytesIO()
    Pillow.new("RGB", (32, 32), (200, 100, 50)).save(written, "png")
    return written.getvalue()


def unavailable(server: Server, times: int | None) -> None:
    """Let the server answer 503 so many times, or for ever, and then with the picture."""
    left = [times]

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if left[0] is None or left[0] > 0:
            left[0] = None if left[0] is None else left[0] - 1
            say(b"later", 503)(handler)
        else:
            say(png())(handler)

    server.answers["/cat.png"] = answer


def fetching_worker(serve: Serve, server: Server, tmp_path: Path) -> Process:
    """A worker with an image model, which fetches from the test's server."""
    model = tmp_path / "vit"
    BUILDERS["image-classification.vit"](model)
    catalogue = serve.catalogue(
        f"queues: {{photos: {{task: image-classification, model: {model}, device: cpu, batch: {{calibrate: false}}, "
        "urls: {hosts: [media.example.org]}, retry: {max_attempts: 3, backoff_seconds: 0.1}}}"
    )
    command = (sys.executable, str(Path(__file__).with_name("local_urls.py")), "worker", "--catalogue", str(catalogue))
    worker = serve.run(*command, URL_PORT=str(server.port), PYTHONPATH=SOURCES)
    serve.wait_until_serving(worker, "photos")
    return worker


def test_a_host_that_is_away_for_a_moment_costs_no_job(
    serve: Serve, client: Client, server: Server, tmp_path: Path
) -> None:
    """503 twice, then the picture: the job has the answer that the picture itself gets."""
    unavailable(server, 2)
    worker = fetching_worker(serve, server, tmp_path)
    answer = client.run("photos", Image.at(URL), timeout=60)
    assert answer == client.run("photos", Image.of(png()), timeout=60)
    assert len(server.requests) == 3
    report = report_on(client, "photos")
    assert (report.totals["retried"], report.totals["succeeded"], report.dead) == (2, 2, 0)
    assert worker.output().count("attempt 1 of 3 of a job failed (SourceUnavailable: ") == 1
    assert worker.stop() == 0


def test_a_host_that_stays_away_leaves_a_letter_that_can_be_replayed(
    serve: Serve, client: Client, server: Server, tmp_path: Path
) -> None:
    """At the limit the job fails with what was tried; once the host answers, a replay of it is answered, by its id."""
    unavailable(server, None)
    fetching_worker(serve, server, tmp_path)
    job = client.submit("photos", Image.at(URL))
    with pytest.raises(
        errors.RetryLimitReached, match=r"3 attempts failed.*media\.example\.org answered with status 503"
    ):
        job.result(timeout=60)
    missing = client.submit("photos", Image.at("http://other.example.org/cat.png"))
    with pytest.raises(errors.InvalidInput, match="isn't in the queue's"):
        missing.result(timeout=60)
    listed = serve.run("pipemill", "dead", "list", "photos", "--json")
    assert listed.wait() == 0
    (letter,) = json.loads(listed.output())
    assert (letter["id"], letter["attempts"], letter["deliveries"]) == (job.id, 3, 0)
    shown = serve.run("pipemill", "dead", "show", "photos", job.id)
    assert shown.wait() == 0
    assert shown.output().count("SourceUnavailable") >= 3
    assert URL not in shown.output()
    unavailable(server, 0)
    replayed = serve.run("pipemill", "dead", "replay", "photos", job.id)
    assert (replayed.wait(), replayed.output()) == (0, "1 back in queue 'photos'\n")
    assert job.result(timeout=60) == client.run("photos", Image.of(png()), timeout=60)
    assert report_on(client, "photos").dead == 0


def test_a_poison_jobs_letter_names_the_dead_and_its_replay_is_answered(serve: Serve, client: Client) -> None:
    """Each worker that it killed is in its history; a worker that can bear it answers it at last."""
    catalogue = serve.catalogue(POISONED)
    client_with = Client(serve.broker, catalogue=catalogue)
    job = client_with.submit("echo", "poison")
    command = (sys.executable, str(Path(__file__).with_name("sabotaged.py")), "worker", "--catalogue", str(catalogue))
    pids = []
    for _ in range(2):
        worker = serve.run(*command, SABOTAGE="kill", PYTHONPATH=SOURCES)
        pids.append(worker.pid)
        assert worker.wait() == -9
    last = serve.run(*command, SABOTAGE="kill", PYTHONPATH=SOURCES)
    with pytest.raises(errors.DeliveryLimitReached, match=f":{pids[0]}:.* died.*:{pids[1]}:.* died"):
        job.result(timeout=60)
    letter = client.dead.show("echo", job.id)
    assert [incident.kind.value for incident in letter.history] == ["lost", "lost"]
    assert [f":{pid}:" in incident.worker for pid, incident in zip(pids, letter.history, strict=True)] == [True, True]
    assert (letter.deliveries, letter.arguments()) == (2, ("poison", {}))
    assert last.stop() == 0
    assert client.dead.replay("echo", [job.id]) == [job.id]
    assert job.status() is JobStatus.QUEUED
    serve(catalogue)
    assert job.result(timeout=60) == "poison"
    until(lambda: report_on(client, "echo").totals["succeeded"] == 1, "it has ended once")
    client_with.close()
