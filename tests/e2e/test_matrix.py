"""The promise for every task, through a real broker and a real worker: an answer is the direct call's answer.

All jobs of a family wait in their queues before its worker starts, so that they share batches; each worker serves many
queues at a time. What the rows are, and their direct calls, is in ``tests.tasks``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import pytest

from pipemill import Client, Job
from pipemill.embedded import EmbeddedBroker
from pipemill_worker.pipelines.rules import TASK_RULES
from tests.e2e.rig import Process, Serve, report_on, served_by
from tests.helpers import until
from tests.tasks import models
from tests.tasks.bench import Bench, shared_bench
from tests.tasks.compare import assert_same
from tests.tasks.matrix import ALONE, ROWS, SHARING

pytestmark = pytest.mark.usefixtures("one_thread")

#: Rows by the worker that serves them.
FAMILIES: Final[Mapping[str, list[str]]] = {
    "texts": [*models.texts.BUILDERS, *models.writers.BUILDERS],
    "images": [*models.images.BUILDERS],
    "sounds-and-pairs": [*models.sounds.BUILDERS, *models.pairs.BUILDERS],
}
#: How long a worker may take to load a family's models, and then for all its jobs, in seconds.
PATIENCE: Final = 180.0


@dataclass(frozen=True, kw_only=True)
class Family:
    """A worker, and the jobs that waited for it."""

    client: Client
    worker: Process
    #: By row.
    jobs: Mapping[str, list[Job]]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The rows' models and their direct answers, each made once a session."""
    return shared_bench(tmp_path_factory.getbasetemp())


def catalogue_of(rows: list[str], bench: Bench) -> str:
    """A catalogue with a queue for each row."""
    queues = [f"  {key}: {{task: {ROWS[key].task}, model: {bench.model(key)}, device: cpu}}" for key in rows]
    return "\n".join(["worker: {lease_seconds: 15, torch_threads: 1}", "queues:", *queues, ""])


@pytest.fixture(scope="module")
def family(request: pytest.FixtureRequest, bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Family]:
    """One family's jobs, all submitted, and then the worker that answers them; it must end well."""
    rows = [key for key in FAMILIES[request.param] if ROWS[key].missing() is None]
    with EmbeddedBroker() as broker:
        serving = Serve(tmp_path_factory.mktemp("family"), broker.url)
        catalogue = serving.catalogue(catalogue_of(rows, bench))
        with Client(broker.url, catalogue=catalogue) as client:
            jobs = {key: [client.submit(key, job.inputs, job.parameters) for job in bench.jobs(key)] for key in rows}
            try:
                worker = serving.start(catalogue)
                served = partial(served_by, client, worker)
                until(lambda: worker.ended or set(rows) <= set(served()), "all queues served", PATIENCE)
                assert not worker.ended, worker.output()[-2000:]
                yield Family(client=client, worker=worker, jobs=jobs)
                assert worker.stop() == 0
            finally:
                serving.end()


def facts_of(family: Family, key: str) -> Mapping[str, Any]:
    """What the worker reports of a queue's lane, once it has reported its passes of all jobs."""

    def told() -> Mapping[str, Any] | None:
        (lane,) = report_on(family.client, key).lanes.values()
        items = sum(int(size) * count for size, count in lane["batch_sizes"].items())
        return lane if items >= len(family.jobs[key]) else None

    facts: Mapping[str, Any] = family.worker.until(told, f"the worker reports its passes of {key}")
    return facts


@pytest.mark.parametrize(
    ("family", "key"),
    [(name, key) for name, keys in FAMILIES.items() for key in keys],
    indirect=["family"],
    scope="module",  # Or each row would start a worker of its own.
)
def test_every_task_answers_as_the_direct_call(family: Family, key: str, bench: Bench) -> None:
    """Each job of a row, whatever it shared a pass with, is answered as transformers alone answers it."""
    row = bench.row(key)
    results = family.client.results(family.jobs[key], timeout=PATIENCE)
    for number, (result, direct) in enumerate(zip(results, bench.answers(key), strict=True)):
        assert_same(result.get(), direct, grey_levels=row.grey_levels, path=f"job {number}")
    facts = facts_of(family, key)
    assert facts["sharing"] == SHARING[key]
    print(f"{key}: {len(results)} jobs in passes of {facts['batch_sizes']} items")  # noqa: T201  # for people
    assert key not in ALONE or list(facts["batch_sizes"]) == ["1"]


@pytest.mark.parametrize("family", FAMILIES, indirect=True, scope="module")
def test_jobs_share_passes(family: Family) -> None:
    """There are fewer forward passes than items: which job shared with which is up to the worker."""
    sizes = [facts_of(family, key)["batch_sizes"] for key in family.jobs]
    items = sum(int(size) * count for each in sizes for size, count in each.items())
    assert sum(count for each in sizes for count in each.values()) < items


def test_every_task_has_a_row() -> None:
    """No task that the worker knows is left out, and no row is."""
    assert {row.task for row in ROWS.values()} == set(TASK_RULES)
    assert sorted(key for keys in FAMILIES.values() for key in keys) == sorted(ROWS)
