"""BentoML: a service with a batchable API, whose batch size adapts."""

from __future__ import annotations

from typing import Any

import bentoml

from benchmarks.rivals.servers.model import load
from benchmarks.rivals.servers.settings import Settings

SETTINGS = Settings.from_environment()
#: Its default for the longest latency, from which it also learns how long to wait; in seconds.
LATENCY_SECONDS = 60.0


@bentoml.service(workers=1, resources={"cpu": "1"}, traffic={"timeout": SETTINGS.deadline})
class Classifier:
    """Answers texts in batches."""

    def __init__(self) -> None:
        """Load the model."""
        self._answer = load(SETTINGS)

    @bentoml.api(
        batchable=True,
        batch_dim=0,
        max_batch_size=SETTINGS.size,
        max_latency_ms=round(min(SETTINGS.deadline, LATENCY_SECONDS) * 1e3),
    )
    def classify(self, inputs: list[str]) -> list[dict[str, Any]]:
        """Answer a batch: the texts of several requests."""
        return self._answer(inputs)
