"""Train the demo models again: `python -m pipemill_worker.demo.train --data DIR --out DIR`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch

from pipemill_worker.demo.cards import write_card
from pipemill_worker.demo.snippets import FILES, read_snippets
from pipemill_worker.demo.train_generator import train_generator
from pipemill_worker.demo.train_sentiment import train_sentiment

#: The trainings by the name of the model, which is also the name of its folder.
TRAININGS: Final = {"sentiment": train_sentiment, "generator": train_generator}


def main(arguments: Sequence[str] | None = None) -> None:
    """Train both models, or the one that `--only` names, and write each with its card into a folder of its name."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    snippets = read_snippets(options.data)
    for name, train in TRAININGS.items():
        if options.only in {None, name}:
            folder = options.out / name
            folder.mkdir(parents=True, exist_ok=True)
            trained = train(snippets, folder, options.seed)
            write_card(name, folder, trained, options.seed)
            for path in folder.iterdir():
                path.chmod(0o644)  # safetensors writes for the owner alone; a package is for all to read
            for label, figure in trained.figures.items():
                print(f"{name}: {label}: {figure}", flush=True)  # noqa: T201 (a script's answer)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipemill_worker.demo.train", description=main.__doc__)
    parser.add_argument("--data", type=Path, required=True, help=f"folder that holds {' and '.join(FILES)}")
    parser.add_argument("--out", type=Path, required=True, help="folder that the models' folders are written into")
    parser.add_argument("--only", choices=sorted(TRAININGS), help="train this model alone")
    parser.add_argument("--seed", type=int, default=0, help="seed of all random choices (default 0)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads; 1 where others use the cores (default 2)")
    return parser


if __name__ == "__main__":
    main()
