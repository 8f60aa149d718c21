"""Files as inputs, answers with media as words and as files."""

from __future__ import annotations

import io
import json
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from pipemill import Array, Audio, Image, Video, testing
from pipemill.cli.media import in_words, wav
from pipemill.codec import write_image
from pipemill.testing import MemoryBroker
from tests.unit.cli.conftest import Run

PNG = write_image(PIL.Image.new("RGB", (2, 2), "red"))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with some files of media."""
    (tmp_path / "a.png").write_bytes(PNG)
    (tmp_path / "b.jpg").write_bytes(b"\xff\xd8\xff\xe0 not quite a photograph")
    (tmp_path / "c.wav").write_bytes(b"RIFF\x00\x00\x00\x00WAVE")
    (tmp_path / "d.mp4").write_bytes(b"\x00\x00\x00\x18ftypmp42")
    (tmp_path / "empty.png").write_bytes(b"")
    return tmp_path


@pytest.fixture
def photos(broker: MemoryBroker) -> Iterator[list[Any]]:
    """A queue that answers with what it was given; gives the list of the jobs started so far."""
    with testing.answering(broker, "photos", lambda inputs: inputs) as started:
        yield started


JPEG, WAVE, MP4 = (
    Image(b"\xff\xd8\xff\xe0 not quite a photograph"),
    Audio(b"RIFF\x00\x00\x00\x00WAVE"),
    Video(b"\x00\x00\x00\x18ftypmp42"),
)


@pytest.mark.parametrize(
    ("given", "inputs"),
    [
        (["--image", "b.jpg"], JPEG),
        (["--image", "b.jpg", "--image", "b.jpg"], [JPEG, JPEG]),
        (["--audio", "c.wav"], WAVE),
        (["--video", "d.mp4"], MP4),
        (["--audio", "c.wav", "--video", "d.mp4"], {"audio": WAVE, "videos": MP4}),
        (["What is it?", "--image", "b.jpg"], {"text": "What is it?", "images": JPEG}),
        (['{"question": "Which?"}', "--json-input", "--image", "b.jpg"], {"question": "Which?", "image": JPEG}),
    ],
)
def test_files_are_inputs(run: Run, files: Path, photos: list[Any], given: list[str], inputs: Any) -> None:
    """Files are sent alone, as a list, beside a text, or as a key of an object."""
    arguments = [str(files / each) if (files / each).is_file() else each for each in given]
    done = run("submit", "photos", *arguments, "--wait", "--json")
    assert done.exit_code == 0, done.output
    assert [job.inputs for job in photos] == [inputs]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([], "INPUT"),
        (["--json-input"], "INPUT"),
        (["--image", "nothing.png"], "does not exist"),
        (["--image", "empty.png"], "empty"),
        (["[1]", "--json-input", "--image", "a.png"], "an object"),
        (["text", "--save", "out"], "--wait"),
    ],
)
@pytest.mark.usefixtures("photos")
def test_what_cant_be_sent_is_wrong_usage(
    run: Run, files: Path, broker: MemoryBroker, given: list[str], told: str
) -> None:
    """Missing and empty files, and options that don't go together, are refused before anything is sent."""
    arguments = [str(files / each) if each.endswith(".png") else each for each in given]
    done = run("submit", "photos", *arguments)
    assert done.exit_code == 2
    assert told in done.stderr
    assert broker.sequence == 0


def test_media_are_shown_as_words_and_given_as_json(run: Run, files: Path, photos: list[Any]) -> None:
    """People see what it is and how large; programs get the documented form."""
    done = run("submit", "photos", "--image", str(files / "a.png"), "--wait")
    assert done.stdout == f"<image PNG, {len(PNG)} bytes>\n"
    assert "$image" in json.loads(run("result", photos[0].id, "--json").stdout)["result"]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"$image": "/9j/4AAA"}, "<image JPEG, 6 bytes>"),
        ({"$image": {"ref": "redis:0"}}, "<image, kept elsewhere>"),
        ({"$audio": "A" * 2_000_000}, "<audio, 1.5 MB>"),
        ({"$video": "A" * 20_000}, "<video, 15 kB>"),
        ({"$array": "AAAA", "dtype": "uint8", "shape": [3]}, "<array uint8 [3], 3 bytes>"),
        ({"$audio": {"$array": "AAAA", "dtype": "uint8", "shape": [3]}, "sampling_rate": 8}, "<audio uint8 [3], 8 Hz>"),
        ([{"label": "cat", "mask": {"$image": "iVBORw0K"}}], [{"label": "cat", "mask": "<image PNG, 6 bytes>"}]),
        ({"$image": "not base64!"}, {"$image": "not base64!"}),
        ({"$image": 5}, {"$image": 5}),
        ({"$image": {"url": "https://a.b"}}, {"$image": {"url": "https://a.b"}}),
    ],
)
def test_words_say_what_it_is(value: Any, words: Any) -> None:
    """Kind, format and size stand in the place of media; data stay data."""
    assert in_words(value) == words


def test_save_writes_files_and_prints_their_names(run: Run, broker: MemoryBroker, tmp_path: Path) -> None:
    """Every medium of an answer becomes a file of the right kind, with its name in its place."""
    samples = np.array([[0.5, -0.5], [0.25, 0.1]], "float32")
    answer = {
        "mask": PIL.Image.new("L", (2, 3), 7),
        "depth/map": PIL.Image.new("F", (2, 2), 0.1),
        "rows": [np.arange(3), {"audio": samples, "sampling_rate": 8000}],
        "sound": Audio.of(samples[0], sampling_rate=8000),
        "photo": JPEG,
        "clip": Video.of(np.zeros((1, 2, 2, 3), "uint8")),
        "score": 0.5,
    }
    with testing.answering(broker, "q", lambda _: answer):
        done = run("submit", "q", "x", "--wait", "--json", "--save", str(tmp_path / "out"))
        assert done.exit_code == 0, done.output
        result = json.loads(done.stdout)["result"]
        again = run("submit", "q", "x", "--wait", "--save", str(tmp_path / "out"))
    assert again.exit_code == 2
    assert "is there already" in again.stderr
    out = tmp_path / "out"
    assert result["score"] == 0.5
    assert sorted(path.name for path in out.iterdir()) == [
        "answer.clip.npy",
        "answer.depth-map.tiff",
        "answer.mask.png",
        "answer.photo.jpg",
        "answer.rows.0.npy",
        "answer.rows.1.audio.wav",
        "answer.sound.wav",
    ]
    assert result["mask"] == str(out / "answer.mask.png")
    assert PIL.Image.open(result["mask"]).getpixel((0, 0)) == 7
    assert np.load(result["rows"][0]).tolist() == [0, 1, 2]
    assert result["rows"][1] == {"audio": str(out / "answer.rows.1.audio.wav"), "sampling_rate": 8000}
    data = Path(result["rows"][1]["audio"]).read_bytes()
    assert np.frombuffer(data[44:], "<f4").reshape(2, 2).T.tolist() == samples.tolist()


def test_names_that_read_the_same_get_files_of_their_own(run: Run, broker: MemoryBroker, tmp_path: Path) -> None:
    """Names are cut to what a file's may hold; none is lost for that."""
    answer = {"a b": np.zeros(1), "a-b": np.ones(1), "x" * 50: np.zeros(2), "x" * 51: np.ones(2)}
    with testing.answering(broker, "q", lambda _: answer):
        done = run("submit", "q", "x", "--wait", "--json", "--save", str(tmp_path))
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)["result"]
    assert [np.load(result[name]).tolist() for name in answer] == [[0], [1], [0, 0], [1, 1]]


def test_an_answer_that_cannot_be_saved_is_not_lost(run: Run, broker: MemoryBroker, tmp_path: Path) -> None:
    """The job is named, so that its answer can be asked for again."""
    (tmp_path / "answer.npy").write_bytes(b"")
    with testing.answering(broker, "q", lambda _: np.zeros(1)) as started:
        done = run("submit", "q", "x", "--wait", "--save", str(tmp_path))
    assert done.exit_code == 2
    assert f"pipemill result {started[0].id} --save DIR" in done.stderr


def test_wav_is_read_by_others() -> None:
    """The file is what Python's own reader takes; formats that WAV lacks are no WAV."""
    array = np.array([1, -2, 3], "int16")
    written = wav(Array.of(array), 8000)
    assert written is not None
    with wave.open(io.BytesIO(written[0])) as file:
        assert (file.getnchannels(), file.getframerate(), file.getsampwidth()) == (1, 8000, 2)
        assert np.frombuffer(file.readframes(3), "<i2").tolist() == [1, -2, 3]
    assert wav(Array.of(np.zeros(2, "int64")), 8000) is None


def test_a_broken_answer_ends_with_3(run: Run, broker: MemoryBroker, tmp_path: Path) -> None:
    """Media that can't be read are told; without --save the answer is still to be had."""
    with testing.answering(broker, "q", lambda _: {"$image": "iVBORw0KGgo="}) as started:
        assert run("submit", "q", "x", "--wait").exit_code == 0
    done = run("result", started[0].id, "--save", str(tmp_path))
    assert done.exit_code == 3
    assert "can't be read" in done.stderr
