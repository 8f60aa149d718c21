"""Jobs whose answers are known beforehand."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pipemill_worker
from pipemill.protocol.names import REFERENCE_BYTES

#: Jobs submitted by one call.
CHUNK: Final = 64
#: Every so many echo jobs one is so large that its inputs and its answer travel beside the message.
LARGE_EVERY: Final = 100
LARGE: Final = "large " * (REFERENCE_BYTES // 5)
#: What the demo's models are asked: their answers are computed once, by direct calls.
SENTENCES: Final = 64
PROMPTS: Final = 16
#: The demo's queues by task, as the mixed catalogue has them; the parameters make each answer the only one.
MODELS: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    "sentiment": ("text-classification", {}),
    "generator": ("text-generation", {"max_new_tokens": 8, "do_sample": False}),
}
#: Which part of all chunks goes to which queue.
MIXED: Final[Mapping[str, float]] = {"echo": 0.7, "sentiment": 0.28, "generator": 0.02}
ECHO: Final[Mapping[str, float]] = {"echo": 1.0}

#: One catalogue for all: a job may be in the hands of many killed workers and still be answered, and results are kept
#: for longer than a run lasts.
CATALOGUE: Final = """
worker: {{lease_seconds: {lease}, max_deliveries: 100, torch_threads: 1, cache_dir: {cache}}}
queues:
"""
QUEUES: Final[Mapping[str, str]] = {
    "echo": "{{task: echo, batch: {{max_items: 16}}, prefetch: 64, result_ttl_seconds: {kept}}}",
    "sentiment": '{{task: text-classification, model: "builtin:sentiment", device: cpu, result_ttl_seconds: {kept}}}',
    "generator": '{{task: text-generation, model: "builtin:generator", device: cpu, result_ttl_seconds: {kept}, '
    "parameters: {{max_new_tokens: 8, do_sample: false}}}}",
}

#: Inputs and the answer to each, by queue.
Known = Mapping[str, Sequence[tuple[Any, Any]]]


def catalogue(queues: Sequence[str], *, cache: Path, lease_seconds: float, kept_seconds: int = 86_400) -> str:
    """The text of a catalogue of these queues."""
    lines = [f"  {name}: {QUEUES[name].format(kept=kept_seconds)}\n" for name in queues]
    return CATALOGUE.format(lease=lease_seconds, cache=cache) + "".join(lines)


def known_answers(queues: Sequence[str]) -> Known:
    """What the demo's models answer when they are called directly; loads torch if one is asked."""
    from tests.e2e.mill import direct_pipeline  # noqa: PLC0415  # loads torch when it is called

    demo = Path(pipemill_worker.__file__).parent / "demo"
    texts = (demo / "sentences.txt").read_text("utf-8").splitlines()
    known: dict[str, list[tuple[Any, Any]]] = {}
    for queue in [queue for queue in queues if queue in MODELS]:
        task, parameters = MODELS[queue]
        pipe = direct_pipeline(task, str(demo / "models" / queue))
        asked = texts[: SENTENCES if queue == "sentiment" else PROMPTS]
        known[queue] = [(text, pipe(text, **parameters)) for text in asked]
    return known


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Jobs of one queue, to be submitted by one call, and again if its answer is lost."""

    queue: str
    inputs: Sequence[Any]
    answers: Sequence[Any]
    #: One for each job: however often it is submitted, it is one job.
    keys: Sequence[str]


class Material:
    """Draws chunks of jobs, the same for the same seed."""

    def __init__(self, seed: int, shares: Mapping[str, float], known: Known):
        self._rng = random.Random(seed)
        self.queues = list(shares)
        self._shares = list(shares.values())
        self._known = known
        self._drawn = 0

    def chunk(self, at_most: int) -> Chunk:
        """The next jobs."""
        (queue,) = self._rng.choices(self.queues, self._shares)
        numbers = range(self._drawn, self._drawn + min(at_most, CHUNK))
        self._drawn = numbers.stop
        pairs = [self._pair(queue, number) for number in numbers]
        return Chunk(
            queue=queue,
            inputs=[given for given, _ in pairs],
            answers=[answer for _, answer in pairs],
            keys=[f"job {number}" for number in numbers],
        )

    def _pair(self, queue: str, number: int) -> tuple[Any, Any]:
        if queue in self._known:
            return self._rng.choice(self._known[queue])
        text = f"text {number}" if number % LARGE_EVERY else f"{LARGE}{number}"
        return text, text
