"""Builds each row's model and makes its direct calls, once."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.tasks.matrix import ROWS
from tests.tasks.rows import Job, Row, call_directly, load_direct


@cache
def shared_bench(folder: Path) -> Bench:
    """The one bench of a test session, whose folder it is given."""
    return Bench(folder / "matrix")


class Bench:
    """Rows on disk, and what transformers itself answers to their jobs."""

    def __init__(self, folder: Path):
        folder.mkdir()
        #: Where the models lie, by the rows' keys.
        self.folder = folder
        self.model = cache(self._model)
        self.jobs = cache(self._jobs)
        self.pipeline = cache(self._pipeline)
        self.answers = cache(self._answers)

    def row(self, key: str) -> Row:
        """The row; skips the test when it can't run here."""
        row = ROWS[key]
        if reason := row.missing():
            pytest.skip(reason)
        return row

    def _model(self, key: str) -> Path:
        self.row(key).build(self.folder / key)
        return self.folder / key

    def _jobs(self, key: str) -> list[Job]:
        return self.row(key).jobs(self.folder)

    def _pipeline(self, key: str) -> Any:
        return load_direct(self.row(key), self.model(key))

    def _answers(self, key: str) -> list[Any]:
        return [call_directly(self.pipeline(key), job) for job in self.jobs(key)]
