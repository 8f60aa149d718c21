"""Jobs that hold sounds, and those that ask for one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from tests.tasks.media import RATE, from_wav, sound_envelope, tone, wav_envelope
from tests.tasks.rows import Job

#: Lengths in seconds; some are equal, so that they may share a pass by their shape.
SECONDS: Final = (0.5, 0.8, 0.5, 1.1, 0.8, 0.5, 2.3, 0.5)


def per_sound(*parameters: Mapping[str, Any]) -> list[Job]:
    """One job for each length, each with the next parameters, every third as a file; and one with two sounds."""
    jobs = []
    for number, seconds in enumerate(SECONDS):
        samples = tone(number, seconds)
        asked = parameters[number % len(parameters)]
        if number % 3 == 2:
            jobs.append(Job(inputs=wav_envelope(samples), direct=from_wav(samples), parameters=asked))
        else:
            jobs.append(Job(inputs=sound_envelope(samples), direct=samples, parameters=asked))
    pair = [tone(90, 0.5), tone(91, 0.7)]
    jobs.append(Job(inputs=[sound_envelope(sound) for sound in pair], direct=pair, parameters=parameters[0]))
    return jobs


def recognise_ctc(_: Path) -> list[Job]:
    """Jobs of ``automatic-speech-recognition`` for models that write letter by letter."""
    long = tone(80, 2.3)
    chunks = {"chunk_length_s": 1.1, "stride_length_s": [0.2, 0.1]}
    return [
        *per_sound({}, {"return_timestamps": "char"}, {"chunk_length_s": 1}, {"return_timestamps": "word"}),
        Job(inputs=sound_envelope(long), direct={"raw": long, "sampling_rate": RATE}, parameters=chunks),
    ]


def recognise_whisper(_: Path) -> list[Job]:
    """Jobs of ``automatic-speech-recognition`` for a model that writes token by token; one is longer than it hears."""
    greedy = {"num_beams": 1, "max_new_tokens": 12}
    long = tone(80, 4.5)
    drawn = tone(81, 0.9)
    sampled = {"generate_kwargs": {"do_sample": True, "max_new_tokens": 12}, "seed": 11}
    return [
        *per_sound(
            {"generate_kwargs": greedy},
            {"generate_kwargs": {"max_new_tokens": 8}},
            {"generate_kwargs": {**greedy, "language": "de", "task": "translate"}},
            {"generate_kwargs": greedy, "return_timestamps": True},
            {"generate_kwargs": greedy, "return_language": True},
        ),
        # Of shorter ones, the end of the sound is reached at once, and there is nothing to time words by.
        *(
            Job(
                inputs=sound_envelope(sound),
                direct=sound,
                parameters={"generate_kwargs": greedy, "return_timestamps": "word"},
            )
            for sound in (tone(82, 2.3), tone(83, 2.9))
        ),
        Job(
            inputs=sound_envelope(long),
            direct=long,
            parameters={"generate_kwargs": {"num_beams": 1}, "return_timestamps": True},
        ),
        Job(inputs=sound_envelope(long), direct=long, parameters={"chunk_length_s": 2, "generate_kwargs": greedy}),
        Job(inputs=sound_envelope(drawn), direct=drawn, parameters=sampled),
    ]


def classify(_: Path) -> list[Job]:
    """Jobs of ``audio-classification``."""
    return per_sound({}, {"top_k": 2}, {"function_to_apply": "sigmoid"}, {"function_to_apply": "none"})


def label(_: Path) -> list[Job]:
    """Jobs of ``zero-shot-audio-classification``: equal labels, other labels, fewer labels, another template."""
    few, many = ["river", "stone"], ["music", "engine", "clock", "cloud"]
    return per_sound(
        {"candidate_labels": few},
        {"candidate_labels": many},
        {"candidate_labels": few},
        {"candidate_labels": few, "hypothesis_template": "this is a {}"},
    )


def speak(_: Path) -> list[Job]:
    """Jobs of ``text-to-audio``; each has a seed, since each call sounds otherwise."""
    texts: list[Any] = ["hello", "a river", "the clock is silver", "hello", "what was this", ["a stone", "the paper"]]
    return [Job(inputs=text, parameters={"seed": 3 + number // 2}) for number, text in enumerate(texts)]


JOBS: Final[dict[str, Callable[[Path], list[Job]]]] = {
    "automatic-speech-recognition.wav2vec2-group": recognise_ctc,
    "automatic-speech-recognition.wav2vec2-layer": recognise_ctc,
    "automatic-speech-recognition.whisper": recognise_whisper,
    "audio-classification.wav2vec2": classify,
    "audio-classification.ast": classify,
    "zero-shot-audio-classification.clap": label,
    "text-to-audio.vits": speak,
}
