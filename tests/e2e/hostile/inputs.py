"""Hostile inputs: what is to be opened, what is broken, what is too much."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np

from pipemill.errors import InputTooLong, MalformedJob, PayloadMissing
from tests.e2e.hostile import files
from tests.e2e.hostile.queues import GOOD, IMAGE, MARK, NEEDED, QUESTION, SECRET, SERVER, Case
from tests.malformed import nest


def _said(content: Any, kind: str = "image") -> list[Any]:
    """A chat with a block of this kind."""
    return [{"role": "user", "content": [{"type": kind, kind: content}, {"type": "text", "text": "what is it?"}]}]


def _places() -> Iterator[tuple[str, str, Any]]:
    """Wherever a job may hold a medium: the queue, a name for the place, and the inputs with ``None`` in that place."""
    for queue in ("image", "zero-shot-image", "fetching", "speech", "whisper", "video"):
        yield queue, "alone", None
        yield queue, "in a list", [None]
    for queue in ("speech", "whisper"):
        yield queue, "raw", {"raw": None, "sampling_rate": 16_000}
        yield queue, "in a list of objects", [{"array": None, "sampling_rate": 16_000}]
    yield "chat", "images", {"text": "what is it?", "images": None}
    yield "chat", "list of images", {"text": "what is it?", "images": [None]}
    yield "chat", "list of objects", [{"text": "what is it?", "images": [None]}]
    yield "chat", "block", _said(None)
    yield (
        "chat",
        "second block",
        [{"role": "user", "content": [{"type": "image", "image": IMAGE}, *_said(None)[0]["content"]]}],
    )
    for key in ("url", "path", "base64"):
        yield "chat", f"block's {key}", [{"role": "user", "content": [{"type": "image", key: None}]}]
        yield "chat", f"video block's {key}", [{"role": "user", "content": [{"type": "video", key: None}]}]
    yield (
        "chat",
        "block of OpenAI",
        [
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": None}}]},
        ],
    )
    yield "document", "image", {"question": "what is it?", "image": None}
    yield "document", "list", [{"question": "what is it?", "image": None}]
    yield "decision", "asset", {"state": "look", "questions": QUESTION, "assets": {"look": None}}
    yield (
        "decision",
        "asset's data",
        {
            "state": "look",
            "questions": QUESTION,
            "assets": {"look": {"type": "image", "format": "png", "data_base64": None}},
        },
    )


def filled(inputs: Any, content: Any) -> Any:
    """Inputs with a content in each place that waits for one."""
    if isinstance(inputs, dict):
        return {key: filled(value, content) for key, value in inputs.items()}
    if isinstance(inputs, list):
        return [filled(value, content) for value in inputs]
    return content if inputs is None else inputs


#: How a job may try to have something opened.
_OPENERS: Final[Mapping[str, str]] = {
    "path": SECRET,
    "file URL": f"file://{SECRET}",
    "URL": f"{SERVER}/image.png",
    "data URL": "data:image/png;base64," + files.base64(files.image("PNG")),
    "base64": files.base64(files.image("PNG")),
}


#: What is said of a string, or an object of strings, where a medium belongs.
_REFUSED: Final = (
    "never opened here|must be an object whose 'type'|must have the keys|not an object: give its|must be an image"
)


def _openers() -> Iterator[tuple[str, Case]]:
    for queue, place, inputs in _places():
        for what, content in _OPENERS.items():
            given = filled(inputs, content)
            case = Case(queue=queue, inputs=given, parameters=NEEDED.get(queue, {}), says=_REFUSED)
            yield f"{queue}: {place}: {what}", case
    for what in ("path", "file URL", "URL", "data URL"):
        for queue, mark in (("image", "$image"), ("speech", "$audio"), ("video", "$video")):
            says = "isn't base64"
            yield f"{queue}: envelope: {what}", Case(queue=queue, inputs={mark: _OPENERS[what]}, says=says)


def _fetches() -> Iterator[tuple[str, Case]]:
    def ask(url: str) -> dict[str, Any]:
        return {"$image": {"url": url}}

    for queue, mark in (("image", "$image"), ("speech", "$audio"), ("video", "$video")):
        yield f"{queue}: a URL", Case(queue=queue, inputs={mark: {"url": f"{SERVER}/x"}}, says="fetches no URLs")
    yield "fetching: a port", Case(queue="fetching", inputs=ask(f"{SERVER}/x"), says="only 80 and 443")
    yield "fetching: loopback", Case(queue="fetching", inputs=ask("http://127.0.0.1/x"), says="isn't public")
    refused = {
        "http://127.1/x": "isn't in the queue's urls.hosts",
        "http://2130706433/x": "isn't in the queue's urls.hosts",
        "http://[::1]/x": "isn't in the queue's urls.hosts",
        "http://images.example.org@127.0.0.2/": "carries credentials",
        "https://images.example.org.evil.test/": "isn't in the queue's urls.hosts",
        "file:///etc/passwd": "must begin with https",
        "gopher://127.0.0.1/": "must begin with https",
        "http://127.0.0.1\r\nHost: x/": "ASCII",
        "https://images.example.org/" + 5000 * "a": "4096 characters",
    }
    for number, (url, says) in enumerate(refused.items()):
        yield f"fetching: refused URL {number}", Case(queue="fetching", inputs=ask(url), says=says)


def _files() -> Iterator[tuple[str, Case]]:
    images = {
        "a bomb": (files.png(20_000, 20_000), "more than 25000000 pixels"),
        "a line": (files.png(1, 1_000_000), "one side may be 200 times the other"),
        **{name: (data, "can't be decoded|isn't a PNG") for name, data in files.broken_images().items()},
    }
    for name, (data, says) in images.items():
        for queue in ("image", "zero-shot-image"):
            case = Case(queue=queue, inputs={"$image": files.base64(data)}, parameters=NEEDED.get(queue, {}), says=says)
            yield f"{queue}: {name}", case
    page = {"question": "what is it?", "image": {"$image": files.base64(files.png(20_000, 20_000))}}
    yield (
        "document: a bomb",
        Case(queue="document", inputs=page, says="^inputs.image: it has more than 25000000 pixels"),
    )
    yield "chat: a bomb", Case(queue="chat", inputs=_said(page["image"]), says="more than 25000000 pixels")
    sounds = "can't be decoded|isn't a WAV|cut off|has no samples|samples a second"
    for name, data in files.broken_sounds().items():
        yield f"speech: {name}", Case(queue="speech", inputs={"$audio": files.base64(data)}, says=sounds)
    videos = "can't be decoded|isn't an MP4|no video stream"
    for name, data in files.broken_videos().items():
        yield f"video: {name}", Case(queue="video", inputs={"$video": files.base64(data)}, says=videos)


def _numbers(values: list[float]) -> bytes:
    return np.asarray(values, "<f4").tobytes()


def _arrays() -> Iterator[tuple[str, Case]]:
    quiet = _numbers([0.0] * 100)
    sounds: dict[str, tuple[dict[str, Any], Any, str]] = {
        "NaN": (files.array(_numbers([0.5, math.nan]), "float32", [2]), 16_000, "no numbers"),
        "infinite": (files.array(_numbers([math.inf]), "float32", [1]), 16_000, "infinite"),
        "objects": (files.array(quiet, "object", [100]), 16_000, "dtype must be one of"),
        "NumPy's names": (files.array(quiet, "<f4", [100]), 16_000, "dtype must be one of"),
        "no name": (files.array(quiet, ["float32"], [100]), 16_000, "dtype must be one of"),
        "bool": (files.array(bytes(100), "bool", [100]), 16_000, "must be float or int, not bool"),
        "complex": (files.array(bytes(80), "complex64", [10]), 16_000, "must be float or int, not complex64"),
        "too few bytes": (files.array(quiet, "float32", [101]), 16_000, "make 404 bytes, and there are 400"),
        "huge shape": (files.array(quiet, "float32", [2**40, 2**40]), 16_000, "make [0-9]+ bytes"),
        "negative shape": (files.array(quiet, "float32", [-1]), 16_000, "shape must be a list"),
        "many dimensions": (files.array(quiet, "float32", [1] * 99), 16_000, "shape must be a list"),
        "three dimensions": (files.array(quiet, "float32", [1, 1, 100]), 16_000, "must have the shape"),
        "frames as channels": (files.array(quiet, "float32", [100, 1]), 16_000, "100 channels"),
        "empty": (files.array(b"", "float32", [0]), 16_000, "has no samples"),
        "rate of a word": (files.array(quiet, "float32", [100]), "16000", "sampling_rate must be a whole number"),
        "rate of none": (files.array(quiet, "float32", [100]), 0, "samples a second"),
        "rate without end": (files.array(quiet, "float32", [100]), 10**12, "samples a second"),
    }
    for name, (content, rate, says) in sounds.items():
        yield f"speech: {name}", Case(queue="speech", inputs={"$audio": content, "sampling_rate": rate}, says=says)
    pixels = bytes(2 * 4 * 4 * 3)
    videos: dict[str, tuple[dict[str, Any], str]] = {
        "floats": (files.array(_numbers([0.0] * 96), "float32", [2, 4, 4, 3]), "must be uint8"),
        "no colours": (files.array(pixels, "uint8", [2, 4, 12]), "must be uint8 of the shape"),
        "four colours": (files.array(bytes(128), "uint8", [2, 4, 4, 4]), "must be uint8 of the shape"),
        "no frames": (files.array(b"", "uint8", [0, 4, 4, 3]), "hold nothing"),
        "no pixels": (files.array(b"", "uint8", [2**40, 4, 0, 3]), "hold nothing"),
        "too few frames": (files.array(pixels, "uint8", [2, 4, 4, 3]), "too few frames"),
        "lines": (files.array(bytes(4 * 300 * 3), "uint8", [4, 1, 300, 3]), "one side may be 200 times"),
        "many frames": (files.array(bytes(3 * 1_025), "uint8", [1_025, 1, 1, 3]), "at most 1024 are"),
    }
    for name, (content, says) in videos.items():
        yield f"video: {name}", Case(queue="video", inputs={"$video": content}, says=says)
    yield (
        "image: an array",
        Case(queue="image", inputs=files.array(bytes(48), "uint8", [4, 4, 3]), says="must be an image, not an array"),
    )


def _envelopes() -> Iterator[tuple[str, Case]]:
    image: dict[str, tuple[Any, str]] = {
        "garbage": ({"$image": "%%%"}, "isn't base64"),
        "URL alphabet": ({"$image": "____"}, "isn't base64"),
        "empty": ({"$image": ""}, "it is empty"),
        "null": ({"$image": None}, "must be base64"),
        "number": ({"$image": 17}, "must be base64"),
        "twice": ({"$image": IMAGE}, "must be base64"),
        "two marks": ({"$image": "AAAA", "$audio": "AAAA"}, "must be exactly one of"),
        "more keys": ({"$image": "AAAA", "path": SECRET}, "must be exactly one of"),
        "another medium": ({"$audio": files.base64(files.wav(8, bytes(8)))}, "must be an image, not a sound"),
        "files": ({"$image": {"ref": "files:../../etc/passwd"}}, "is none of this queue's"),
        "a good name of files": ({"$image": {"ref": f"files:2026-01-01/{32 * 'a'}"}}, "is none of this queue's"),
        "another key": ({"$image": {"ref": "redis:../pipemill:queues"}}, "is none of this queue's"),
        "too many": ([IMAGE] * 17, "17 images, sounds, videos and arrays, at most 16"),
        "none": ([], "empty"),
        "an object": ({}, "must be an image, not an object"),
        "deep": (nest(IMAGE, 100), "nested more than 32 deep"),
        "lists": (nest(IMAGE, 3), "must be an image, not a list"),
    }
    for name, (inputs, says) in image.items():
        yield f"image: envelope: {name}", Case(queue="image", inputs=inputs, says=says)
    gone = {"ref": f"redis:{32 * 'a'}"}
    for queue, mark in (("image", "$image"), ("speech", "$audio"), ("video", "$video")):
        case = Case(queue=queue, inputs={mark: gone}, error=PayloadMissing, says="submit the job again")
        yield f"{queue}: nothing there", case


def _texts() -> Iterator[tuple[str, Case]]:
    many = f"{MARK} " * 1_750_000
    for queue in ("sentiment", "text", "generator", "zero-shot", "question", "rerank", "table"):
        yield (
            f"{queue}: 10 MB",
            Case(queue=queue, inputs=many, parameters=NEEDED.get(queue, {}), says="larger than the 1048576 bytes"),
        )
    for queue in ("image", "speech", "video", "document", "decision"):
        yield f"{queue}: 10 MB", Case(queue=queue, inputs=many, says="not a string")
    yield "chat: 10 MB", Case(queue="chat", inputs=many, says="characters, at most 4194304")
    yield "chat: 10 MB in a block", Case(queue="chat", inputs=_said(many, "text"), says="characters, at most 4194304")
    yield (
        "document: 10 MB of question",
        Case(queue="document", inputs={"question": many, "image": IMAGE}, says="at most 4194304"),
    )
    state = {"state": {"deep": [many]}, "questions": QUESTION}
    yield "decision: 10 MB of state", Case(queue="decision", inputs=state, says="characters, at most 4194304")
    yield "speech: 10 MB of base64", Case(queue="speech", inputs={"$audio": 10_500_000 * "A"}, says="isn't a WAV")
    for name, question in {
        "key": {"type": "noul", MARK * 100: 1},
        "criteria": {"type": "noul", "criteria": {MARK * 100: 1}},
        "type": {"type": MARK * 100},
        "list of criteria": {"type": "choice", "criteria": [MARK * 100]},
        "options": {"type": "choice", "criteria": {f"{MARK * 100}{number}": None for number in range(99)}},
        "levels": {"type": "score", "criteria": [MARK * 100, 17]},
    }.items():
        says = "must have the keys|may have the keys|'type' is one of|expected a dict|at most 26|Invalid item"
        inputs = {"state": MARK, "questions": {"a": question}}
        yield f"decision: {name} of a question", Case(queue="decision", inputs=inputs, says=says)
    long = "river stone " * 350
    for queue, tokens, most in (("sentiment", 1_053, 256), ("text", 702, 512)):
        says = f"has {tokens} tokens, the model takes at most {most}: pass .* to cut it"
        yield f"{queue}: 700 tokens", Case(queue=queue, inputs=long, error=InputTooLong, says=says)
    for queue, good in GOOD.items():
        yield (
            f"{queue}: deep",
            Case(queue=queue, inputs=nest(good, 300), parameters=NEEDED.get(queue, {}), says="must be|nested|empty"),
        )
        yield (
            f"{queue}: empty",
            Case(queue=queue, inputs=[], parameters=NEEDED.get(queue, {}), says="empty: give at least one"),
        )
        yield f"{queue}: NaN", Case(queue=queue, inputs=[math.nan], error=MalformedJob, says="must be JSON")
        yield (
            f"{queue}: half a character",
            Case(queue=queue, inputs="\ud800", error=MalformedJob, says="must be JSON", raw=True),
        )


def cases() -> Iterator[tuple[str, Case]]:
    """All of them, with their names."""
    for some in (_openers, _fetches, _files, _arrays, _envelopes, _texts):
        yield from some()
