"""Ray Serve: a deployment with `@serve.batch`."""

from __future__ import annotations

import os
import signal
from typing import Any

import ray
from ray import serve
from starlette.requests import Request

from benchmarks.rivals.servers.model import Answers, load
from benchmarks.rivals.servers.settings import Settings

SETTINGS = Settings.from_environment()
#: Smallest object store that Ray accepts is 75 MiB; requests don't go through it.
OBJECT_STORE_BYTES = 80 * 1024 * 1024
#: Above the requests that are ever on their way, so that none is held back before it can join a batch.
ONGOING = 10_000
#: A server is stopped while others are measured; nobody should take it for dead, in seconds.
HEALTH_SECONDS = 3600


@serve.deployment(
    num_replicas=1,
    max_ongoing_requests=ONGOING,
    ray_actor_options={"num_cpus": 1},
    health_check_timeout_s=HEALTH_SECONDS,
)
class Classifier:
    """Answers texts in batches."""

    def __init__(self) -> None:
        """Load the model."""
        self._answer = load(SETTINGS)

    @serve.batch(max_batch_size=SETTINGS.size, batch_wait_timeout_s=SETTINGS.wait)
    async def classify(self, texts: list[str]) -> Answers:
        """Answer a batch."""
        return self._answer(texts)

    async def __call__(self, request: Request) -> Any:
        """Answer a request."""
        return await self.classify((await request.json())["inputs"])


def main() -> None:
    """Serve until SIGTERM."""
    ray.init(
        num_cpus=1,
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        _temp_dir=os.environ["RAY_TMPDIR"],
        configure_logging=False,
        log_to_driver=False,
    )
    serve.start(
        http_options={"host": "127.0.0.1", "port": SETTINGS.port, "request_timeout_s": SETTINGS.deadline},
    )
    deployment: Any = Classifier
    serve.run(deployment.bind())
    stopped = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stopped)
    signal.sigwait(stopped)
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
