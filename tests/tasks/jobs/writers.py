"""Jobs of models that write texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from tests.tasks.jobs.texts import EQUAL, sentence
from tests.tasks.rows import Job

_CHAT: Final = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "what is the river?"}]
_GREEDY: Final = {"do_sample": False, "max_new_tokens": 8}


def _spread(*parameters: Mapping[str, Any]) -> list[Job]:
    """A job for each of the parameters, in texts of mixed lengths; some of equal length; and a job of two texts."""
    jobs = [Job(inputs=sentence(seed, 1 + (3 * seed) % 8), parameters=asked) for seed, asked in enumerate(parameters)]
    jobs += [Job(inputs=text, parameters=parameters[0]) for text in EQUAL]
    return [*jobs, Job(inputs=[sentence(90, 4), sentence(91, 9)], parameters=parameters[0])]


def generate(_: Path) -> list[Job]:
    """Jobs of ``text-generation``: likeliest tokens, beams, draws with a seed, ends, penalties."""
    return _spread(
        _GREEDY,
        _GREEDY,
        {"do_sample": False, "max_new_tokens": 3},
        {**_GREEDY, "return_full_text": False},
        {**_GREEDY, "num_beams": 3, "num_return_sequences": 2},
        {"seed": 5, "max_new_tokens": 8},
        {"seed": 5, "max_new_tokens": 8, "do_sample": True, "temperature": 2.0, "top_k": 20},
        {"seed": 6, "max_new_tokens": 8, "do_sample": True, "top_p": 0.8, "num_return_sequences": 2},
        {**_GREEDY, "repetition_penalty": 1.5, "min_new_tokens": 8},
        {**_GREEDY, "no_repeat_ngram_size": 2},
        {"do_sample": False, "max_new_tokens": 20, "stop_sequence": "a"},
        {**_GREEDY, "prefix": "over the "},
        {"do_sample": False, "max_length": 60},
        _GREEDY,
    )


def chat(folder: Path) -> list[Job]:
    """As above, and chats: answered, gone on with, seeded."""
    begun = [*_CHAT, {"role": "assistant", "content": "It is"}]
    return [
        *generate(folder),
        Job(inputs=_CHAT, parameters=_GREEDY),
        Job(inputs=_CHAT[1:], parameters={**_GREEDY, "return_full_text": False}),
        Job(inputs=begun, parameters=_GREEDY),
        Job(inputs=begun, parameters={**_GREEDY, "continue_final_message": False}),
        Job(inputs=_CHAT, parameters={"seed": 9, "do_sample": True, "max_new_tokens": 6}),
    ]


def rewrite(_: Path) -> list[Job]:
    """Jobs of the tasks that turn one text into another: as above, by encoder and decoder."""
    return _spread(
        _GREEDY,
        _GREEDY,
        {"do_sample": False, "max_new_tokens": 3},
        {**_GREEDY, "num_beams": 3},
        {**_GREEDY, "num_beams": 2, "length_penalty": 0.5},
        {"seed": 5, "max_new_tokens": 8, "do_sample": True},
        {"seed": 6, "max_new_tokens": 8, "do_sample": True, "top_k": 5, "temperature": 1.5},
        {**_GREEDY, "repetition_penalty": 1.5},
        {**_GREEDY, "truncation": True},
        _GREEDY,
    )


def decide(_: Path) -> list[Job]:
    """Jobs of ``decision``: questions of all three types, one or several, states as text or as data."""
    yes = {"type": "noul", "instructions": "is this about the river?"}
    which = {"type": "choice", "instructions": "what is this?", "criteria": {"sport": None, "weather": "a cloud"}}
    how = {"type": "score", "instructions": "where is this?", "criteria": ["garden", "market", "mountain"]}
    asked = [{"a": yes}, {"a": which}, {"a": how}, {"a": yes, "b": which, "c": how}]
    jobs = [Job(inputs={"state": sentence(seed, 2 + 3 * seed), "questions": asked[seed % 4]}) for seed in range(7)]
    data = {"state": {"text": sentence(20, 4), "words": 4}, "questions": asked[1]}
    return [*jobs, Job(inputs=data), Job(inputs=[jobs[0].inputs, jobs[3].inputs])]


JOBS: Final[dict[str, Callable[[Path], list[Job]]]] = {
    "text-generation.gpt2": generate,
    "text-generation.llama": chat,
    "text-generation.trained": generate,
    "decision.llama": decide,
    "summarization.bart": rewrite,
    "translation.marian": rewrite,
    "text2text-generation.t5": rewrite,
}
