"""Texts read and written by an encoder-decoder: `scripts/bench translation [--json] [--repeats N]`.

A random Marian of 61 M parameters (as the OPUS models: 6 + 6 layers of 512), float32, one core; 32 sources of 5 to 60
tokens ask for answers of about their own lengths, greedy and with four beams. One call after the other, transformers'
static batches in the order of arrival, each written to its longest, and pipemill's writer, by turns. Answers per second
are medians; the ratios are what counts.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import psutil
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.direct import FIRST, Direct, Generates, Request, by_turns, faster, options, timed
from benchmarks.material import TRANSFORMERS
from pipemill_worker.pipelines.loading.allocator import keep_freed_memory
from pipemill_worker.pipelines.prepacked import prepack
from pipemill_worker.pipelines.writing.drafting import Drafter
from pipemill_worker.pipelines.writing.proof import proven_places
from pipemill_worker.pipelines.writing.writer import Writer

SOURCES: Final = 32
VOCABULARY: Final = 32_000
PAD: Final = 0
MODEL: Final[dict[str, Any]] = {
    "vocab_size": VOCABULARY,
    "d_model": 512,
    "encoder_layers": 6,
    "decoder_layers": 6,
    "encoder_attention_heads": 8,
    "decoder_attention_heads": 8,
    "encoder_ffn_dim": 2_048,
    "decoder_ffn_dim": 2_048,
    "max_position_embeddings": 512,
    "init_std": 0.1,
    "pad_token_id": PAD,
    "decoder_start_token_id": PAD,
    "bos_token_id": None,
    "eos_token_id": None,
    "forced_eos_token_id": None,
    "scale_embedding": True,
}
BEAMS: Final = (1, 4)
_set_threads: Any = torch.set_num_threads


def requests() -> list[Request]:
    """Sources as token ids, and how many tokens each one's answer has: a fixed choice."""
    rng = random.Random(3)  # noqa: S311  # a fixed choice, no secret
    made: list[Request] = []
    for _ in range(SOURCES):
        length = max(5, min(60, int(rng.lognormvariate(2.9, 0.6))))
        made.append(
            ([rng.randrange(3, VOCABULARY) for _ in range(length)], max(4, int(length * rng.uniform(0.7, 1.5))))
        )
    return made


class Sides(Direct):
    """The ways to write, with so many beams."""

    def __init__(self, beams: int) -> None:
        TRANSFORMERS.utils.logging.set_verbosity_error()
        self._beams = beams
        self._model, ours = self._made(), self._made()
        prepack(ours, writes=True)
        found = proven_places(ours)
        if found is None:
            raise RuntimeError("this model's answers can't be written together")
        self._drafter = Drafter(Generates(ours))
        self._writer = Writer(ours, max_rows=SOURCES, max_tokens=1 << 20, places=found[0])

    @staticmethod
    def _made() -> Any:
        torch.manual_seed(0)
        return TRANSFORMERS.MarianMTModel(TRANSFORMERS.MarianConfig(**MODEL)).eval()

    def _generate(self, asked: Sequence[Request]) -> list[list[int]]:
        longest = max(len(source) for source, _ in asked)
        ids = torch.tensor([source + [PAD] * (longest - len(source)) for source, _ in asked])
        mask = torch.tensor([[1] * len(source) + [0] * (longest - len(source)) for source, _ in asked])
        most = max(new for _, new in asked)
        options = {"max_new_tokens": most, "num_beams": self._beams, "do_sample": False}
        rows = self._model.generate(input_ids=ids, attention_mask=mask, **options)
        return [row[1 : 1 + new].tolist() for row, (_, new) in zip(rows, asked, strict=True)]

    def together(self, asked: Sequence[Request]) -> list[list[int]]:
        """Joining and leaving at every token."""
        for number, (source, new) in enumerate(asked):
            inputs = {
                "input_ids": torch.tensor([source]),
                "attention_mask": torch.ones(1, len(source), dtype=torch.long),
            }
            options = {"max_new_tokens": new, "num_beams": self._beams, "do_sample": False}
            draft = self._drafter.draft(inputs, options)
            if draft is None or not draft.may_join():
                raise RuntimeError("this model's answers can't be written together")
            self._writer.join(number, draft)
        written: dict[Any, torch.Tensor] = {}
        while self._writer.busy:
            written.update(self._writer.step())
        return [written[number][0, 1:].tolist() for number in range(len(asked))]


def measure(repeats: int) -> dict[str, Any]:
    """For each number of beams: answers a second of each way, and how many are the sequential calls'."""
    core, *_ = psutil.Process().cpu_affinity()
    psutil.Process().cpu_affinity([core])
    _set_threads(1)
    keep_freed_memory()  # As a worker does; it serves the other ways as well.
    return {str(beams): _measure(Sides(beams), repeats) for beams in BEAMS}


def _measure(sides: Sides, repeats: int) -> dict[str, Any]:
    asked = requests()
    ways = {
        FIRST: timed(sides.sequential),
        **{f"static batches of {size}": timed(partial(sides.static, size=size)) for size in (8, 32)},
        "pipemill": timed(sides.together),
    }
    seconds, same = by_turns(ways, asked, repeats)
    return {
        "answers_per_second": {name: [len(asked) / each for each in took] for name, took in seconds.items()},
        "same": same,
        "of": len(asked),
        "ratios": {name: faster(seconds["pipemill"], each) for name, each in seconds.items()},
    }


def show(figures: dict[str, Any]) -> None:
    """Print a table for each number of beams."""
    for beams, found in figures.items():
        table = Table("", "answers/s", "the same answers", "pipemill ÷ it", title=f"beams: {beams}")
        for name, rates in found["answers_per_second"].items():
            spread = f"{statistics.median(rates):.2f} [{min(rates):.2f}-{max(rates):.2f}]"
            table.add_row(name, spread, f"{found['same'][name]} of {found['of']}", f"{found['ratios'][name]:.2f}")
        Console().print(table)


def main() -> None:
    """Run it."""
    asked = options(__doc__)
    figures = measure(asked.repeats)
    if asked.json:
        print(json.dumps(figures))
    else:
        show(figures)
    sys.exit(any(found["same"]["pipemill"] != found["of"] for found in figures.values()))


if __name__ == "__main__":
    main()
