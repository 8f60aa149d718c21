"""What it costs to tell texts while they are written: `scripts/bench streams [--json] [--check] [--repeats N]`.

32 jobs on a real Valkey, a token each in every step, as a writer would give them; a step every 5 ms, so that hardly any
two share a call. CPU time of the whole process with what is told and without, per token: spelling, the thread between,
the script's call. The model, and the broker's own time, aren't in it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any, Final

from rich.console import Console
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from pipemill import Client
from pipemill.embedded import EmbeddedBroker
from pipemill.protocol import decode_message
from pipemill.store.base import QueueInfo
from pipemill.store.jobs import RedisJobStore
from pipemill_worker.engine import Lane
from pipemill_worker.engine.streamer import Streamer
from pipemill_worker.engine.work import Work
from pipemill_worker.pipelines.echo import EchoRunner
from pipemill_worker.pipelines.writing.spelling import token_speller
from pipemill_worker.policy.batching import BatchLimits
from pipemill_worker.seams import Prepared, Speller

QUEUE: Final = "texts"
ROWS: Final = 32
STEPS: Final = 1_000
#: Between two steps, in seconds.
STEP_SECONDS: Final = 0.005
#: Worker CPU a token, in seconds.
BAR: Final = 20e-6
TEXT: Final = "The quick brown fox jumps over the lazy dog, and über die Brücke — naïve as ever. " * 40


def tokenizer() -> Any:
    """A byte-level tokenizer, as most models have one."""
    made: Any = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator([TEXT], trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet))
    return made


class Spelling(EchoRunner):
    """Spells by a tokenizer."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def spelling(self, prepared: Prepared) -> Speller:  # noqa: ARG002  # the seam's signature
        """One for each text."""
        return token_speller(self._backend, skip_special_tokens=True)


def works_of(store: RedisJobStore, url: str) -> list[Work]:
    """As many jobs as there are rows, leased and prepared."""
    with Client(url) as client:
        client.submit_many(QUEUE, ["text"] * ROWS, stream=True)
    works = [Work(leased, decode_message(leased.raw, QUEUE)) for leased in store.take(ROWS).jobs]
    for work in works:
        work.set_prepared(Prepared(()))
    return works


def cpu_of_steps(lane: Lane, works: Sequence[Work], tokens: Sequence[int], *, telling: bool) -> float:
    """CPU seconds of this process while every work gets a token in each step."""
    before = time.process_time()
    for step in range(STEPS):
        if telling:
            lane.streams.news.put([(work, tokens[(step + row) % len(tokens)]) for row, work in enumerate(works)])
        time.sleep(STEP_SECONDS)
    return time.process_time() - before


def measure(repeats: int) -> dict[str, Any]:
    """CPU seconds a token, and how many entries there were for each."""
    backend = tokenizer()
    tokens: list[int] = backend.encode(TEXT).ids
    costs: list[float] = []
    with EmbeddedBroker() as broker:
        store = RedisJobStore(broker.url, QUEUE, lease_seconds=3_600)
        info = QueueInfo(name=QUEUE, task="text-generation")
        store.announce(info)
        limits = BatchLimits(max_items=ROWS, max_cost=1_000, max_amplification=2.0)
        lane = Lane(info, store, Spelling(backend), limits=limits, prefetch=ROWS, device="cpu")
        thread = threading.Thread(target=Streamer(lane).run)
        thread.start()
        try:
            for _ in range(repeats):
                works = works_of(store, broker.url)
                without = cpu_of_steps(lane, works, tokens, telling=False)
                costs.append((cpu_of_steps(lane, works, tokens, telling=True) - without) / (STEPS * ROWS))
                store.release([work.field for work in works])
        finally:
            lane.streams.news.put(None)
            thread.join()
            store.close()
    return {"cpu_seconds_per_token": costs, "met": statistics.median(costs) <= BAR}


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--check", action="store_true", help="fail when the bar is missed")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="turns (3)")
    options = parser.parse_args()
    figures = measure(options.repeats)
    costs = [1e6 * each for each in figures["cpu_seconds_per_token"]]
    if options.json:
        print(json.dumps(figures))
    else:
        text = f"{statistics.median(costs):.1f} [{min(costs):.1f}-{max(costs):.1f}] µs of CPU a token"
        Console().print(f"{ROWS} rows told: {text} (at most {1e6 * BAR:.0f})")
    sys.exit(options.check and not figures["met"])


if __name__ == "__main__":
    main()
