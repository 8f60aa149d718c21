"""The matrix itself: every model loads by its folder alone, and its direct calls say the same each time."""

from __future__ import annotations

import pytest

from tests.tasks.bench import Bench
from tests.tasks.compare import assert_same
from tests.tasks.matrix import ROWS
from tests.tasks.rows import call_directly


@pytest.mark.parametrize("key", ROWS)
def test_direct_calls_repeat(key: str, bench: Bench) -> None:
    """Each row has six jobs or more, and transformers answers each of them twice alike."""
    jobs = bench.jobs(key)
    assert len(jobs) >= 6
    for job, answer in zip(jobs, bench.answers(key), strict=True):
        assert_same(call_directly(bench.pipeline(key), job), answer, tolerance=0)
