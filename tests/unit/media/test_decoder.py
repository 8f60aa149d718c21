"""Inputs: which forms are replaced, what stays, and what every refusal says."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from base64 import b64encode
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipemill.catalogue.model import LimitSettings
from pipemill.errors import InvalidInput, MissingExtra, PayloadMissing, PayloadTooLarge, SourceUnavailable
from pipemill_worker.media import Clip, MediaDecoder, Sound
from pipemill_worker.media.decoder import MAX_DEPTH, MAX_VALUES
from tests.unit.media.files import (
    RATE,
    Limits,
    array_form,
    decoder,
    image_file,
    pixels,
    sound_file,
    text,
    video_file,
    wave,
)

IMAGE = {"$image": text(image_file())}


@pytest.mark.parametrize(
    "inputs",
    [
        "text",
        ["a", "b"],
        {"state": "x", "questions": {"q": ["yes", "no"]}},
        {"table": {"$price": ["1"], "ref": [2]}, "query": "?"},
        {"url": "https://example.org/a.png"},
        [],
        {},
        None,
        3,
        [[["deep", {"er": [1, 2.5, None, True]}]]],
    ],
)
def test_inputs_without_media_come_back_as_they_are(inputs: Any) -> None:
    """What has no media isn't copied, nor looked at closely."""
    assert decoder().decode(inputs) is inputs


def test_each_form_becomes_what_it_holds() -> None:
    """Images, sounds, videos and arrays are replaced at any depth; all else stays where it was."""
    other = {"kept": [1, 2]}
    inputs = {
        "image": IMAGE,
        "chat": [{"role": "user", "content": [{"type": "audio", "audio": {"$audio": text(sound_file(wave(100)))}}]}],
        "video": {"$video": text(video_file())},
        "array": array_form(np.arange(6, dtype=np.int16).reshape(2, 3)),
        "other": other,
    }
    before = copy.deepcopy(inputs)
    found = decoder().decode(inputs)
    assert isinstance(found["image"], Image.Image)
    assert np.array_equal(np.asarray(found["image"]), pixels())
    assert np.array_equal(found["chat"][0]["content"][0]["audio"], wave(100))
    assert found["chat"][0]["role"] == "user"
    assert isinstance(found["video"], Clip)
    assert found["array"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert found["other"] is other
    assert inputs == before


def test_inputs_that_are_a_form_themselves_are_replaced() -> None:
    """A job may be one image, or a list of them."""
    assert isinstance(decoder().decode(IMAGE), Image.Image)
    assert [type(each).__name__ for each in decoder().decode([IMAGE, "x", IMAGE])] == [
        "PngImageFile",
        "str",
        "PngImageFile",
    ]


def test_sounds_come_at_the_models_rate_or_with_their_own() -> None:
    """With a rate the decoder gives samples only, without one it says what theirs is."""
    form = {"$audio": array_form(wave(4_800)), "sampling_rate": 48_000}
    assert len(decoder().decode(form)) == pytest.approx(1_600, abs=2)
    kept = decoder(sampling_rate=None).decode([form])[0]
    assert isinstance(kept, Sound)
    assert (kept.sampling_rate, len(kept.samples)) == (48_000, 4_800)
    same = {"$audio": array_form(wave()), "sampling_rate": RATE}
    assert np.array_equal(decoder().decode(same), wave())


def test_frames_may_come_as_an_array() -> None:
    """A video that was decoded before is used as it is."""
    frames = np.stack([pixels(), pixels(seed=1)])
    assert np.array_equal(decoder().decode({"$video": array_form(frames)}).frames(), frames)


def test_an_image_array_stays_an_array() -> None:
    """Only an image is an image."""
    assert isinstance(decoder().decode(array_form(pixels())), np.ndarray)


def test_bytes_may_lie_elsewhere() -> None:
    """References and URLs are read with the queue's cap, by what the decoder was given."""
    asked: list[tuple[str, int]] = []

    def read(name: str, max_bytes: int) -> bytes:
        asked.append((name, max_bytes))
        return image_file()

    reads = decoder(references=read, urls=read)
    found = reads.decode([{"$image": {"ref": "redis:a"}}, {"$image": {"url": "https://example.org/a.png"}}])
    assert all(isinstance(each, Image.Image) for each in found)
    assert asked == [("redis:a", 1_000_000), ("https://example.org/a.png", 1_000_000)]


def fail_with(error: Exception | None) -> Any:
    """A store that finds nothing, or raises."""

    def read(reference: str, max_bytes: int) -> None:
        assert (reference, max_bytes) == ("redis:a", 1_000_000)
        if error:
            raise error

    return read


@pytest.mark.parametrize(
    ("references", "error", "says"),
    [
        (None, InvalidInput, "reads no references"),
        (fail_with(None), PayloadMissing, "are gone: submit the job again"),
        (fail_with(ValueError("no")), InvalidInput, "none of this queue's"),
        (fail_with(PayloadTooLarge("no")), InvalidInput, "more than 1000000 bytes"),
        (fail_with(SourceUnavailable("not for now")), SourceUnavailable, "not for now"),
    ],
)
def test_references_that_lead_nowhere_are_told(references: Any, error: type[Exception], says: str) -> None:
    """Gone, away, unknown and too large are different things; the place is named."""
    with pytest.raises(error, match=rf"^inputs\.image: .*{says}"):
        decoder(references=references).decode({"image": {"$image": {"ref": "redis:a"}}})


BROKEN: list[tuple[Any, str]] = [
    ({"$image": "AAAA", "x": 1}, "an object with $image must be exactly one of"),
    ({"$image": "AAAA", "$audio": "AAAA"}, "$image and $audio must be exactly one of"),
    ({"$array": "AAAA"}, "must be exactly one of"),
    ({"$image": 3}, "its content must be base64"),
    ({"$image": None}, "its content must be base64"),
    ({"$image": ["AAAA"]}, "its content must be base64"),
    ({"$image": {"ref": 3}}, "its content must be base64"),
    ({"$image": {"ref": "redis:a", "url": "x"}}, "its content must be base64"),
    ({"$image": {"$image": "AAAA"}}, "its content must be base64"),
    ({"$image": array_form(pixels())}, "its content must be base64"),
    ({"$image": "not base64"}, "isn't base64"),
    ({"$image": "AAA"}, "isn't base64"),
    ({"$image": "\u00e4\u00e4\u00e4\u00e4"}, "isn't base64"),
    ({"$image": ""}, "it is empty"),
    ({"$image": {"url": "https://example.org/a.png"}}, "fetches no URLs"),
    ({"$image": text(b"text")}, "isn't a PNG"),
    ({"$audio": text(b"text")}, "isn't a WAV"),
    ({"$video": text(b"text")}, "isn't an MP4"),
    ({"$image": "A" * 2_000_000}, "more than 1000000 bytes"),
    ({"$audio": array_form(wave(4))}, "samples need their sampling_rate"),
    ({"$audio": text(sound_file(wave(4))), "sampling_rate": RATE}, "a file has its own"),
    ({"$audio": {"$array": "AAAA"}, "sampling_rate": RATE}, "an array must be exactly"),
    ({"$video": {**array_form(pixels()), "x": 1}}, "an array must be exactly"),
    ({"$video": array_form(pixels())}, "[frames, height, width, 3]"),
    ({"$array": "AAAA", "dtype": "object", "shape": [1]}, "dtype must be one of"),
    ({"$array": "AAAA", "dtype": "O", "shape": [1]}, "dtype must be one of"),
    ({"$array": "AAAA", "dtype": "<f4", "shape": [1]}, "dtype must be one of"),
    ({"$array": "AAAA", "dtype": ["float32"], "shape": [1]}, "dtype must be one of"),
    ({"$array": "AAAA", "dtype": "float32", "shape": [1]}, "make 4 bytes, and there are 3"),
    ({"$array": "AAAA", "dtype": "uint8", "shape": [-3]}, "shape must be"),
    ({"$array": "AAAA", "dtype": "uint8", "shape": [2**62, 4]}, "shape must be"),
    ({"$array": "AAAA", "dtype": "uint8", "shape": [3.0]}, "shape must be"),
    ({"$array": "AAAA", "dtype": "uint8", "shape": "3"}, "shape must be"),
    ({"$array": "AAAA", "dtype": "uint8", "shape": [[3]]}, "shape must be"),
    ({"$array": {"url": "https://example.org"}, "dtype": "uint8", "shape": [3]}, "can't be named by URL"),
]


@pytest.mark.parametrize(("form", "says"), BROKEN, ids=[says for _, says in BROKEN])
def test_a_broken_form_is_refused_with_its_place(form: Any, says: str) -> None:
    """Each mistake is one short sentence that begins with where it is."""
    with pytest.raises(InvalidInput) as raised:
        decoder().decode([0, {"images": [form]}])
    message = str(raised.value)
    assert message.startswith("inputs[1].images[0]: ")
    assert says in message
    assert len(message) < 400


def test_a_key_of_the_job_is_not_echoed() -> None:
    """Only keys that look like names are repeated in an error."""
    with pytest.raises(InvalidInput, match=r"^inputs\.\(…\)\.\(…\): it is empty"):
        decoder().decode({"<script>": {"x" * 33: {"$image": ""}}})


def test_too_many_media_are_refused_before_any_is_decoded() -> None:
    """Four images pass, the fifth doesn't, and then none of them costs anything."""
    assert len(decoder().decode([IMAGE] * 4)) == 4
    with pytest.raises(InvalidInput, match="has 5 images, sounds, videos and arrays, at most 4"):
        decoder().decode([IMAGE] * 4 + [{"$image": "broken"}])


def test_depth_is_bounded() -> None:
    """Inputs nested deeper than any job's are an error, and never a RecursionError."""
    inputs: Any = IMAGE
    for _ in range(MAX_DEPTH - 1):
        inputs = [inputs]
    decoder().decode(inputs)
    for _ in range(10_000):
        inputs = [inputs]
    with pytest.raises(InvalidInput, match="nested more than 32 deep"):
        decoder().decode(inputs)


def test_size_is_bounded() -> None:
    """Inputs of more values than any job's are an error."""
    decoder().decode([[0] * (MAX_VALUES // 2), "x"])
    with pytest.raises(InvalidInput, match="more than 1000000 values"):
        decoder().decode([[0] * (MAX_VALUES // 2), [0] * (MAX_VALUES // 2)])


def test_the_catalogues_settings_are_limits() -> None:
    """A queue's limits are given as they stand in the catalogue."""
    found = MediaDecoder(LimitSettings(), sampling_rate=None, references=None, urls=None).decode([IMAGE])
    assert found[0].size == (16, 12)


@pytest.mark.parametrize(
    ("module", "form"),
    [
        ("PIL", IMAGE),
        ("soundfile", {"$audio": text(sound_file(wave(4)))}),
        ("soxr", {"$audio": array_form(wave(4)), "sampling_rate": 48_000}),
        ("av", {"$video": text(video_file())}),
    ],
)
def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch, module: str, form: Any) -> None:
    """A worker without the extra says how to get it."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=r'pip install "pipemill\[worker-media\]"'):
        decoder().decode(form)


def test_importing_loads_no_library_that_decodes() -> None:
    """A queue of texts costs no media library."""
    code = "import sys, pipemill_worker.media; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"PIL", "av", "soundfile", "soxr", "torch", "transformers", "httpcore"} & set(done.stdout.split())


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8) | st.just("AAAA"),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["$image", "$audio", "$video", "$array", "sampling_rate", "dtype", "shape", "ref", "url", "a"]
            ),
            inner | st.sampled_from(["uint8", "float32", 16_000, [3], [0]]),
            max_size=3,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=500, deadline=None)
@given(inputs=VALUES)
def test_any_inputs_are_decoded_or_invalid(inputs: Any) -> None:
    """Whatever JSON comes in, it is decoded or refused with InvalidInput, and isn't changed."""
    before = json.dumps(inputs)
    with suppress(InvalidInput):
        decoder(Limits(max_media=16)).decode(inputs)
    assert json.dumps(inputs) == before


@settings(max_examples=200, deadline=None)
@given(mark=st.sampled_from(["$image", "$audio", "$video"]), data=st.binary(max_size=200))
def test_any_bytes_are_media_or_invalid(mark: str, data: bytes) -> None:
    """Whatever bytes come in, they are decoded or refused with InvalidInput."""
    with pytest.raises(InvalidInput, match=r"^inputs: "):
        decoder().decode({mark: b64encode(data).decode()})
