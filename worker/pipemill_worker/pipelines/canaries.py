"""Jobs that any model of a task can run: for its first forward passes, and to see whether sharing one disturbs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from PIL import Image

from pipemill.catalogue.model import LimitSettings
from pipemill_worker.media import Clip
from pipemill_worker.pipelines.settings import LoadedPipeline

_WORDS: Final = ("the", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog", "and", "sleeps")

#: Words of the longest job: an everyday paragraph.
_MANY_WORDS: Final = 48

#: Words of the jobs whose passes are timed: the lengths of sentences, mixed as jobs come.
_SENTENCES: Final = (19, 5, 27, 12, 40, 8, 23, 15, 3, 33, 18, 10, 48, 21, 7, 25, 14, 30, 4, 17, 11, 36, 20, 9)

#: Tokens that a short word may become, special tokens included, when the tokenizer knows bytes only.
_TOKENS_PER_WORD: Final = 8

#: Tasks of whose models many want prompts of a form of their own.
GUESSED: Final = frozenset({"any-to-any", "image-text-to-text"})

#: Pixels of the images, width by height: two of one shape, so that equal shapes are tried together, and two others.
_SIZES: Final = ((64, 48), (131, 97), (131, 97), (224, 224))

#: Seconds of the sounds, likewise.
_SECONDS: Final = (0.5, 1.5, 1.5, 1.0)

#: Frames a video is sampled to, where the model doesn't say.
_FRAMES: Final = 16

_WRITE_LITTLE: Final[Mapping[str, Any]] = {"max_new_tokens": 3, "do_sample": False}

#: What makes the jobs quick, and their answers whole: where nothing is found, nothing can be compared.
_PARAMETERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "any-to-any": {"generate_kwargs": _WRITE_LITTLE},
    "image-text-to-text": {"generate_kwargs": _WRITE_LITTLE},
    "mask-generation": {"points_per_crop": 4},
    "object-detection": {"threshold": 0.0},
    "summarization": _WRITE_LITTLE,
    "text-generation": _WRITE_LITTLE,
    "text2text-generation": _WRITE_LITTLE,
    "token-classification": {"ignore_labels": []},
    "translation": _WRITE_LITTLE,
    "zero-shot-audio-classification": {"candidate_labels": ["music", "speech"]},
    "zero-shot-classification": {"candidate_labels": ["animals", "weather"]},
    "zero-shot-image-classification": {"candidate_labels": ["animals", "weather"]},
    "zero-shot-object-detection": {"candidate_labels": ["animals", "weather"], "threshold": 0.0},
}


def canaries(task: str, pipe: LoadedPipeline, limit: int | None) -> list[tuple[Any, dict[str, Any]]]:
    """Inputs and parameters of four jobs: a short one, two of one length, and one between.

    ``limit`` is the most tokens that the model takes. Media come as they are after decoding.
    """
    parameters = dict(_PARAMETERS.get(task, {}))
    if task == "automatic-speech-recognition" and pipe.model.can_generate():
        parameters = {"generate_kwargs": dict(_WRITE_LITTLE)}
    processor = getattr(pipe, "image_processor", None)
    if task == "image-segmentation" and hasattr(processor, "post_process_semantic_segmentation"):
        parameters = {"subtask": "semantic"}  # Each pixel has a label then, whatever the image.
    make = _INPUTS.get(task, _text)
    return [(make(pipe, text, number), parameters) for number, text in enumerate(_texts(limit))]


def mixture(task: str, pipe: LoadedPipeline, limit: int | None) -> list[tuple[Any, dict[str, Any]]]:
    """Jobs whose texts are of the mixed lengths of real ones; where the task takes no text, ``canaries``."""
    if task in _INPUTS and task not in _TEXTS:
        return canaries(task, pipe, limit)
    room = max(map(len, map(str.split, _texts(limit))))
    texts = [" ".join(_WORDS[each % len(_WORDS)] for each in range(min(words, room))) for words in _SENTENCES]
    make = _INPUTS.get(task, _text)
    return [(make(pipe, text, 0), dict(_PARAMETERS.get(task, {}))) for text in texts]


def _texts(limit: int | None) -> Sequence[str]:
    room = _MANY_WORDS if limit is None else max(2, min(_MANY_WORDS, limit // _TOKENS_PER_WORD))
    words = [_WORDS[each % len(_WORDS)] for each in range(room)]
    # Turned round, they are other words at each place, and as many tokens.
    return [" ".join(each) for each in (words[:2], words, words[::-1], words[: max(2, room // 2)])]


def _text(_: LoadedPipeline, text: str, __: int) -> Any:
    return text


def _masked(pipe: LoadedPipeline, text: str, _: int) -> Any:
    return f"{text} {pipe.tokenizer.mask_token}"


def _image(_: LoadedPipeline, __: str, number: int) -> Any:
    width, height = _SIZES[number]
    noise = np.random.default_rng(number).integers(0, 64, (height, width, 3))
    slope = np.linspace(0, 191, width)[None, :, None] if number % 2 else np.linspace(0, 191, height)[:, None, None]
    return Image.fromarray((noise + slope).astype(np.uint8))


def _pair(pipe: LoadedPipeline, text: str, number: int) -> Any:
    return [_image(pipe, text, number), _image(pipe, text, number).transpose(Image.Transpose.FLIP_LEFT_RIGHT)]


def _sound(pipe: LoadedPipeline, _: str, number: int) -> Any:
    moments = (
        np.arange(int(_SECONDS[number] * pipe.feature_extractor.sampling_rate)) / pipe.feature_extractor.sampling_rate
    )
    noise = np.random.default_rng(number).normal(0, 0.05, len(moments))
    return (np.sin(2 * np.pi * (220 + 110 * number) * moments) * 0.5 + noise).astype(np.float32)


def _film(pipe: LoadedPipeline, text: str, number: int) -> Any:
    count = getattr(pipe.model.config, "num_frames", _FRAMES)
    frame = np.asarray(_image(pipe, text, number))
    frames = np.stack([np.roll(frame, 2 * shift, axis=1) for shift in range(count)])
    return Clip(source=frames, limits=LimitSettings(), where="the warm-up")


def _page(pipe: LoadedPipeline, text: str, number: int) -> Any:
    words = text.split()
    boxes = [[word, [10 * place, 10, 10 * place + 8, 20]] for place, word in enumerate(words)]
    return {"image": _image(pipe, text, number), "question": "what jumps", "word_boxes": boxes}


def _prompt(pipe: LoadedPipeline, text: str, number: int) -> Any:
    image = _image(pipe, text, number)
    if getattr(pipe.processor, "chat_template", None):
        return [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": text}]}]
    token = getattr(pipe.processor, "image_token", None)
    return {"images": image, "text": text if token is None or _brings(pipe, token, image, text) else f"{token} {text}"}


def _brings(pipe: LoadedPipeline, token: object, image: Any, text: str) -> bool:
    """Whether the processor itself puts the token of an image before the text (BLIP-2, PaliGemma)."""
    try:
        inputs = pipe.processor(images=image, text=text, return_tensors="pt")
    except Exception:  # noqa: BLE001  # whatever it is, the text lacks the token
        return False
    return pipe.processor.tokenizer.convert_tokens_to_ids(str(token)) in inputs["input_ids"]


def _spoken_to(pipe: LoadedPipeline, text: str, _: int) -> Any:
    if getattr(pipe.processor, "chat_template", None):
        return [{"role": "user", "content": [{"type": "text", "text": text}]}]
    return text


def _decision(_: LoadedPipeline, text: str, __: int) -> Any:
    question = {"type": "choice", "instructions": "What is it about?", "criteria": {"animals": "", "weather": ""}}
    return {"state": text, "questions": {"topic": question}}


_INPUTS: Final[Mapping[str, Callable[[LoadedPipeline, str, int], Any]]] = {
    "any-to-any": _spoken_to,
    "audio-classification": _sound,
    "automatic-speech-recognition": _sound,
    "decision": _decision,
    "depth-estimation": _image,
    "document-question-answering": _page,
    "fill-mask": _masked,
    "image-classification": _image,
    "image-feature-extraction": _image,
    "image-segmentation": _image,
    "image-text-to-text": _prompt,
    "keypoint-matching": _pair,
    "mask-generation": _image,
    "object-detection": _image,
    "question-answering": lambda _, text, __: {"question": "what jumps", "context": text},
    "rerank": lambda _, text, __: {"query": "what jumps", "documents": [text, "the dog sleeps"]},
    "table-question-answering": lambda _, text, __: {
        "table": {"animal": text.split()[:6], "legs": ["4"] * len(text.split()[:6])},
        "query": "how many legs",
    },
    "video-classification": _film,
    "zero-shot-audio-classification": _sound,
    "zero-shot-image-classification": _image,
    "zero-shot-object-detection": _image,
}

#: Of those, the ones whose item is a text, or has one whose length makes its cost.
_TEXTS: Final = frozenset({"fill-mask", "question-answering", "rerank"})
