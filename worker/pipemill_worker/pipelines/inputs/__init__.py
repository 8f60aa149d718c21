"""What a job's inputs may be, checked before a pipeline sees them.

A pipeline takes more than a job may give: paths, URLs, datasets, generators, nested lists for old callers. Here only
what a task needs passes, and lists of it up to a cap. Media are decoded by then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from pipemill.parameters import MEDIA_TASKS
from pipemill_worker.pipelines.inputs import media
from pipemill_worker.pipelines.inputs.common import MAX_ELEMENTS, shorten
from pipemill_worker.pipelines.inputs.structured import check_queries, check_questions, check_tables
from pipemill_worker.pipelines.inputs.text import (
    check_chat,
    check_spoken,
    check_texts,
    check_texts_or_pairs,
    check_words,
    looks_like_chat,
)

__all__ = ["MAX_ELEMENTS", "check_inputs", "shorten"]

_STRUCTURED: Final[Mapping[str, Callable[[Any], None]]] = {
    "question-answering": check_questions,
    "rerank": check_queries,
    "table-question-answering": check_tables,
    "text-classification": check_texts_or_pairs,
    "text-to-audio": check_spoken,
}


def check_inputs(task: str, inputs: Any, *, words: bool = False, chats: bool = False) -> None:
    """Refuse what the task's pipeline must not be given.

    ``words``: texts come as lists of words (token-classification with ``is_split_into_words``). ``chats``: the model
    has a chat template.

    Raises
    ------
    InvalidInput
        Says what was given and what is taken.

    """
    if task == "token-classification" and words:
        check_words(inputs)
    elif task in {"text-generation", "text-to-audio"} and looks_like_chat(inputs):
        check_chat(inputs, chats=chats)
    elif check := _STRUCTURED.get(task) or _media_check(task, chats=chats):
        check(inputs)
    else:
        check_texts(inputs)


def _media_check(task: str, *, chats: bool) -> Callable[[Any], None] | None:
    if task not in MEDIA_TASKS:
        return None
    checks: Mapping[str, Callable[[Any], None]] = {
        "audio-classification": media.check_sounds,
        "automatic-speech-recognition": media.check_sounds,
        "zero-shot-audio-classification": media.check_sounds,
        "decision": media.check_decision,
        "document-question-answering": media.check_documents,
        "keypoint-matching": media.check_pairs,
        "video-classification": media.check_videos,
        "image-text-to-text": lambda given: media.check_prompts(given, chats=chats, kinds=_SEEN),
        "any-to-any": lambda given: media.check_prompts(given, chats=chats, kinds=_SENSED),
    }
    check: Callable[[Any], None] = checks.get(task, media.check_images)
    return check


#: What the blocks of a chat may be.
_SEEN: Final = frozenset({"image", "text"})
_SENSED: Final = frozenset({"audio", "image", "text", "video"})
