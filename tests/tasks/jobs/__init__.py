"""The jobs of each row: different inputs, lengths and sizes, and different parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from tests.tasks.jobs import images, pairs, sounds, texts, writers
from tests.tasks.rows import Job

#: What makes the jobs of each row, by the row's key.
JOBS: Final[Mapping[str, Callable[[Path], list[Job]]]] = {
    **texts.JOBS,
    **writers.JOBS,
    **images.JOBS,
    **sounds.JOBS,
    **pairs.JOBS,
}
