"""What writing an answer took, and the text that was written, from a pipeline's own outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import torch

from pipemill.protocol import Usage
from pipemill_worker.pipelines.generating import end_tokens
from pipemill_worker.pipelines.staged import Plan, Stages
from pipemill_worker.pipelines.writing.draft import READING
from pipemill_worker.pipelines.writing.spelling import speller
from pipemill_worker.seams import Account, Speller

#: Tasks whose lone answer is the text that was written, so that it can be told.
_TOLD: Final = READING | {"text-generation"}


def account_of(task: str, stages: Stages, plan: Plan, outputs: Sequence[tuple[int, Any]], *, followed: bool) -> Account:
    """What can be told of how a job's outputs were written, each with the tokens that it was written from.

    The text is told only if it is ``followed``.
    """
    settings = stages.generation_settings(plan.forward)
    rows = [new_tokens(output, length) for length, output in outputs]
    usage, strings = usage_of(rows, sum(length for length, _ in outputs), settings), settings.get("stop_strings")
    alone = len(rows) == 1 and rows[0] is not None and len(rows[0]) == 1
    if usage is None or task not in _TOLD or not alone or not (followed or strings):
        return Account(usage=usage)
    decoding = _Decoding(task, stages.tokenizer, plan)
    text = decoding.text(rows[0][0] if rows[0] else [])
    return Account(usage=_stopped(usage, text, strings), text=text if followed and decoding.shows_text else None)


def speller_of(task: str, tokenizer: Any, plan: Plan) -> Speller | None:
    """What spells a job's text while it is written; ``None`` if only the whole text can be told."""
    if task not in _TOLD:
        return None
    decoding = _Decoding(task, tokenizer, plan)
    if not decoding.shows_text:
        return None
    return speller(tokenizer, skip_special_tokens=decoding.skip_special_tokens, clean_up=decoding.clean_up)


def new_tokens(output: Any, length: int) -> list[list[int]] | None:
    """The tokens written behind so many, of each answer; ``None`` if that isn't what these outputs are.

    An encoder-decoder's are behind the one that its decoder begins with, as those of an empty prompt are.
    """
    if not isinstance(output, Mapping):
        return None
    written, start = output.get("generated_sequence"), length or 1
    if written is None:
        written, start = output.get("output_ids"), 1
    if not isinstance(written, torch.Tensor):
        return None
    rows: list[list[int]] = written.reshape(-1, written.shape[-1])[:, start:].tolist()
    return rows


def usage_of(written: Sequence[list[list[int]] | None], read: int, settings: Mapping[str, Any]) -> Usage | None:
    """Count the tokens of a job's outputs, written from so many with these settings; ``None`` where they don't tell."""
    ends, count, reasons = end_tokens(settings), 0, set[str]()
    for rows in written:
        if rows is None or (len(rows) > 1 and settings.get("stop_strings")):
            return None  # Several answers, stopped by texts of their own, are filled up with what looks like an end.
        for row in rows:
            end = next((place for place, token in enumerate(row) if token in ends), None)
            count += len(row) if end is None else end + 1
            reasons.add("length" if end is None else "stop")
    reason = reasons.pop() if len(reasons) == 1 else None
    return Usage(prompt_tokens=read, completion_tokens=count, finish_reason=reason) if written else None


def _stopped(usage: Usage, text: str, strings: Any) -> Usage:
    """The usage of a lone answer with this text, which one of these strings may have stopped."""
    given = [strings] if isinstance(strings, str) else list(strings or ())
    return replace(usage, finish_reason="stop") if any(each in text for each in given) else usage


class _Decoding:
    """How a pipeline makes text of what was written, with a job's own settings."""

    def __init__(self, task: str, tokenizer: Any, plan: Plan) -> None:
        self._tokenizer, settings = tokenizer, plan.postprocess
        skip = settings.get("skip_special_tokens")
        self.skip_special_tokens = True if skip is None else bool(skip)
        #: Where nothing is said, tasks that read and write keep what was written, and others ask the tokenizer.
        self.clean_up: bool | None = settings.get("clean_up_tokenization_spaces", False if task in READING else None)
        #: Whether the answer has the text as it was written; a template may make something else of it.
        self.shows_text = not getattr(tokenizer, "response_template", None)

    def text(self, tokens: list[int]) -> str:
        """The text of new tokens."""
        text: str = self._tokenizer.decode(
            tokens, skip_special_tokens=self.skip_special_tokens, clean_up_tokenization_spaces=self.clean_up
        )
        return text
