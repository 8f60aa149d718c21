"""What both trainings share: seeding, batches of like lengths, the optimiser and its schedule."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

#: Tokens a demo model takes at most.
CONTEXT_TOKENS: Final = 256
#: Share of the steps in which the learning rate rises, before it falls linearly.
WARM_UP: Final = 0.08
#: Share of the peak learning rate that the last step still has.
FLOOR: Final = 0.02
#: Largest norm of one step's gradient.
MAX_GRADIENT_NORM: Final = 1.0
#: Tokens by which lengths are blurred when batches are formed, so that epochs differ.
LENGTH_BLUR: Final = 6.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """What came of one training: the figures that the model card states."""

    #: Figures by the name they have in the card.
    figures: dict[str, str]
    #: Weights of the model, counted once where tied.
    parameters: int
    #: CPU seconds that the training took, over all its threads.
    seconds: float


@contextmanager
def repeatable(seed: int) -> Iterator[random.Random]:
    """Make torch repeatable while the block runs, as far as it can be; gives the generator of all other random choices.

    Repeatable means with the same number of threads: that decides in which order torch adds.
    """
    settings: Any = torch.utils.deterministic  # its attribute is unknown to type checkers
    was_deterministic, filled = torch.are_deterministic_algorithms_enabled(), settings.fill_uninitialized_memory
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        torch.use_deterministic_algorithms(mode=True)
        # To fill memory that nothing reads costs a third of the time.
        settings.fill_uninitialized_memory = False
        try:
            yield random.Random(seed)  # noqa: S311 (it shuffles sentences, it guards nothing)
        finally:
            torch.use_deterministic_algorithms(mode=was_deterministic)
            settings.fill_uninitialized_memory = filled


def length_batches(lengths: Sequence[int], size: int, rng: random.Random) -> list[list[int]]:
    """The indices of `lengths` in batches of nearly equal lengths, the batches in random order."""
    order = sorted(range(len(lengths)), key=lambda index: lengths[index] + rng.random() * LENGTH_BLUR)
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    rng.shuffle(batches)
    return batches


def pad(rows: Sequence[Sequence[int]], pad_id: int) -> Tensor:
    """The rows as one [rows, longest] tensor, filled up with `pad_id` on the right."""
    return nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=pad_id)


def chains(count: int, go_on: float, rng: random.Random) -> Iterator[list[int]]:
    """`count` chains of indices: the n-th starts with n, and grows by a random one with probability `go_on` each time.

    Sentences are short; chained, they teach a model the positions that long inputs reach.
    """
    for first in range(count):
        chain = [first]
        while rng.random() < go_on:
            chain.append(rng.randrange(count))
        yield chain


def train_epochs(
    model: nn.Module,
    epochs: Iterable[Sequence[Callable[[], Tensor]]],
    *,
    total_epochs: int,
    peak_rate: float,
    weight_decay: float,
) -> None:
    """Fit the model: each epoch is a sequence of functions that return one batch's loss."""
    optimiser = torch.optim.AdamW(_parameter_groups(model, weight_decay), lr=peak_rate, betas=(0.9, 0.98), fused=True)
    model.train()
    step = 0
    for number, losses in enumerate(epochs, start=1):
        total = 0.0
        for compute_loss in losses:
            rate = peak_rate * _rate_share(step / (len(losses) * total_epochs))
            for group in optimiser.param_groups:
                group["lr"] = rate
            total += _train_step(model, optimiser, compute_loss)
            step += 1
        print(f"epoch {number} of {total_epochs}: loss {total / len(losses):.3f}", flush=True)  # noqa: T201 (progress)
    model.eval()


def _train_step(model: nn.Module, optimiser: torch.optim.Optimizer, compute_loss: Callable[[], Tensor]) -> float:
    optimiser.zero_grad()
    loss = compute_loss()
    loss.backward()  # type: ignore[no-untyped-call]  # it has no hints
    nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
    optimiser.step()
    return loss.item()


def _rate_share(progress: float) -> float:
    if progress < WARM_UP:
        return max(FLOOR, progress / WARM_UP)
    return max(FLOOR, (1 - progress) / (1 - WARM_UP))


def _parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def folder_megabytes(folder: Path) -> float:
    """Size of the files in the folder, in MB of 10^6 bytes."""
    return sum(path.stat().st_size for path in folder.iterdir()) / 1e6
