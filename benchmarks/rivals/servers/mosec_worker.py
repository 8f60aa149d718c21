"""Mosec: a Worker whose `forward` takes a list."""

from __future__ import annotations

from typing import Any

import mosec

from benchmarks.rivals.servers.model import Answers, load
from benchmarks.rivals.servers.settings import Settings

SETTINGS = Settings.from_environment()


class Classifier(mosec.Worker):
    """Answers texts in batches."""

    def __init__(self) -> None:
        """Load the model."""
        super().__init__()
        self._answer = load(SETTINGS)

    def forward(self, data: list[dict[str, Any]]) -> Answers:
        """Answer a batch."""
        return self._answer([each["inputs"] for each in data])


if __name__ == "__main__":
    server = mosec.Server()
    server.append_worker(Classifier, num=1, max_batch_size=SETTINGS.size, max_wait_time=round(SETTINGS.wait * 1e3))
    server.run()
