"""Texts that are written together, through a real broker and real workers: each is its own direct call's."""

from __future__ import annotations

import pytest
import redis

from pipemill import Client
from pipemill.errors import InferenceFailed, InvalidInput, InvalidParameter
from pipemill.protocol import JobStatus
from tests.e2e.mill import Mill
from tests.e2e.rig import Serve, freeze_at_work, leased_messages, report_on
from tests.helpers import until
from tests.unit.pipelines.test_writing import direct, prompts

GENERATOR = """
worker: {lease_seconds: 2, torch_threads: 1}
queues:
  generator: {task: text-generation, model: "builtin:generator", device: cpu, prefetch: 8}
"""


def test_two_hundred_mixed_jobs_are_answered_as_alone(mill: Mill) -> None:
    """Seeds, processors, stop sequences, several answers and all lengths, submitted one by one: each is as alone."""
    jobs = prompts(200)
    sent = [mill.client.submit("generator", text, parameters) for text, parameters in jobs]
    results = mill.client.results(sent, timeout=300)
    for job, result in zip(jobs, results, strict=True):
        assert result.get() == direct(*job)
    (lane,) = report_on(mill.client, "generator").lanes.values()
    assert lane["writes_together"]
    assert max(map(int, lane["batch_sizes"])) > 1


#: What can't be written, and what its job's error says.
HOPELESS = (
    ("", {}, InvalidInput, "give a text with at least one character"),
    (None, {}, InvalidInput, "must be a string"),
    ("good", {"max_new_tokens": 10**9}, InvalidParameter, "give a whole number from 1 to 4096"),
    ("good", {"temperature": 1e-30, "do_sample": True}, InvalidParameter, "give a number from 0.01 to 10"),
    ("good", {"bad_words_ids": [[9_000_000]]}, InferenceFailed, "vocabulary size is 2048"),
)


def test_what_cannot_be_written_fails_alone(mill: Mill) -> None:
    """Each with its own error, in the middle of others, which are answered as alone."""
    good = prompts(len(HOPELESS) * 3)
    with Client(mill.url, check_parameters=False) as client:
        sent = [(client.submit("generator", text, given), (text, given)) for text, given in good[: len(good) // 2]]
        bad = [client.submit("generator", text, given) for text, given, _, _ in HOPELESS]
        sent += [(client.submit("generator", text, given), (text, given)) for text, given in good[len(good) // 2 :]]
        for job, (_, _, kind, says) in zip(bad, HOPELESS, strict=True):
            with pytest.raises(kind, match=says):
                job.result(timeout=120)
        for job, asked in sent:
            assert job.result(timeout=120) == direct(*asked)


def test_of_fifty_texts_twenty_are_cancelled_and_thirty_are_right(mill: Mill) -> None:
    """Cancelled in the middle, texts leave their neighbours as they were."""
    asked = [(f"the food was {'very ' * (number % 5)}good", {"max_new_tokens": 60}) for number in range(50)]
    jobs = [mill.client.submit("generator", text, {**given, "do_sample": False}) for text, given in asked]
    for job in jobs[:20]:
        job.cancel()
    statuses = {mill.client.status(job.id) for job in jobs[:20]}
    assert statuses <= {JobStatus.CANCELLED, JobStatus.SUCCEEDED}
    for (text, given), result in zip(asked[20:], mill.client.results(jobs[20:], timeout=120), strict=True):
        assert result.get() == direct(text, {**given, "do_sample": False})


def test_texts_of_a_killed_worker_are_written_anew(serve: Serve, client: Client, broker: redis.Redis) -> None:
    """After kill -9 in the middle of forty texts the next worker writes them all from the beginning, each as alone."""
    worker = serve(GENERATOR)
    asked = [(text, {**given, "max_new_tokens": 40}) for text, given in prompts(40)]
    jobs = freeze_at_work(
        worker, client, "generator", lambda: [client.submit("generator", text, given) for text, given in asked]
    )
    worker.kill()
    assert leased_messages(broker) > 0
    serve(GENERATOR)
    for job, result in zip(asked, client.results(jobs, timeout=300), strict=True):
        assert result.get() == direct(*job)
    until(lambda: leased_messages(broker) == 0, "nothing is leased any more")
