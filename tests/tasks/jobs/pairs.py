"""Jobs that hold an image or a sound, and words about it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tests.tasks.jobs.images import SIZES, per_image
from tests.tasks.jobs.texts import sentence
from tests.tasks.media import drawn, image_envelope, sound_envelope, tone
from tests.tasks.rows import Job

_FEW: Final = ["river", "stone"]
_MANY: Final = ["music", "engine", "clock", "cloud"]
#: ``generate``'s own words, since these pipelines take apart what isn't theirs.
_GREEDY: Final[dict[str, Any]] = {"max_new_tokens": 6, "generate_kwargs": {"do_sample": False}}
_ASKED: Final[list[dict[str, Any]]] = [
    _GREEDY,
    {**_GREEDY, "return_full_text": False},
    {"max_new_tokens": 3},
    _GREEDY,
    {"max_new_tokens": 6, "generate_kwargs": {"num_beams": 2}},
    {"max_new_tokens": 6, "generate_kwargs": {"do_sample": True}, "seed": 4},
]


def label(_: Path) -> list[Job]:
    """Jobs of ``zero-shot-image-classification``: equal labels, other labels, fewer labels, another template."""
    return per_image(
        {"candidate_labels": _FEW},
        {"candidate_labels": _MANY},
        {"candidate_labels": _FEW},
        {"candidate_labels": _FEW, "hypothesis_template": "this is a {}"},
    )


def find(_: Path) -> list[Job]:
    """Jobs of ``zero-shot-object-detection``."""
    asked: list[dict[str, Any]] = [
        {"candidate_labels": _FEW},
        {"candidate_labels": _MANY, "threshold": 0.3},
        {"candidate_labels": _FEW, "top_k": 2},
    ]
    jobs = []
    for number, (width, height) in enumerate(SIZES):
        image = drawn(number, width, height)
        jobs.append(Job(inputs=image_envelope(image), direct=image, parameters=asked[number % 3]))
    return jobs


def ask(_: Path) -> list[Job]:
    """Jobs of ``document-question-answering`` with the words of the page and their boxes; one page is long."""

    def page(seed: int, words: int) -> tuple[dict[str, Any], dict[str, Any]]:
        image = drawn(seed, *SIZES[seed % len(SIZES)])
        boxes = [
            [word, [40 * (place % 20), 30 * (place // 20), 40 * (place % 20) + 30, 30 * (place // 20) + 20]]
            for place, word in enumerate(sentence(seed, words).split())
        ]
        rest = {"question": f"what is the {sentence(seed + 50, 2 + seed % 3)}?", "word_boxes": boxes}
        return {"image": image_envelope(image), **rest}, {"image": image, **rest}

    asked: list[dict[str, Any]] = [{}, {"top_k": 3}, {"max_answer_len": 2}, {"handle_impossible_answer": True}]
    pages = [page(seed, 4 + 3 * seed) for seed in range(7)]
    jobs = [
        Job(inputs=inputs, direct=direct, parameters=asked[number % 4]) for number, (inputs, direct) in enumerate(pages)
    ]
    inputs, direct = page(20, 120)
    return [
        *jobs,
        Job(inputs=inputs, direct=direct, parameters={"max_seq_len": 64, "doc_stride": 16}),
        Job(inputs=[pages[0][0], pages[1][0]], direct=[pages[0][1], pages[1][1]]),
    ]


def ask_image(_: Path) -> list[Job]:
    """Jobs of ``document-question-answering`` for a model that reads the image itself."""
    jobs = []
    for number, (width, height) in enumerate(SIZES):
        image, question = drawn(number, width, height), f"what is the {sentence(number, 1 + number % 3)}?"
        inputs = {"image": image_envelope(image), "question": question}
        jobs.append(Job(inputs=inputs, direct={"image": image, "question": question}))
    return jobs


def tell(_: Path) -> list[Job]:
    """Jobs of ``image-text-to-text`` for a model that goes on with a text."""
    jobs = []
    for number, (width, height) in enumerate(SIZES):
        image, text = drawn(number, width, height), sentence(number, 1 + number % 3)
        inputs = {"images": image_envelope(image), "text": text}
        jobs.append(Job(inputs=inputs, named={"images": image, "text": text}, parameters=_ASKED[number % 6]))
    return jobs


def _message(kind: str, thing: Any, text: str) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": kind, kind: thing}, {"type": "text", "text": text}]}


def chat_of_images(_: Path) -> list[Job]:
    """Jobs of ``image-text-to-text`` for a model that chats; two of them aren't chats, one has two images."""
    jobs = []
    for number, (width, height) in enumerate(SIZES):
        image, text = drawn(number, width, height), sentence(number, 1 + number % 3)
        inputs, direct = [_message("image", image_envelope(image), text)], [_message("image", image, text)]
        jobs.append(Job(inputs=inputs, named={"text": direct}, parameters=_ASKED[number % 6]))
    one, two, text = drawn(80), drawn(81, 48, 32), f"<image><image>{sentence(82, 3)}"
    begun = {"role": "assistant", "content": [{"type": "text", "text": "It is"}]}
    both = [image_envelope(one), image_envelope(two)]
    first = {"images": image_envelope(one), "text": "<image>what is"}
    return [
        *jobs,
        Job(inputs=[*jobs[0].inputs, begun], named={"text": [*jobs[0].named["text"], begun]}, parameters=_GREEDY),
        Job(inputs=first, named={"images": one, "text": "<image>what is"}, parameters=_GREEDY),
        Job(inputs={"images": both, "text": text}, named={"images": [one, two], "text": text}, parameters=_GREEDY),
    ]


def chat_of_sounds(_: Path) -> list[Job]:
    """Jobs of ``any-to-any`` for a model that hears: chats, with and without a sound, and one that isn't a chat."""
    jobs = []
    for number, seconds in enumerate((0.5, 0.8, 0.5, 1.1, 0.8, 0.5)):
        sound, text = tone(number, seconds), sentence(number, 1 + number % 3)
        inputs, direct = [_message("audio", sound_envelope(sound), text)], [_message("audio", sound, text)]
        jobs.append(Job(inputs=inputs, named={"text": direct}, parameters=_ASKED[number]))
    written = [{"role": "user", "content": [{"type": "text", "text": "what is the river?"}]}]
    sound, text = tone(80, 0.6), "<|AUDIO|>what is this?"
    return [
        *jobs,
        Job(inputs=written, named={"text": written}, parameters=_GREEDY),
        Job(
            inputs={"text": text, "audio": sound_envelope(sound)},
            named={"text": text, "audio": sound},
            parameters=_GREEDY,
        ),
    ]


JOBS: Final[dict[str, Callable[[Path], list[Job]]]] = {
    "zero-shot-image-classification.clip": label,
    "zero-shot-object-detection.owlvit": find,
    "document-question-answering.layoutlm": ask,
    "document-question-answering.donut": ask_image,
    "image-text-to-text.blip": tell,
    "image-text-to-text.llava": chat_of_images,
    "any-to-any.qwen2-audio": chat_of_sounds,
    "any-to-any.llava": chat_of_images,
}
