"""Images, sounds and videos, alone or with texts: only decoded ones pass, never a path or a URL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from PIL import Image

from pipemill.errors import InvalidInput
from pipemill_worker.media import Clip
from pipemill_worker.pipelines.inputs.common import (
    check_data,
    check_keys,
    check_one_or_many,
    check_size,
    check_text,
    kind_of,
    shorten,
)

#: Words with their boxes on one page.
MAX_WORD_BOXES: Final = 8_192

#: Assets and questions of one decision.
_MAX_PARTS: Final = 256
#: Characters of an asset's or a question's name; complaints repeat them.
_MAX_NAME_CHARACTERS: Final = 64
#: What a question may be.
_QUESTIONS: Final = frozenset({"choice", "noul", "score"})
#: What a question of the type ``noul`` has criteria for.
_NOUL_OPTIONS: Final = frozenset({"false", "true"})

#: The numbers of a word's box: left, top, right, bottom, from 0 to 1000.
_BOX_NUMBERS: Final = 4
_BOX_MOST: Final = 1_000

#: A pair is of two, and a list of one pair, too, is a list.
_PAIR: Final = 2


def check_image(value: Any, what: str) -> None:
    """Refuse what is no decoded image."""
    if not isinstance(value, Image.Image):
        raise InvalidInput(_not_media(value, what, "an image", "$image"))


def check_sound(value: Any, what: str) -> None:
    """Refuse what is no decoded sound."""
    if not (isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype == np.float32):
        raise InvalidInput(_not_media(value, what, "a sound", "$audio"))


def check_video(value: Any, what: str) -> None:
    """Refuse what is no video."""
    if not isinstance(value, Clip):
        raise InvalidInput(_not_media(value, what, "a video", "$video"))


def _not_media(value: Any, what: str, noun: str, key: str) -> str:
    mend = f'give its contents as {{"{key}": ...}}'
    if isinstance(value, str):
        return f"{what} must be {noun}, not a string: paths and URLs are never opened here; {mend}"
    return f"{what} must be {noun}, not {kind_of(value)}: {mend}"


def check_images(inputs: Any) -> None:
    """One image, or a list of them."""
    check_one_or_many(inputs, check_image, "images")


def check_sounds(inputs: Any) -> None:
    """One sound, or a list of them."""
    check_one_or_many(inputs, check_sound, "sounds")


def check_videos(inputs: Any) -> None:
    """One video, or a list of them."""
    check_one_or_many(inputs, check_video, "videos")


def check_pairs(inputs: Any) -> None:
    """A pair of images, or a list of pairs."""
    if isinstance(inputs, list) and inputs and not isinstance(inputs[0], list):
        _check_pair(inputs, "the input")
    else:
        check_one_or_many(inputs, _check_pair, "pairs")


def _check_pair(value: Any, what: str) -> None:
    if not isinstance(value, list) or len(value) != _PAIR:
        raise InvalidInput(f"{what} must be a list of two images, or a list of such pairs")
    for position, image in enumerate(value):
        check_image(image, f"image {position} of {what}")


def check_documents(inputs: Any) -> None:
    """One page with a question, or a list of them."""
    check_one_or_many(inputs, _check_document, "documents")


def _check_document(value: Any, what: str) -> None:
    check_keys(value, what, frozenset({"question"}), frozenset({"image", "word_boxes"}))
    check_text(value["question"], f"'question' of {what}")
    if value.get("image") is not None:
        check_image(value["image"], f"'image' of {what}")
    elif not value.get("word_boxes"):
        raise InvalidInput(f"{what} has neither an image nor word_boxes: give one of them, or both")
    if "word_boxes" in value:
        _check_word_boxes(value["word_boxes"], what)


def _check_word_boxes(boxes: Any, what: str) -> None:
    if not isinstance(boxes, list):
        raise InvalidInput(f"'word_boxes' of {what} must be a list, not {kind_of(boxes)}")
    check_size(boxes, "word boxes", MAX_WORD_BOXES)
    for position, each in enumerate(boxes):
        if not (isinstance(each, list) and len(each) == _PAIR and _is_box(each[1])):
            raise InvalidInput(
                f'word box {position} of {what} must be ["word", [left, top, right, bottom]], whole numbers from 0 to'
                " 1000, left at most right, top at most bottom"
            )
        check_text(each[0], f"the word of word box {position} of {what}")


def _is_box(value: Any) -> bool:
    if not isinstance(value, list) or len(value) != _BOX_NUMBERS:
        return False
    if not all(type(number) is int and 0 <= number <= _BOX_MOST for number in value):
        return False
    left, top, right, bottom = value  # Models look up widths and heights in a table: a negative one breaks the pass.
    return bool(left <= right and top <= bottom)


def check_decision(inputs: Any) -> None:
    """One decision: a state, questions about it, and images that stand in them; or a list of decisions."""
    check_one_or_many(inputs, _check_decision, "decisions")


def _check_decision(value: Any, what: str) -> None:
    check_keys(value, what, frozenset({"questions", "state"}), frozenset({"assets"}))
    for name in ("questions", "assets"):
        part = value.get(name)
        if part is None and name == "assets":
            continue
        if not isinstance(part, dict) or not 0 < len(part) <= _MAX_PARTS:
            raise InvalidInput(f"'{name}' of {what} must be an object of 1 to {_MAX_PARTS} entries, by their names")
        if any(not 0 < len(key) <= _MAX_NAME_CHARACTERS for key in part):
            raise InvalidInput(f"the names in '{name}' of {what} must have 1 to {_MAX_NAME_CHARACTERS} characters")
    for name, asset in (value.get("assets") or {}).items():
        check_image(asset, f"asset {shorten(name)} of {what}")
    for name, question in value["questions"].items():
        _check_question(question, f"question {shorten(name)!r} of {what}")
    check_data([value["state"], value["questions"]], f"'state' and 'questions' of {what}")


def _check_question(question: Any, what: str) -> None:
    kind = question.get("type") if isinstance(question, dict) else None
    if not isinstance(kind, str) or kind not in _QUESTIONS:
        raise InvalidInput(f"{what} must be an object whose 'type' is one of {', '.join(sorted(_QUESTIONS))}")
    check_keys(question, what, frozenset({"type"}), frozenset({"criteria", "instructions"}))
    criteria = question.get("criteria")
    if kind == "noul" and isinstance(criteria, dict) and not criteria.keys() <= _NOUL_OPTIONS:
        raise InvalidInput(f"'criteria' of {what} may have the keys 'true' and 'false', no others")


#: What a block of a message may hold, by its type.
_BLOCKS: Final[dict[str, Callable[[Any, str], None]]] = {
    "audio": check_sound,
    "image": check_image,
    "text": check_text,
    "video": check_video,
}


def check_chat_with_media(messages: list[Any], *, chats: bool, kinds: frozenset[str]) -> None:
    """A chat whose messages may hold blocks of these kinds; ``chats``: the model has a chat template."""
    if not chats:
        raise InvalidInput("this model has no chat template: give the prompt as {'text', 'images'}")
    check_size(messages, "messages")
    for position, message in enumerate(messages):
        what = f"message {position}"
        check_keys(message, what, frozenset({"role", "content"}))
        check_text(message["role"], f"'role' of {what}")
        content = message["content"]
        if isinstance(content, str):
            if content:
                check_text(content, f"'content' of {what}")
            continue
        if not isinstance(content, list):
            raise InvalidInput(f"'content' of {what} must be a string or a list of blocks, not {kind_of(content)}")
        check_size(content, "blocks")
        for number, block in enumerate(content):
            _check_block(block, f"block {number} of {what}", kinds)


def _check_block(block: Any, what: str, kinds: frozenset[str]) -> None:
    kind = block.get("type") if isinstance(block, dict) else None
    if not isinstance(kind, str) or kind not in kinds:
        taken = ", ".join(sorted(kinds))
        raise InvalidInput(f"{what} must be an object whose 'type' is one of {taken}")
    if set(block) != {"type", kind}:
        found = shorten(", ".join(sorted(map(str, block))))
        raise InvalidInput(f"{what} must have the keys 'type' and '{kind}', no others; it has: {found}")
    _BLOCKS[kind](block[kind], f"'{kind}' of {what}")


#: The keys under which a prompt brings media, what each is, and its name in a chat.
_PARTS: Final[dict[str, tuple[Callable[[Any, str], None], str]]] = {
    "audio": (check_sound, "audio"),
    "images": (check_image, "image"),
    "videos": (check_video, "video"),
}


def check_prompts(inputs: Any, *, chats: bool, kinds: frozenset[str]) -> None:
    """A text, a chat, an object of a text with media of these kinds, or a list of texts; any-to-any's of objects."""
    if isinstance(inputs, list) and inputs and isinstance(inputs[0], dict) and "role" in inputs[0]:
        check_chat_with_media(inputs, chats=chats, kinds=kinds)
        return
    check_one_or_many(inputs, lambda value, what: _check_prompt(value, what, kinds), "prompts")
    if isinstance(inputs, list) and len({type(each) for each in inputs}) > 1:
        raise InvalidInput("the inputs mix texts and objects: give one kind of them in a job")
    if isinstance(inputs, list) and isinstance(inputs[0], dict) and "video" not in kinds:
        raise InvalidInput("the pipeline takes a list of objects for a chat: give each object in its own job")


def _check_prompt(value: Any, what: str, kinds: frozenset[str]) -> None:
    if isinstance(value, str):
        check_text(value, what)
        return
    parts = {name: check for name, (check, kind) in _PARTS.items() if kind in kinds}
    needed = frozenset({"text"} if len(parts) > 1 else {"text", *parts})  # With one kind, it is what the object is for.
    check_keys(value, what, needed, frozenset(parts) - needed)
    check_text(value["text"], f"'text' of {what}")
    for name, check in parts.items():
        if name not in value:
            continue
        given = value[name]
        if given is None or (isinstance(given, list) and not given):
            raise InvalidInput(f"'{name}' of {what} has nothing in it: give some, or the text alone as a string")
        for position, each in enumerate(given if isinstance(given, list) else [given]):
            check(each, f"'{name}'[{position}] of {what}")


def opened(inputs: Any) -> Any:
    """Prompts with their videos as frames, [frames, height, width, 3]: as the processors of chats take them."""
    if isinstance(inputs, Clip):
        return inputs.frames()
    if isinstance(inputs, dict):
        return {name: opened(value) for name, value in inputs.items()}
    return [opened(value) for value in inputs] if isinstance(inputs, list) else inputs
