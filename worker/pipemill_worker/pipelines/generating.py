"""Writing in batches: which jobs may, and cutting each answer where it would have ended alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch

from pipemill_worker.pipelines.staged import Plan

#: What pipelines call the tokens that were written.
SEQUENCES: Final = frozenset({"generated_sequence", "output_ids", "tokens"})

#: Settings with which rows of one batch aren't what they are alone, though the settings are equal: a row that a text
#: of its own has stopped is filled up with what looks like its end; the last two count an encoder's padding as read.
_ALONE: Final = (
    "stop_strings",
    "stop_sequence",
    "tokenizer",
    "prompt_lookup_num_tokens",
    "encoder_no_repeat_ngram_size",
    "encoder_repetition_penalty",
)


def may_share(settings: Mapping[str, Any]) -> bool:
    """Whether a generation with these settings, all in force, gives in a batch what it gives alone."""
    return not settings.get("do_sample") and not any(settings.get(name) for name in _ALONE)


def fits_batches(extractor: Any, chunk: Mapping[str, Any], plan: Plan) -> bool:
    """Whether a generation's own code treats rows alike: speech recognition has cases where it looks at one."""
    if plan.forward.get("return_language") or plan.forward.get("return_timestamps") == "word":
        return False
    if plan.postprocess.get("generation_mode") not in {None, "text"}:  # Images are drawn by the postprocessing.
        return False
    if plan.postprocess.get("skip_special_tokens") is False and "pixel_values" in chunk:
        return False  # Where an answer ends differs from model to model, and then shows.
    features = chunk.get("input_features")
    most = getattr(extractor, "nb_max_frames", None)
    if features is None or most is None:
        return True
    return features.shape[-1] <= most and not plan.forward.get("temperature")  # Whisper's draws, without do_sample.


def trim(sequences: torch.Tensor, start: int, ends: frozenset[int]) -> torch.Tensor:
    """Cut rows filled up to the length of a batch's longest to the length that they would have alone.

    ``sequences`` has the shape [1, tokens] or [1, answers, tokens]: the answers to one prompt, which alone would have
    the length of the longest among them. An answer ends with the first token of ``ends`` from position ``start`` on.
    """
    rows = sequences.reshape(-1, sequences.shape[-1])[:, start:]
    is_end = torch.isin(rows, torch.tensor(sorted(ends), dtype=rows.dtype))
    length = rows.shape[1]
    ended = is_end.any(dim=1)
    if not bool(ended.all()):
        return sequences
    longest = int(is_end.int().argmax(dim=1).max()) + 1 if length else 0
    return sequences[..., : start + longest]


def trim_answers(rows: Sequence[dict[str, Any]], starts: Sequence[int], settings: Mapping[str, Any]) -> None:
    """Cut from each row what filled it up to the longest answer of its batch; its answer begins at its start."""
    ends = end_tokens(settings)
    for row, start in zip(rows, starts, strict=True):
        for name in SEQUENCES & row.keys():
            row[name] = trim(row[name], start, ends)


def end_tokens(settings: Mapping[str, Any]) -> frozenset[int]:
    """The tokens that end an answer."""
    ends = settings.get("eos_token_id")
    if ends is None:
        return frozenset()
    return frozenset([ends] if isinstance(ends, int) else ends)
