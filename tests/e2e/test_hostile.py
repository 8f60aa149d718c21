"""Jobs that mean harm: each fails alone, briefly, and repeats nothing it held; the worker lives, and doesn't grow."""

from __future__ import annotations

import json
import random
import re
import uuid
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Final

import psutil
import pytest
import redis

import pipemill_worker
from pipemill import Client, JobFailed
from pipemill.embedded import EmbeddedBroker
from pipemill.protocol import JobStatus, Result, decode_result, names
from tests import malformed
from tests.e2e.hostile.cases import CASES
from tests.e2e.hostile.queues import BUILTIN, CATALOGUE, MARK, QUEUES, SECRET, SERVER
from tests.e2e.mill import direct_pipeline
from tests.e2e.rig import Process, Serve, operator, report_on
from tests.helpers import until

#: Characters of an error's text. Parameters' mistakes are told to 600, the first one in full: it may list 30 names.
MOST_TOLD: Final = 700
#: Characters of a job's own content that nothing may repeat in one piece.
MOST_ECHOED: Final = 100
#: Generated jobs.
GENERATED: Final = 2_000
#: What the worker's memory may grow by from the first half of them to the second, in bytes. The allocator keeps what a
#: pass of another shape needed, a few MiB; to leak an image, a sound or the tensors of each job would be far more.
MOST_GROWN: Final = 64 * 2**20


@dataclass(frozen=True, kw_only=True)
class Siege:
    """A broker, a worker, and what may not be touched."""

    url: str
    client: Client
    worker: Process
    #: Where the models of its queues lie, by their rows.
    models: Path
    #: Good jobs of each queue, and the direct answer to each.
    good: Mapping[str, Sequence[tuple[Any, Mapping[str, Any], Any]]]
    #: What stands for the placeholders of the cases.
    known: Mapping[str, str]
    #: The paths that were asked of the server.
    asked: list[str]

    def results(self, job_ids: Sequence[str], patience: float = 120) -> list[Result]:
        """How jobs ended, whoever sent them."""
        found: dict[str, Result] = {}

        def all_ended() -> bool:
            left = [job_id for job_id in job_ids if job_id not in found]
            with redis.Redis.from_url(self.url) as broker:
                documents = broker.mget([names.result_key(job_id) for job_id in left]) if left else []
            for job_id, document in zip(left, documents, strict=True):
                if document and (result := decode_result(job_id, document)):
                    found[job_id] = result
            assert not self.worker.ended, self.worker.output()[-2000:]
            return len(found) == len(job_ids)

        until(all_ended, "every job has ended", patience)
        return [found[job_id] for job_id in job_ids]


class _Counting(BaseHTTPRequestHandler):
    """Notes what it is asked for."""

    def __init__(self, asked: list[str], *args: Any) -> None:
        self._asked = asked
        super().__init__(*args)

    def do_GET(self) -> None:
        """Note a request."""
        self._asked.append(self.path)
        self.send_error(404)

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


@pytest.fixture(scope="module")
def asked() -> Iterator[tuple[str, list[str]]]:
    """A server's address, and the requests that it got."""
    paths: list[str] = []
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Counting, paths)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", paths
        server.shutdown()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models of the queues, and the catalogue beside them."""
    from tests.tasks.matrix import ROWS  # noqa: PLC0415  # loads torch, which most of these tests leave to workers

    folder = tmp_path_factory.mktemp("hostile")
    for key in sorted(set(QUEUES.values())):
        ROWS[key].build(folder / key)
    (folder / "catalogue.yaml").write_text(CATALOGUE, encoding="utf-8")
    return folder


def good_jobs(models: Path) -> dict[str, list[tuple[Any, Mapping[str, Any], Any]]]:
    """Some jobs of each queue, with their direct answers."""
    from tests.tasks.matrix import ROWS  # noqa: PLC0415  # as above
    from tests.tasks.rows import call_directly, load_direct  # noqa: PLC0415  # as above

    good: dict[str, list[tuple[Any, Mapping[str, Any], Any]]] = {}
    for queue, key in QUEUES.items():
        row = ROWS[key]
        pipe = load_direct(row, models / key)
        jobs = row.jobs(models)[:3]
        good[queue] = [(job.inputs, job.parameters, call_directly(pipe, job)) for job in jobs]
    for queue, task in BUILTIN.items():
        pipe = direct_pipeline(task, str(Path(pipemill_worker.__file__).parent / "demo" / "models" / queue))
        asked = {"do_sample": False, "max_new_tokens": 8} if queue == "generator" else {}
        good[queue] = [(text, asked, pipe(text, **asked)) for text in ("a river", "what is the silver clock?", "no")]
    return good


@pytest.fixture(scope="module")
def siege(models: Path, asked: tuple[str, list[str]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Siege]:
    """A worker of its own; it must end well."""
    folder = tmp_path_factory.mktemp("siege")
    secret = folder / "secret.txt"
    secret.write_text("a secret of the machine\n", encoding="utf-8")
    catalogue = models / "catalogue.yaml"
    with EmbeddedBroker() as broker, Client(broker.url, catalogue=catalogue, check_parameters=False) as client:
        serving = Serve(folder, broker.url)
        try:
            worker = serving.start(catalogue)
            good = good_jobs(models)  # while the worker loads
            serving.wait_until_serving(worker, *BUILTIN, *QUEUES)
            known = {SECRET: str(secret), SERVER: asked[0]}
            yield Siege(
                url=broker.url, client=client, worker=worker, models=models, good=good, known=known, asked=asked[1]
            )
            assert worker.stop() == 0
        finally:
            serving.end()


def known(value: Any, siege: Siege) -> Any:
    """A case's inputs or parameters, with this run's path and server in the place of what stands for them."""
    if isinstance(value, str):
        for placeholder, meant in siege.known.items():
            value = value.replace(placeholder, meant)
        return value
    if isinstance(value, dict):
        return {known(key, siege): known(inner, siege) for key, inner in value.items()}
    return [known(inner, siege) for inner in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def ended(siege: Siege) -> dict[str, Result]:
    """How each case ended; all were sent at once by plain Celery, good jobs between them, which were answered."""
    from tests.tasks.compare import assert_same  # noqa: PLC0415  # as above

    job_ids = {name: str(uuid.uuid4()) for name in CASES}
    neighbours: list[tuple[Any, Any]] = []
    turns = dict.fromkeys(siege.good, 0)
    with operator(siege.url) as app:
        for name, case in CASES.items():
            inputs, parameters = known(case.inputs, siege), known(dict(case.parameters), siege)
            if case.raw:
                push(siege, [(case.queue, message(job_ids[name], inputs, parameters))])
            else:
                app.send_task(names.TASK_NAME, [inputs], parameters, queue=case.queue, task_id=job_ids[name])
            if case.queue in turns:
                inputs, parameters, direct = siege.good[case.queue][turns[case.queue] % 3]
                turns[case.queue] += 1
                neighbours.append((siege.client.submit(case.queue, inputs, parameters), direct))
    results = siege.results(list(job_ids.values()))
    for result, (_, direct) in zip(
        siege.client.results([job for job, _ in neighbours], timeout=120), neighbours, strict=True
    ):
        assert_same(result.get(), direct)
    return dict(zip(job_ids, results, strict=True))


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_job_fails_alone(name: str, ended: dict[str, Result], siege: Siege) -> None:
    """It fails with the error meant for it, which says what to do in few words, and repeats none of it at length."""
    case, error = CASES[name], ended[name].error
    assert type(error) is case.error, repr(error)[:1000]
    told = str(error)
    assert re.search(case.says, told), told[:1000]
    assert len(told) <= MOST_TOLD, told[:1000]
    assert list(echoes(told, [case.inputs, dict(case.parameters)])) == []
    assert siege.known[SECRET] not in told


def echoes(told: str, value: Any) -> Iterator[str]:
    """Every long piece of a text that a value has in one of its strings."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        for inner in value:
            yield from echoes(told, inner)
    elif isinstance(value, str) and len(value) >= MOST_ECHOED:
        pieces = (told[start : start + MOST_ECHOED] for start in range(len(told) - MOST_ECHOED + 1))
        yield from (piece for piece in pieces if piece in value)


def test_the_outside_was_left_alone(ended: dict[str, Result], siege: Siege) -> None:
    """No file was read into an answer or an error, no server was asked, and the log has nothing of the jobs."""
    assert len(ended) == len(CASES)
    assert siege.asked == []
    log = siege.worker.output()
    assert MARK not in log
    assert "a secret of the machine" not in log
    assert not any("a secret of the machine" in str(result.error) for result in ended.values())


def message(job_id: str, inputs: Any, parameters: Mapping[str, Any]) -> bytes:
    """A Celery message as another client may write it: in ASCII, halves of characters and all."""
    body = json.dumps([[inputs], parameters, {}]).encode()
    return json.dumps(
        {
            "body": b64encode(body).decode(),
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": {"id": job_id, "task": names.TASK_NAME},
            "properties": {"body_encoding": "base64"},
        }
    ).encode()


def push(siege: Siege, sent: Sequence[tuple[str, bytes]]) -> None:
    """Put messages into queues, as no client of ours would."""
    with redis.Redis.from_url(siege.url) as broker, broker.pipeline(transaction=False) as pipeline:
        for queue, raw in sent:
            pipeline.lpush(queue, raw)
        pipeline.execute()


def run_generated(siege: Siege, rng: random.Random, count: int) -> list[Result]:
    """Send generated jobs to all queues in turn, and wait until they have ended."""
    sent: list[tuple[str, bytes]] = []
    job_ids: list[str] = []
    queues = sorted(siege.good)
    for number in range(count):
        queue = queues[number % len(queues)]
        inputs, parameters = malformed.job(rng, [(given, asked) for given, asked, _ in siege.good[queue]])
        job_ids.append(str(uuid.UUID(int=rng.getrandbits(128))))
        sent.append((queue, message(job_ids[-1], inputs, parameters)))
    push(siege, sent)
    return siege.results(job_ids)


def test_generated_jobs(siege: Siege) -> None:
    """Whatever two thousand malformed jobs hold, each ends, with an error of ours if it fails; none kills or grows."""
    rng = random.Random(20)
    process = psutil.Process(siege.worker.pid)
    first = run_generated(siege, rng, GENERATED // 2)
    before = process.memory_info().rss
    second = run_generated(siege, rng, GENERATED // 2)
    grown = process.memory_info().rss - before
    outcomes = Counter(type(result.error).__name__ for result in (*first, *second))
    print(f"{outcomes}, grown by {grown / 2**20:.1f} MiB")  # noqa: T201  # for people
    for result in (*first, *second):
        assert result.status is JobStatus.SUCCEEDED or type(result.error) not in {JobFailed, type(None)}
        assert len(str(result.error)) <= MOST_TOLD, result.error
    assert outcomes["DeliveryLimitReached"] == 0
    assert grown <= MOST_GROWN
    for queue in siege.good:
        assert report_on(siege.client, queue).totals.get("dead", 0) == 0
    inputs, parameters, _ = siege.good["image"][0]
    assert siege.client.run("image", inputs, parameters, timeout=60)
