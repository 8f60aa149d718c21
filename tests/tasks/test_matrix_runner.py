"""The promise without a broker: all jobs of a row share passes as their group keys allow, each gets its own answer."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from pipemill.codec import decode, encoder
from pipemill_worker.pipelines.factory import load_runner
from tests.tasks.bench import Bench
from tests.tasks.compare import assert_same
from tests.tasks.matrix import ALONE, ROWS, SHARING
from tests.unit.pipelines.tiny import Settings, finish_batched


def received(answer: Any) -> Any:
    """An answer as a producer gets it, after its way as JSON."""
    return decode(orjson.loads(orjson.dumps(answer, default=encoder())))


@pytest.mark.parametrize("key", ROWS)
def test_shared_passes_change_no_answer(key: str, bench: Bench) -> None:
    """What a producer receives, whatever shared the job's passes, is what transformers alone answers."""
    row, jobs = bench.row(key), bench.jobs(key)
    runner: Any = load_runner(key, Settings(task=row.task, model=str(bench.model(key))), threads=1)
    run = finish_batched(runner, [runner.prepare(job.inputs, dict(job.parameters)) for job in jobs])
    print(f"{key}: {len(jobs)} jobs in {len(run.batches)} passes of at most {max(run.batches)} items")  # noqa: T201  # for people
    for number, (answer, direct) in enumerate(zip(run.answers, bench.answers(key), strict=True)):
        assert_same(received(answer), direct, grey_levels=row.grey_levels, path=f"job {number}")
    assert runner.describe()["sharing"] == SHARING[key]
    assert (max(run.batches) == 1) == (key in ALONE)
