"""The next token of each row: scores through the job's own processors, then the best or a draw."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import Any, Final, Protocol

import torch

#: Processors that look at nothing but a row's scores, so that rows with equal ones go through them together.
_BY_SCORES: Final = frozenset(
    {
        "EpsilonLogitsWarper",
        "EtaLogitsWarper",
        "InfNanRemoveLogitsProcessor",
        "LogitNormalization",
        "MinPLogitsWarper",
        "TemperatureLogitsWarper",
        "TopKLogitsWarper",
        "TopPLogitsWarper",
        "TypicalLogitsWarper",
    }
)


class Choosing(Protocol):
    """A prompt that is continued, as far as choosing is concerned."""

    @property
    def ids(self) -> torch.Tensor:
        """The tokens so far: [rows, tokens]."""
        ...

    @property
    def processors(self) -> Any:
        """What its scores go through."""
        ...

    @property
    def draws(self) -> bool:
        """Whether tokens are drawn by chance."""
        ...

    @property
    def generator(self) -> torch.Generator | None:
        """Where its chance comes from; ``None`` is anywhere."""
        ...

    @property
    def alike(self) -> Hashable | None:
        """Equal for prompts whose scores may be processed together; ``None`` for none."""
        ...


def alike(processors: Sequence[Any], *, draws: bool) -> Hashable | None:
    """What is equal for prompts whose scores may go through one call; ``None`` if they look at a row's own tokens."""
    if any(type(each).__name__ not in _BY_SCORES for each in processors):
        return None
    told = [
        (type(each).__name__, tuple(sorted((name, str(value)) for name, value in vars(each).items())))
        for each in processors
    ]
    return (draws, *told)


def next_tokens(prompts: Sequence[Choosing], logits: Sequence[torch.Tensor]) -> list[list[int]]:
    """The next token of each row of each prompt, from its logits: [rows, vocabulary] each."""
    together: dict[Hashable, list[int]] = defaultdict(list)
    for index, prompt in enumerate(prompts):
        together[index if prompt.alike is None else prompt.alike].append(index)
    chosen: list[list[int]] = [[] for _ in prompts]
    for members in together.values():
        first = prompts[members[0]]
        if not first.draws and not len(first.processors) and logits[members[0]].device.type == "cpu":
            for index in members:  # To lay them together would cost more than to go through them.
                chosen[index] = _best(logits[index].float()).tolist()
            continue
        scores = torch.cat([logits[index] for index in members]).float()
        if len(first.processors):
            scores = first.processors(first.ids, scores)
        counts = [logits[index].shape[0] for index in members]
        for index, tokens in zip(members, _chosen([prompts[each] for each in members], scores, counts), strict=True):
            chosen[index] = tokens
    return chosen


def _best(scores: torch.Tensor) -> torch.Tensor:
    """The place of each row's largest score, the first among equals; on a CPU by NumPy, 20 times as fast as torch."""
    return torch.from_numpy(scores.numpy().argmax(-1)) if scores.device.type == "cpu" else scores.argmax(dim=-1)


def _chosen(prompts: Sequence[Choosing], scores: torch.Tensor, counts: Sequence[int]) -> list[list[int]]:
    if not prompts[0].draws:
        return [each.tolist() for each in torch.split(_best(scores), list(counts))]
    parts = list(torch.split(scores.softmax(dim=-1), list(counts)))
    tokens: list[list[int]] = [[] for _ in prompts]
    anyhow = [index for index, prompt in enumerate(prompts) if prompt.generator is None]
    for index, prompt in enumerate(prompts):
        if prompt.generator is not None:
            tokens[index] = torch.multinomial(parts[index], 1, generator=prompt.generator)[:, 0].tolist()
    if anyhow:
        drawn = torch.multinomial(torch.cat([parts[index] for index in anyhow]), 1)[:, 0]
        for index, part in zip(anyhow, torch.split(drawn, [counts[index] for index in anyhow]), strict=True):
            tokens[index] = part.tolist()
    return tokens
