"""An engine over a store in memory and a runner that does what a test says."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from pipemill.errors import BrokerUnavailable, InvalidInput
from pipemill.protocol import Result, encode_arguments, encode_message
from pipemill.store.base import JobStore, QueueInfo, Standing, Submission
from pipemill.store.memory import MemoryBroker, MemoryJobStore
from pipemill.store.memory_queues import MemoryQueueStore
from pipemill_worker.engine import Engine, EngineSettings, Hooks, Lane
from pipemill_worker.policy.batching import BatchLimits
from pipemill_worker.seams import Account, Item, ItemWriter, Prepared, Speller
from tests.helpers import until

QUEUE = "words"


class Runner:
    """Upper-cases words; "bad" can't be prepared, "broken" raises in preprocessing, "poison" in the forward pass."""

    writer: ItemWriter | None = None

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        #: Cleared to hold the forward pass.
        self.go = threading.Event()
        self.go.set()
        self.memory = 10_000
        self.lost: set[str] = set()

    def prepare(self, inputs: Any, parameters: Mapping[str, Any]) -> Prepared:
        if not isinstance(inputs, str) or inputs == "bad":
            message = "the inputs must be a good word"
            raise InvalidInput(message)
        if inputs == "broken":
            message = "preprocess bug"
            raise ValueError(message)
        words = inputs.split()
        return Prepared([Item(parameters.get("group", "all"), len(word), word) for word in words], state=inputs)

    def forward(self, items: Sequence[Item]) -> Sequence[Any]:
        words = [str(item.payload) for item in items]
        self.batches.append(words)
        self.go.wait(30)
        if len(items) > self.memory:
            raise MemoryError
        if "short" in words:
            return []
        if self.lost & set(words):
            message = "device lost"
            raise RuntimeError(message)
        if "unspeakable" in words:
            message = "can't open caf\udce9.bin"
            raise RuntimeError(message)
        if "poison" in words:
            message = "poison"
            raise RuntimeError(message)
        return [word.upper() for word in words]

    def finish(self, prepared: Prepared, outputs: Sequence[Any]) -> Any:
        if prepared.state == "unfinishable":
            message = "postprocess bug"
            raise KeyError(message)
        return object() if prepared.state == "unwritable" else " ".join(outputs)

    def account(self, prepared: Prepared, outputs: Sequence[Any], *, followed: bool) -> Account:  # noqa: ARG002  # the seam's signature
        return Account()

    def spelling(self, prepared: Prepared) -> Speller | None:  # noqa: ARG002  # as above
        return None

    def warm_up(self) -> None:
        """Nothing to warm."""

    def is_out_of_memory(self, error: BaseException) -> bool:
        return isinstance(error, MemoryError)

    def is_device_lost(self, error: BaseException) -> bool:
        return "device lost" in str(error)

    def is_transient(self, error: BaseException) -> bool:
        return "for a while" in str(error)

    def describe(self) -> dict[str, Any]:
        return {"task": "words"}


class Outage:
    """A store that can't be reached while ``down`` is set."""

    def __init__(self, store: JobStore):
        self._store = store
        self.down = threading.Event()

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            if self.down.is_set():
                message = "the broker is away"
                raise BrokerUnavailable(message)
            return attribute(*args, **options)

        attribute = getattr(self._store, name)
        return call if callable(attribute) else attribute


class Watching(Hooks):
    """Remembers what the engine said to its host."""

    def __init__(self) -> None:
        self.revoked: set[str] = set()
        self.failures: list[BaseException] = []
        self.followed: list[tuple[str, Any, Any]] = []
        self.follow_ups: list[tuple[str, bytes]] = []

    def is_revoked(self, job_id: str) -> bool:
        return job_id in self.revoked

    def before_end(self, job: Any, value: Any, error: Any) -> Sequence[tuple[str, bytes]]:
        self.followed.append((job.id, value, error))
        return self.follow_ups

    def on_failure(self, error: BaseException) -> None:
        self.failures.append(error)


class Rig:
    """A broker in memory, and as many engines on it as a test starts."""

    def __init__(self) -> None:
        self.broker = MemoryBroker()
        self.producer = MemoryQueueStore(self.broker)
        self.hooks = Watching()
        self.runner = Runner()
        self.info = QueueInfo(name=QUEUE, task="words", max_input_bytes=10_000)
        self.producer.declare(self.info)
        self.engines: list[Engine] = []

    def lane(self, runner: Runner | None = None, store: JobStore | None = None, *, name: str = QUEUE) -> Lane:
        limits = BatchLimits(max_items=64, max_cost=100_000, max_amplification=100.0)
        info = QueueInfo(name=name, task="words", max_input_bytes=10_000)
        there = store or MemoryJobStore(self.broker, name, lease_seconds=5.0)
        return Lane(info, there, runner or self.runner, limits=limits, prefetch=256, device="cpu")

    @contextmanager
    def running(self, *lanes: Lane, drain_seconds: float = 10.0) -> Iterator[Engine]:
        settings = EngineSettings(lease_seconds=5.0, drain_seconds=drain_seconds, preprocess_threads=2)
        engine = Engine(lanes or [self.lane()], settings, self.hooks)
        engine.start()
        try:
            yield engine
        finally:
            engine.drain()

    def put(
        self, *words: Any, queue: str = QUEUE, parameters: dict[str, Any] | None = None, **options: Any
    ) -> list[str]:
        """Enqueue a job for each; their ids are the words, numbered."""
        first = self.broker.sequence + len(self.broker.records) + len(self.broker.results)
        jobs = [(f"{first + n}-{str(word)[:20]}", word) for n, word in enumerate(words)]
        submissions = [
            Submission(
                job_id=job_id,
                list_index=0,
                message=encode_message(job_id, queue, encode_arguments(word, parameters or {}), **options),
            )
            for job_id, word in jobs
        ]
        accepted = self.producer.enqueue(queue, submissions)
        assert accepted is not None
        return list(accepted.job_ids)

    def standing(self, job_id: str) -> Standing:
        return self.producer.standings([job_id])[0]

    def result(self, job_id: str) -> Result:
        """How a job ended, once it has."""
        found = until(lambda: self.standing(job_id).result, f"job {job_id} ends")
        assert found is not None
        return found

    def answers(self, job_ids: Sequence[str]) -> list[Any]:
        return [self.result(job_id).get() for job_id in job_ids]
