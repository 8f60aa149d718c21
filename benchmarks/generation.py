"""Texts of mixed lengths, written: `scripts/bench generation [--json] [--repeats N]`.

A random Llama of 39 M parameters, float32, one core; 32 prompts, some ten to sixty tokens each, ask for 4 to 128
new ones, greedy. One call after the other, transformers' static batches in the order of arrival and its continuous
batching, pipemill's writer, and vLLM where it can be installed, by turns. Tokens per second are medians; the ratios are
what counts. Then the same prompts once more, one after another while others are written: how long each waits for its
first token. And 64 texts of 512 tokens with room for a third of them: what their keys and values take.
"""

from __future__ import annotations

import copy
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

import psutil
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.direct import FIRST, Direct, Generates, Request, Timed, by_turns, faster, options, timed
from benchmarks.material import TRANSFORMERS
from pipemill_worker.pipelines.loading.allocator import keep_freed_memory
from pipemill_worker.pipelines.prepacked import prepack
from pipemill_worker.pipelines.writing.draft import Draft
from pipemill_worker.pipelines.writing.drafting import Drafter
from pipemill_worker.pipelines.writing.items import bytes_per_token
from pipemill_worker.pipelines.writing.lean import lean
from pipemill_worker.pipelines.writing.writer import Writer

PROMPTS: Final = 32
VOCABULARY: Final = 32_000
#: Wide weights, so that greedy choices are no near ties.
MODEL: Final[dict[str, Any]] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 384,
    "intermediate_size": 1_536,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "max_position_embeddings": 1_024,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
}
#: Our rate ÷ another's; vLLM's where it runs.
BARS: Final = {FIRST: 5.0, "vLLM": 0.9}
#: The Python that has vLLM (`scripts/bootstrap-generation`).
VLLM_PYTHON: Final = Path(__file__).parents[1] / ".venv-vllm/bin/python"
#: Steps that a prompt may wait for its first token beside its own reading, at the median.
BAR_STEPS: Final = 2.0
#: Steps between two prompts, on average.
STEPS_APART: Final = 4
#: Texts, and new tokens of each, that ask for more memory than there is.
MANY: Final = 64
LONG: Final = 512
_set_threads: Any = torch.set_num_threads


def requests() -> list[Request]:
    """Prompts as token ids, and how many new tokens each asks for: a log-normal choice, the same in every run."""
    rng = random.Random(3)  # noqa: S311  # a fixed choice, no secret
    return [
        (
            [rng.randrange(3, VOCABULARY) for _ in range(max(2, min(64, int(rng.lognormvariate(2.9, 0.6)))))],
            max(4, min(128, int(rng.lognormvariate(3.4, 0.8)))),
        )
        for _ in range(PROMPTS)
    ]


class Sides(Direct):
    """The ways to write."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        TRANSFORMERS.utils.logging.set_verbosity_error()
        self.model = TRANSFORMERS.LlamaForCausalLM(TRANSFORMERS.LlamaConfig(**MODEL)).eval()
        self._ours = copy.deepcopy(self.model)
        self._lean = lean(self._ours, prepack(self._ours, writes=True))
        self._drafter = Drafter(Generates(self._ours))
        self._writer = Writer(self._ours, max_rows=PROMPTS, max_tokens=1 << 20, lean=self._lean)

    def _generate(self, asked: Sequence[Request]) -> list[list[int]]:
        longest = max(len(prompt) for prompt, _ in asked)
        ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt, _ in asked])
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt, _ in asked])
        most = max(new for _, new in asked)
        rows = self.model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=most, do_sample=False)
        return [row[longest : longest + new].tolist() for row, (_, new) in zip(rows, asked, strict=True)]

    def continuous(self, asked: Sequence[Request]) -> list[list[int]]:
        """Transformers' continuous batching, its memory bounded as its defaults don't."""
        settings = TRANSFORMERS.GenerationConfig(do_sample=False, max_new_tokens=128, eos_token_id=-1, pad_token_id=0)
        bounds = TRANSFORMERS.ContinuousBatchingConfig(
            num_blocks=256, page_size=32, max_batch_tokens=512, max_requests_per_batch=PROMPTS
        )
        options = {"generation_config": settings, "continuous_batching_config": bounds}
        written: dict[str, list[int]] = {}
        with self.model.continuous_batching_context_manager(**options, block=True, timeout=10) as manager:
            names = [manager.add_request(prompt, max_new_tokens=new) for prompt, new in asked]
            while len(written) < len(names):
                result = manager.get_result(timeout=10)
                if result is not None and result.is_finished():
                    written[result.request_id] = result.generated_tokens
        return [written[name] for name in names]

    def together(self, asked: Sequence[Request]) -> list[list[int]]:
        """Joining and leaving at every token."""
        writer = self._writer
        for number, request in enumerate(asked):
            writer.join(number, self._draft(request))
        written: dict[Any, torch.Tensor] = {}
        while writer.busy:
            written.update(writer.step())
        return [written[number][0, len(prompt) :].tolist() for number, (prompt, _) in enumerate(asked)]

    def _draft(self, request: Request) -> Draft:
        prompt, new = request
        mask = torch.ones(1, len(prompt), dtype=torch.long)
        inputs = {"input_ids": torch.tensor([prompt]), "attention_mask": mask}
        draft = self._drafter.draft(inputs, {"max_new_tokens": new, "do_sample": False})
        if draft is None or not draft.may_join():
            raise RuntimeError("this model's prompts can't be written together")
        return draft

    def first_tokens(self, asked: Sequence[Request]) -> list[float]:
        """For each prompt that comes while others are written: steps until its first token, less its own reading.

        Its own reading is what it takes alone; a step is the median of those in which nothing was read.
        """
        writer, rng = self._writer, random.Random(5)  # noqa: S311  # the same arrivals in every run
        alone = [self._first_token([request]) for request in asked]
        steps, waits, come, waiting = list[float](), dict[Any, float](), dict[Any, float](), list(enumerate(asked))
        writer.followed = set(range(len(asked)))
        while waiting or writer.busy:
            read = bool(waiting) and rng.random() < 1 / STEPS_APART
            if read:
                number, request = waiting.pop(0)
                come[number] = time.perf_counter()
                writer.join(number, self._draft(request))
            started = time.perf_counter()
            writer.step()
            ended = time.perf_counter()
            waits |= {number: ended - come[number] for number, _ in writer.told if number not in waits}
            steps += [] if read or not writer.busy else [ended - started]
        writer.followed = set()
        return [(waits[number] - own) / statistics.median(steps) for number, own in enumerate(alone)]

    def _first_token(self, asked: Sequence[Request]) -> float:
        started = time.perf_counter()
        for number, request in enumerate(asked):
            self._writer.join(number, self._draft(request))
        self._writer.step()
        seconds = time.perf_counter() - started
        self._writer.leave(range(len(asked)))
        return seconds

    def memory(self) -> tuple[int, int]:
        """Most bytes of keys and values while more is asked for than fits, and the most that they may be."""
        most = MANY * LONG // 3
        writer = Writer(self._ours, max_rows=MANY, max_tokens=most, lean=self._lean)
        prompts = [([3 + number], LONG - 1) for number in range(MANY)]
        waiting, peak = [self._draft(request) for request in prompts], 0
        while waiting or writer.busy:
            while waiting and writer.has_room(waiting[0]):
                writer.join(len(waiting), waiting.pop(0))
            writer.step()
            peak = max(peak, writer.kept_bytes)
        return peak, most * bytes_per_token(self._ours)


class Vllm:
    """vLLM in a process of its own, on the same core."""

    def __init__(self, model: Any, stack: ExitStack, core: int) -> None:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        model.save_pretrained(folder)
        command = [str(VLLM_PYTHON), str(Path(__file__).with_name("vllm_side.py")), folder]
        own = {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": str(core)}
        self._process = stack.enter_context(
            subprocess.Popen(  # noqa: S603  # our own command
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=os.environ | own
            )
        )
        self.written([([3], 4)])  # It compiles first.

    def written(self, asked: Sequence[Request]) -> tuple[float, list[list[int]]]:
        """Seconds, and the texts."""
        process = self._process
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("no pipes to vLLM")
        process.stdin.write(json.dumps(asked).encode() + b"\n")
        process.stdin.flush()
        if not (line := process.stdout.readline()):
            raise RuntimeError(f"vLLM ended: run {VLLM_PYTHON} benchmarks/vllm_side.py FOLDER to see why")
        answer = json.loads(line)
        return answer["seconds"], answer["texts"]


def measure(repeats: int) -> dict[str, Any]:
    """Tokens a second of each way, and how many texts are the sequential calls'."""
    with ExitStack() as stack:
        return _measure(repeats, stack)


def _measure(repeats: int, stack: ExitStack) -> dict[str, Any]:
    core, *_ = psutil.Process().cpu_affinity()
    psutil.Process().cpu_affinity([core])
    _set_threads(1)
    keep_freed_memory()  # As a worker does; it serves the other ways as well.
    sides, asked = Sides(), requests()
    ways: dict[str, Timed] = {
        FIRST: timed(sides.sequential),
        **{f"static batches of {size}": timed(partial(sides.static, size=size)) for size in (8, 32)},
        "transformers' continuous batching": timed(sides.continuous),
        "pipemill": timed(sides.together),
    }
    if VLLM_PYTHON.exists():
        ways["vLLM"] = Vllm(sides.model, stack, core).written
    tokens = sum(new for _, new in asked)
    seconds, same = by_turns(ways, asked, repeats)
    ratios = {name: faster(seconds["pipemill"], each) for name, each in seconds.items() if name in BARS}
    waits = sides.first_tokens(asked)
    peak, most = sides.memory()
    fast = all(ratio >= BARS[name] for name, ratio in ratios.items())
    met = fast and same["pipemill"] == PROMPTS and statistics.median(waits) <= BAR_STEPS and peak <= most
    return {
        "tokens_per_second": {name: [tokens / each for each in took] for name, took in seconds.items()},
        "same_texts": same,
        "of": PROMPTS,
        "ratios": ratios,
        "first_token_steps": {"median": statistics.median(waits), "p95": statistics.quantiles(waits, n=20)[-1]},
        "kept_bytes": peak,
        "most_bytes": most,
        "met": met,
    }


def show(figures: dict[str, Any]) -> None:
    """Print a table."""
    table = Table("", "tokens/s", "the same texts", title="32 prompts, greedy, one core")
    for name, rates in figures["tokens_per_second"].items():
        spread = f"{statistics.median(rates):.0f} [{min(rates):.0f}-{max(rates):.0f}]"
        table.add_row(name, spread, f"{figures['same_texts'][name]} of {figures['of']}")
    Console().print(table)
    for name, ratio in figures["ratios"].items():
        Console().print(f"pipemill ÷ {name}: {ratio:.2f} (at least {BARS[name]}, all texts the same)")
    waits, kept, most = figures["first_token_steps"], figures["kept_bytes"], figures["most_bytes"]
    Console().print(
        f"a prompt that comes meanwhile has its first token {waits['median']:.1f} steps later than alone (p95 "
        f"{waits['p95']:.1f}; at most {BAR_STEPS} at the median)"
    )
    Console().print(f"{MANY} texts of {LONG} tokens: {kept / 1e6:.0f} MB of keys and values (at most {most / 1e6:.0f})")


def main() -> None:
    """Run it."""
    asked = options(__doc__)
    figures = measure(asked.repeats)
    if asked.json:
        print(json.dumps(figures))
    else:
        show(figures)
    sys.exit(not figures["met"])


if __name__ == "__main__":
    main()
