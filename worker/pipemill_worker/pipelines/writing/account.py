"""What writing an answer took, and the text that was written, from a pipeline's own outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from pipemill.protocol import Usage
from pipemill_worker.pipelines.generating import end_tokens
from pipemill_worker.pipelines.staged import Plan, Stages
from pipemill_worker.pipelines.writing.spelling import speller
from pipemill_worker.seams import Account, Speller


def account_of(task: str, stages: Stages, plan: Plan, outputs: Sequence[Any], *, followed: bool) -> Account:
    """What can be told of how a job's outputs were written; its text only if that is ``followed``."""
    settings = stages.generation_settings(plan.forward)
    rows = [new_tokens(output) for output in outputs]
    usage, strings = usage_of(outputs, rows, settings), settings.get("stop_strings")
    alone = len(rows) == 1 and rows[0] is not None and len(rows[0]) == 1
    if usage is None or task != "text-generation" or not alone or not (followed or strings):
        return Account(usage=usage)
    decoding = _Decoding(stages.tokenizer, plan)
    text = decoding.text(outputs[0])
    return Account(usage=_stopped(usage, text, strings), text=text if followed and decoding.shows_text else None)


def speller_of(tokenizer: Any, plan: Plan) -> Speller | None:
    """What spells a job's text while it is written."""
    decoding = _Decoding(tokenizer, plan)
    if not decoding.shows_text:
        return None
    return speller(tokenizer, skip_special_tokens=decoding.skip_special_tokens, clean_up=decoding.clean_up)


def new_tokens(output: Any) -> list[list[int]] | None:
    """The tokens written behind the prompt, of each answer; ``None`` if that isn't what these outputs are."""
    if not isinstance(output, Mapping) or not {"generated_sequence", "input_ids"} <= output.keys():
        return None
    sequences, ids = output["generated_sequence"], output["input_ids"]
    if not isinstance(sequences, torch.Tensor):
        return None
    start = 1 if ids is None else int(ids.shape[-1])  # An empty prompt is the token that begins a text.
    rows: list[list[int]] = sequences.reshape(-1, sequences.shape[-1])[:, start:].tolist()
    return rows


def usage_of(
    outputs: Sequence[Any], written: Sequence[list[list[int]] | None], settings: Mapping[str, Any]
) -> Usage | None:
    """Count the tokens of a job's outputs, written with these settings; ``None`` where they don't tell."""
    ends, prompt, count, reasons = end_tokens(settings), 0, 0, set[str]()
    for output, rows in zip(outputs, written, strict=True):
        if rows is None or (len(rows) > 1 and settings.get("stop_strings")):
            return None  # Several answers, stopped by texts of their own, are filled up with what looks like an end.
        prompt += 0 if output["input_ids"] is None else int(output["input_ids"].shape[-1])
        for row in rows:
            end = next((place for place, token in enumerate(row) if token in ends), None)
            count += len(row) if end is None else end + 1
            reasons.add("length" if end is None else "stop")
    reason = reasons.pop() if len(reasons) == 1 else None
    return Usage(prompt_tokens=prompt, completion_tokens=count, finish_reason=reason) if outputs else None


def _stopped(usage: Usage, text: str, strings: Any) -> Usage:
    """The usage of a lone answer with this text, which one of these strings may have stopped."""
    given = [strings] if isinstance(strings, str) else list(strings or ())
    return replace(usage, finish_reason="stop") if any(each in text for each in given) else usage


class _Decoding:
    """How a text-generation pipeline makes text of what was written, with a job's own settings."""

    def __init__(self, tokenizer: Any, plan: Plan) -> None:
        self._tokenizer, settings = tokenizer, plan.postprocess
        skip = settings.get("skip_special_tokens")
        self.skip_special_tokens = True if skip is None else bool(skip)
        self.clean_up: bool | None = settings.get("clean_up_tokenization_spaces")
        #: Whether the answer has the text as it was written; a template may make something else of it.
        self.shows_text = not getattr(tokenizer, "response_template", None)

    def text(self, output: Mapping[str, Any]) -> str:
        """The text behind the prompt."""
        sequence, ids = output["generated_sequence"], output["input_ids"]
        start = 0 if ids is None else int(ids.shape[-1])
        tokens = sequence.reshape(-1, sequence.shape[-1])[0, start:].tolist()
        text: str = self._tokenizer.decode(
            tokens, skip_special_tokens=self.skip_special_tokens, clean_up_tokenization_spaces=self.clean_up
        )
        return text
