"""Whatever inputs hold, a runner prepares them or says, in an error of ours, why it doesn't."""

from __future__ import annotations

import math
import random
import struct
import zlib
from base64 import b64encode
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipemill.catalogue.model import LimitSettings
from pipemill.errors import InvalidInput, JobError
from pipemill.store.blobs import name_in
from pipemill_worker.media import MediaDecoder
from pipemill_worker.pipelines.factory import load_runner
from pipemill_worker.pipelines.inputs import check_inputs
from tests import malformed
from tests.tasks.matrix import ROWS
from tests.tasks.media import drawn, image_envelope
from tests.unit.pipelines.tiny import Settings

#: Jobs tried of each task: 2,000 in all.
EXAMPLES: Final = 67
#: A row for each task: the first of its architectures.
ROW_OF: Final[Mapping[str, str]] = {row.task: row.key for row in reversed([*ROWS.values()])}
#: An error's text at most: mistakes of parameters are told to 600, the first one in full.
MOST_TOLD: Final = 700


def nothing_there(reference: str, _: int) -> None:
    """Stand in for the store: no reference of its kind has anything behind it."""
    name_in(reference, "redis")


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, list[malformed.Good]]]:
    """A task's runner, and the smallest of its good jobs."""
    folder = tmp_path_factory.mktemp("hostile")

    @cache
    def prepare(task: str) -> tuple[Any, list[malformed.Good]]:
        row = ROWS[ROW_OF[task]]
        row.build(folder / row.key)
        queue = Settings(task=task, model=str(folder / row.key))
        good = sorted(((job.inputs, job.parameters) for job in row.jobs(folder)), key=lambda job: len(str(job)))
        return load_runner(row.key, queue, threads=1, references=nothing_there), good[:5]

    return prepare


@pytest.mark.parametrize("task", sorted(ROW_OF))
def test_anything_is_prepared_or_refused(
    task: str, prepared: Callable[[str], tuple[Any, list[malformed.Good]]]
) -> None:
    """Good jobs with mistakes in them, and JSON of any kind, raise nothing but errors of jobs, in few words."""
    if reason := ROWS[ROW_OF[task]].missing():
        pytest.skip(reason)
    runner, good = prepared(task)

    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.randoms(use_true_random=False))
    def tried(rng: random.Random) -> None:
        inputs, parameters = malformed.job(rng, good)
        refusal: BaseException | None = None
        try:
            runner.prepare(inputs, parameters)
        except (JobError, OSError) as error:
            refusal = error
        assert refusal is None or len(str(refusal)) <= MOST_TOLD
        # A page without word_boxes is for Tesseract, which not every machine has; the job fails with its own words.
        assert not isinstance(refusal, OSError) or type(refusal).__name__ == "TesseractNotFoundError"

    tried()


def png(width: int, height: int) -> dict[str, Any]:
    """An empty image on the wire, a thousandth of its pixels in bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    data = (
        b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes((1 + width) * height))) + chunk(b"IEND", b"")
    )
    return {"$image": b64encode(data).decode()}


@pytest.mark.parametrize(("width", "height"), [(1, 201), (201, 1), (2, 401), (5, 1_000_001)])
def test_lines_are_refused(width: int, height: int) -> None:
    """An image of a million pixels by one is small itself, and scaled up by a processor it is gigabytes."""
    decoder = MediaDecoder(LimitSettings(), sampling_rate=None, references=None, urls=None)
    with pytest.raises(InvalidInput, match=f"{width}×{height} pixels, one side may be 200 times the other"):
        decoder.decode(png(width, height))
    assert decoder.decode(png(1, 200)).size == (1, 200)


def boxed(*box: float) -> dict[str, Any]:
    """A page of one word."""
    return {"question": "what is it?", "word_boxes": [["river", list(box)]]}


def decided(**changes: Any) -> dict[str, Any]:
    """A decision, with a change."""
    question = {"type": "choice", "instructions": "what is it?", "criteria": {"a": None, "b": "the other"}}
    return {"state": {"text": "river"}, "questions": {"a": question}, **changes}


REFUSED: Final[Mapping[str, tuple[str, Any, str]]] = {
    "box of floats": ("document-question-answering", boxed(0.5, 0, 1, 1), "whole numbers from 0 to 1000"),
    "box turned": ("document-question-answering", boxed(9, 0, 1, 1), "left at most right"),
    "box upside down": ("document-question-answering", boxed(0, 9, 1, 1), "top at most bottom"),
    "image in a state": ("decision", decided(state=["x", drawn(1)]), "there is an image in 'state' and 'questions'"),
    "half a character": ("decision", decided(state={"\ud800": 1}), "a key in .* has half a surrogate pair"),
    "question of a word": ("decision", decided(questions={"a": "why?"}), "must be an object whose 'type' is one of"),
    "type of a list": ("decision", decided(questions={"a": {"type": ["noul"]}}), "choice, noul, score"),
    "key of a question": (
        "decision",
        decided(questions={"a": {"type": "noul", "x" * 999: 1}}),
        "criteria, instructions",
    ),
    "criteria of noul": (
        "decision",
        decided(questions={"a": {"type": "noul", "criteria": {"x": 1}}}),
        "'true' and 'false'",
    ),
    "long name": ("decision", decided(questions={"a" * 65: {}}), "must have 1 to 64 characters"),
    "text without images": ("image-text-to-text", {"text": "what is it?"}, "must have the keys 'images', 'text'"),
    "no images": (
        "image-text-to-text",
        {"text": "what is it?", "images": []},
        "'images' of the input has nothing in it",
    ),
    "null images": ("any-to-any", {"text": "what is it?", "images": None}, "'images' of the input has nothing in it"),
    "long speech": ("text-to-audio", "a" * 4_097, "4097 characters, at most 4096 are spoken at once"),
    "long text": ("fill-mask", "a" * 4_194_305, "4194305 characters, at most 4194304"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_breaks_models_is_refused(name: str) -> None:
    """Inputs that pipelines let through to the model, which then fails in its own words, or takes all memory."""
    task, inputs, says = REFUSED[name]
    with pytest.raises(InvalidInput, match=says) as raised:
        check_inputs(task, inputs)
    assert len(str(raised.value)) <= MOST_TOLD


@pytest.mark.parametrize(
    ("task", "inputs"),
    [
        ("document-question-answering", boxed(0, 0, 0, 0)),
        ("document-question-answering", boxed(0, 0, 1000, 1000)),
        ("decision", decided(state=[1, 0.5, None, True, "", {}])),
        ("image-text-to-text", "what is it?"),
        ("text-to-audio", "a" * 4_096),
    ],
)
def test_what_is_at_the_bounds_is_taken(task: str, inputs: Any) -> None:
    """The checks refuse no more than they say."""
    check_inputs(task, inputs)


def test_the_generator_is_repeatable() -> None:
    """Equal seeds make equal jobs, so that what a run found can be found again; JSON takes them all."""
    good: list[malformed.Good] = [({"text": "river", "text_pair": "stone"}, {"top_k": 2})]
    made = [[malformed.job(rng, good) for _ in range(50)] for rng in (random.Random(1), random.Random(1))]
    assert repr(made[0]) == repr(made[1])
    assert all(math.isfinite(number) for number in malformed.NASTY if isinstance(number, int | float))
    assert image_envelope(drawn(1)) == image_envelope(drawn(1))
