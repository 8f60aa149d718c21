"""How each task's items may share a forward pass, and why not more; the table in the docs is written from here.

These are the tasks' own bounds, whatever the model; ``grouping`` narrows them by the model that is loaded.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


class Sharing(enum.Enum):
    """How items may share a forward pass."""

    #: Not at all.
    SOLO = "solo"
    #: With items of exactly the same shapes.
    EXACT = "exact"
    #: With items of any length, padded on the right.
    PADDED = "padded"
    #: With items of any length, laid end to end in the layers of the encoder.
    PACKED = "packed"


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskRule:
    """What holds for every model of a task."""

    #: The most that items may share.
    sharing: Sharing
    #: Why so, and no more; a sentence for the docs.
    why: str
    #: Values that belong to an item and never reach the model, so that items that share a batch may differ in them.
    per_item: frozenset[str] = frozenset()
    #: Values that ``_forward`` takes as a list, one a row.
    listed: frozenset[str] = frozenset()
    #: What ``_forward`` calls some of the values that belong to an item, by its inputs' names.
    renamed: tuple[tuple[str, str], ...] = ()
    #: The only output that is read, so that the others needn't be taken apart; "" is the first, whatever its name.
    only: str | None = None
    #: Whether that output has a position for each token, so that padding is cut from it.
    per_token: bool = False
    #: Whether the model writes token by token.
    generates: bool = False
    #: Whether ``preprocess`` runs the model, so that all stages belong to the thread that owns the device.
    whole: bool = False
    #: What one item is.
    item: str = "an input"


_TEXT: Final = frozenset({"is_last", "offset_mapping", "special_tokens_mask"})
_PADS: Final = "padded to a common length where the model type is proven to allow it, else by equal lengths"
_IMAGES: Final = "images of equal size after the image processor"
_WRITES: Final = (
    "greedy and beam searches with equal settings and prompts of equal shape; what draws by chance or stops at a text"
    " of its own runs alone"
)
_ENCODES: Final = (
    "texts join and leave at every token, each with its own settings, beams included. Beams that draw, and models whose"
    " texts don't come out so as alone: greedy and beam searches with equal settings, inputs padded; what draws by"
    " chance or stops at a text of its own runs alone"
)


def _text(only: str = "logits", *, per_item: tuple[str, ...] = (), per_token: bool = False) -> TaskRule:
    return TaskRule(
        sharing=Sharing.PADDED, why=_PADS, per_item=_TEXT | {*per_item}, only=only, per_token=per_token, item="a text"
    )


def _image(why: str = _IMAGES, *per_item: str) -> TaskRule:
    return TaskRule(sharing=Sharing.EXACT, why=why, per_item=frozenset(per_item), item="an image")


def _solo(why: str, *, item: str = "an input", whole: bool = False, generates: bool = False) -> TaskRule:
    return TaskRule(sharing=Sharing.SOLO, why=why, item=item, whole=whole, generates=generates)


def _writes(why: str, sharing: Sharing, *per_item: str) -> TaskRule:
    renamed = (("text", "prompt_text"),) if "text" in per_item else ()
    return TaskRule(
        sharing=sharing, why=why, per_item=frozenset(per_item), renamed=renamed, generates=True, item="a prompt"
    )


#: Every task but ``echo``, which has no model.
TASK_RULES: Final[Mapping[str, TaskRule]] = MappingProxyType(
    {
        "any-to-any": _writes(_WRITES, Sharing.EXACT, "text"),
        "audio-classification": TaskRule(
            sharing=Sharing.EXACT,
            why="sounds of equal length after the feature extractor: padding changes the scores of many models",
            item="a sound",
        ),
        "automatic-speech-recognition": TaskRule(
            sharing=Sharing.EXACT,
            why="chunks of equal length (all full chunks): padding is heard as sound. Whisper's join and leave at every"
            " token, each with its own settings; alone: timestamps of words, thresholds of speech and probability,"
            " windows that go by those before, several answers, several chunks with a seed",
            per_item=frozenset({"is_last"}),
            listed=frozenset({"stride"}),
            generates=True,
            item="a chunk of a sound",
        ),
        "decision": _solo("the pipeline itself loops over a job's prompts inside its forward pass"),
        "depth-estimation": _image(_IMAGES, "target_size"),
        "document-question-answering": TaskRule(
            sharing=Sharing.EXACT,
            why="spans of equal length; models that write their answer (Donut) run alone",
            per_item=frozenset({"is_last", "p_mask", "word_ids", "words"}),
            item="a span of a page",
        ),
        "feature-extraction": _text("", per_token=True),
        "fill-mask": _text(per_token=True),
        "image-classification": _image(),
        "image-feature-extraction": _image(),
        "image-segmentation": _image(_IMAGES, "target_size"),
        "image-text-to-text": _writes(_WRITES, Sharing.EXACT, "text"),
        "keypoint-matching": _solo(
            "a pair of images is one item, whose model inputs the pipeline nests", item="a pair"
        ),
        "mask-generation": _solo(
            "preprocessing runs the image encoder on the device; the points of one image are batched inside",
            item="an image",
            whole=True,
        ),
        "object-detection": _image(_IMAGES, "target_size"),
        "question-answering": TaskRule(
            sharing=Sharing.PADDED,
            why=_PADS,
            per_item=frozenset({"chunk", "is_last"}),
            item="a span of a context",
        ),
        "rerank": TaskRule(
            sharing=Sharing.PADDED,
            why=_PADS,
            per_item=frozenset({"document", "is_last"}),
            only="logits",
            item="a document",
        ),
        "sentence-embedding": TaskRule(sharing=Sharing.PADDED, why=_PADS, item="a text"),
        "summarization": _writes(_ENCODES, Sharing.PADDED),
        "table-question-answering": _solo(
            "the model may be asked cell by cell, each question with the last one's answer", item="a table"
        ),
        "text-classification": _text(),
        "text-generation": _writes(
            "prompts join and leave at every token, whatever their settings, with models that need nothing but keys and"
            f" values. Other models, and beams that draw: {_WRITES}",
            Sharing.EXACT,
            "prompt_text",
        ),
        "text-to-audio": _solo("voices draw by chance, and the waveforms of a batch come as one tensor", item="a text"),
        "text2text-generation": _writes(_ENCODES, Sharing.PADDED),
        "token-classification": _text(per_item=("sentence", "word_ids", "word_to_chars_map"), per_token=True),
        "translation": _writes(_ENCODES, Sharing.PADDED),
        "video-classification": TaskRule(
            sharing=Sharing.EXACT, why="clips of equal size after the processor", item="a video"
        ),
        "zero-shot-audio-classification": TaskRule(
            sharing=Sharing.EXACT,
            why="sounds of equal length, with equal labels and template: the model takes one set of labels a batch",
            item="a sound",
        ),
        "zero-shot-classification": _text(per_item=("candidate_label", "sequence")),
        "zero-shot-image-classification": _image(
            f"{_IMAGES}, with equal labels and template: the model takes one set of labels a batch"
        ),
        "zero-shot-object-detection": TaskRule(
            sharing=Sharing.EXACT,
            why="images of equal size, with labels of equally many tokens",
            per_item=frozenset({"candidate_label", "is_last", "target_size"}),
            item="a label on an image",
        ),
    }
)
