"""The traps of batching media: each shown to be there in transformers' own batches, and avoided in ours."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipemill_worker.pipelines.factory import load_runner
from pipemill_worker.pipelines.rules import Sharing
from pipemill_worker.pipelines.writing.items import PipelineWriter
from pipemill_worker.seams import JOINS
from tests.tasks.bench import Bench
from tests.tasks.compare import assert_same
from tests.tasks.media import drawn, image_envelope, sound_envelope, tone
from tests.tasks.rows import Job, call_directly
from tests.unit.pipelines.tiny import Run, Settings, finish_batched, unchecked


def runner_of(bench: Bench, key: str) -> Any:
    """A runner over a row's model."""
    return load_runner(key, Settings(task=bench.row(key).task, model=str(bench.model(key))), validate=unchecked)


def run_together(runner: Any, jobs: Sequence[tuple[Any, dict[str, Any]]]) -> Run:
    """All jobs at once, in batches as their group keys allow."""
    return finish_batched(runner, [runner.prepare(inputs, parameters) for inputs, parameters in jobs])


def sounds(*seconds: float) -> list[NDArray[np.float32]]:
    """Sounds of these lengths, each another."""
    return [tone(number, length) for number, length in enumerate(seconds)]


@pytest.mark.parametrize("kind", ["group", "layer"])
def test_ctc_tails_are_not_heard(bench: Bench, kind: str) -> None:
    """Sounds of other lengths in a batch make transformers write what it hears in the padding; here none does."""
    key = f"automatic-speech-recognition.wav2vec2-{kind}"
    pipe, runner = bench.pipeline(key), runner_of(bench, key)
    heard = sounds(0.3, 1.9, 0.3, 1.1)
    alone = [pipe(sound.copy()) for sound in heard]
    batched = pipe([sound.copy() for sound in heard], batch_size=4)
    assert batched != alone, "transformers' own batch is right now: the rule for this task may be relaxed"
    run = run_together(runner, [(sound_envelope(sound), {}) for sound in heard])
    assert run.answers == alone
    assert max(run.batches) == 2  # The two of equal length.


def test_wav2vec2_labels_stay(bench: Bench) -> None:
    """A short sound beside a long one gets other scores from transformers; here it gets its own."""
    key = "audio-classification.wav2vec2"
    pipe, runner = bench.pipeline(key), runner_of(bench, key)
    heard = sounds(0.3, 1.9, 0.3, 1.1)
    alone = [pipe(sound.copy()) for sound in heard]
    batched = pipe([sound.copy() for sound in heard], batch_size=4)
    with pytest.raises(AssertionError):
        assert_same(batched, alone)
    run = run_together(runner, [(sound_envelope(sound), {}) for sound in heard])
    assert_same(run.answers, alone)


def test_each_image_is_judged_by_its_own_labels(bench: Bench) -> None:
    """In one batch, transformers judges all images by the first one's labels; here each is judged by its own."""
    key = "zero-shot-image-classification.clip"
    pipe, runner = bench.pipeline(key), runner_of(bench, key)
    labels = [["river", "stone"], ["music", "engine", "clock"], ["river", "stone"]]
    jobs = [(image_envelope(drawn(number)), {"candidate_labels": each}) for number, each in enumerate(labels)]
    run = run_together(runner, jobs)
    for number, (answer, each) in enumerate(zip(run.answers, labels, strict=True)):
        assert_same(answer, pipe(drawn(number), candidate_labels=each))
        assert {entry["label"] for entry in answer} == set(each)
    assert sorted(run.batches) == [1, 2]


def test_each_sound_is_judged_by_its_own_labels(bench: Bench) -> None:
    """As images, so sounds."""
    key = "zero-shot-audio-classification.clap"
    pipe, runner = bench.pipeline(key), runner_of(bench, key)
    labels = [["river", "stone"], ["music", "engine", "clock"], ["river", "stone"]]
    heard = sounds(0.5, 0.5, 0.5)
    jobs = [(sound_envelope(heard[number]), {"candidate_labels": each}) for number, each in enumerate(labels)]
    run = run_together(runner, jobs)
    for answer, sound, each in zip(run.answers, heard, labels, strict=True):
        assert_same(answer, pipe(sound, candidate_labels=each))
    assert sorted(run.batches) == [1, 2]


@pytest.mark.parametrize("key", ["object-detection.detr", "image-segmentation.mask2former"])
def test_images_of_mixed_sizes(bench: Bench, key: str) -> None:
    """Images of mixed sizes make transformers' batch raise or answer otherwise; here only equal sizes share."""
    pipe, runner = bench.pipeline(key), runner_of(bench, key)
    images = [drawn(number, *size) for number, size in enumerate(((32, 32), (64, 32), (32, 32), (32, 64)))]
    alone = [pipe(image.copy()) for image in images]
    with pytest.raises((RuntimeError, AssertionError)):
        assert_same(pipe([image.copy() for image in images], batch_size=4), alone)
    run = run_together(runner, [(image_envelope(image), {}) for image in images])
    assert_same(run.answers, alone)
    assert max(run.batches) == 2


def test_a_retry_sees_the_same_inputs(bench: Bench) -> None:
    """Pipelines write into what they are given; a job prepared and run again answers the same, its inputs unchanged."""
    for key in (
        "automatic-speech-recognition.whisper",
        "table-question-answering.tapas",
        "zero-shot-image-classification.clip",
        "image-text-to-text.llava",
        "object-detection.detr",
    ):
        runner = runner_of(bench, key)
        for job, direct in list(zip(bench.jobs(key), bench.answers(key), strict=True))[:3]:
            inputs, parameters = copy.deepcopy(job.inputs), copy.deepcopy(dict(job.parameters))
            for _ in range(2):
                prepared = runner.prepare(inputs, parameters)
                runner.forward(prepared.items[:1])  # As when a batch failed, and its items run alone.
                answer = finish_batched(runner, [prepared]).answers[0]
                assert_same(answer, direct, path=key)
            assert inputs == job.inputs
            assert parameters == dict(job.parameters)


def test_draws_are_the_seeded_direct_calls(bench: Bench) -> None:
    """A job with a seed draws what the direct call draws after torch.manual_seed, lists and chunks included."""
    key = "text-generation.llama"
    runner = runner_of(bench, key)
    seeded = [job for job in bench.jobs(key) if "seed" in job.parameters]
    assert any(isinstance(job.inputs, list) for job in seeded)
    for job in seeded:
        prepared = runner.prepare(job.inputs, dict(job.parameters))
        assert [item.group for item in prepared.items] in ([None], [JOINS])
        assert_same(finish_batched(runner, [prepared]).answers[0], call_directly(bench.pipeline(key), job))


def test_answers_written_in_a_batch_end_where_they_would_alone(bench: Bench) -> None:
    """Rows that end early are filled up to the longest of their batch; what is decoded ends where it would alone."""
    for key in ("summarization.bart", "text2text-generation.t5", "image-text-to-text.blip"):
        assert runner_of(bench, key).sharing is not Sharing.SOLO
        run = run_together(runner_of(bench, key), [(job.inputs, dict(job.parameters)) for job in bench.jobs(key)])
        assert max(run.batches) > 1
        assert_same(run.answers, bench.answers(key), path=key)


def test_an_image_is_prepared_once_for_all_its_labels(bench: Bench) -> None:
    """Transformers prepares it anew for each label; two hundred copies of its pixels would fill a worker's memory."""
    runner = runner_of(bench, "zero-shot-object-detection.owlvit")
    inputs = [image_envelope(drawn(number)) for number in range(2)]
    prepared = runner.prepare(inputs, {"candidate_labels": ["river", "stone", "clock"]})
    pixels = [item.payload.inputs["pixel_values"].data_ptr() for item in prepared.items]
    assert [pixels.count(each) for each in dict.fromkeys(pixels)] == [3, 3]


def test_a_stop_texts_tokenizer_is_the_forward_threads(bench: Bench) -> None:
    """A tokenizer belongs to one thread: what waits for its forward pass holds none, and answers as the direct call."""
    key = "image-text-to-text.llava"
    runner = runner_of(bench, key)
    parameters = {"generate_kwargs": {"max_new_tokens": 6, "do_sample": False}, "stop_sequence": "e"}
    prepared = runner.prepare({"images": image_envelope(drawn(1)), "text": "<image>what"}, copy.deepcopy(parameters))
    assert not hasattr(prepared.items[0].payload.forward["generate_kwargs"]["tokenizer"], "encode")
    direct = bench.pipeline(key)(images=drawn(1), text="<image>what", **copy.deepcopy(parameters))
    assert_same(finish_batched(runner, [prepared]).answers[0], direct)


def test_prompts_with_images_are_written_together(bench: Bench) -> None:
    """Different images behind equal words, and other words: the writer's rows are each its direct call's."""
    key = "image-text-to-text.llava"
    runner = runner_of(bench, key)
    parameters = {"generate_kwargs": {"max_new_tokens": 6, "do_sample": False}}
    asked = [
        (drawn(number), f"<image>what is {word}") for number, word in enumerate(("this", "this", "this", "that now"))
    ]
    inputs = [{"images": image_envelope(image), "text": text} for image, text in asked]
    prepared = [runner.prepare(each, copy.deepcopy(parameters)) for each in inputs]
    assert {item.group for each in prepared for item in each.items} == {JOINS}
    direct = [bench.pipeline(key)(images=image, text=text, **copy.deepcopy(parameters)) for image, text in asked]
    assert_same(finish_batched(runner, prepared).answers, direct)
    assert [runner.spelling(each) for each in prepared] == [None] * len(prepared)


def test_whispers_are_written_together(bench: Bench) -> None:
    """Draws at a temperature, which need no do_sample, windows after windows, languages heard: each as its own call."""
    key = "automatic-speech-recognition.whisper"
    runner = runner_of(bench, key)
    asked: list[tuple[Any, dict[str, Any]]] = [
        (tone(number, seconds), {"generate_kwargs": {"max_new_tokens": 9, **settings}, **more})
        for number, seconds, settings, more in (
            (1, 0.5, {"temperature": 0.5}, {"seed": 3}),
            (2, 1.5, {"temperature": [0.0, 0.5]}, {"seed": 4}),
            (3, 1.0, {"num_beams": 1}, {}),
            (4, 2.9, {"num_beams": 3, "language": "en"}, {}),
            (5, 7.5, {"num_beams": 1}, {"return_timestamps": True}),
            (6, 6.5, {"num_beams": 2}, {"return_timestamps": True}),
            (7, 2.0, {"num_beams": 1}, {"return_language": True}),
            (8, 0.2, {"num_beams": 1, "task": "translate"}, {}),
        )
    ]
    prepared = [runner.prepare(sound_envelope(sound), copy.deepcopy(parameters)) for sound, parameters in asked]
    assert {item.group for each in prepared for item in each.items} == {JOINS}
    words = runner.prepare(sound_envelope(tone(9, 3.5)), {"return_timestamps": "word"})
    runner.forward(words.items)  # After that, transformers' own attention is another.
    direct = [
        call_directly(bench.pipeline(key), Job(inputs=None, direct=sound, parameters=parameters))
        for sound, parameters in asked
    ]
    assert_same(finish_batched(runner, prepared).answers, direct)
    narrow = PipelineWriter(
        runner.pipe.model, lambda: runner._threads.stages, max_rows=1, max_tokens=1_000, places=runner.writer._places
    )
    outputs = narrow.write_all([item for each in prepared for item in each.items])
    one_by_one = [runner.finish(each, [output]) for each, output in zip(prepared, outputs, strict=True)]
    assert_same(one_by_one, direct)


@pytest.mark.parametrize("settings", [{"num_return_sequences": 2}, {"condition_on_prev_tokens": True}])
def test_whispers_of_another_course_run_apart(bench: Bench, settings: dict[str, Any]) -> None:
    """Several answers are rows of one batch there, and windows that go by those before have masks of their own."""
    runner = runner_of(bench, "automatic-speech-recognition.whisper")
    parameters = {"generate_kwargs": {"max_new_tokens": 5, **settings}, "return_timestamps": True}
    (item,) = runner.prepare(sound_envelope(tone(1, 5.0)), parameters).items
    assert item.group != JOINS


@pytest.mark.parametrize("beams", [1, 3])
def test_a_sound_is_encoded_once(bench: Bench, beams: int) -> None:
    """Whisper listens for the language before it writes; and nothing runs while a job is prepared."""
    runner = runner_of(bench, "automatic-speech-recognition.whisper")
    passes: list[int] = []
    hook = runner.pipe.model.get_encoder().register_forward_pre_hook(lambda *_: passes.append(1))
    parameters = {"generate_kwargs": {"num_beams": beams, "max_new_tokens": 4}}
    prepared = [runner.prepare(sound_envelope(tone(number, 0.5)), copy.deepcopy(parameters)) for number in range(3)]
    assert passes == []
    finish_batched(runner, prepared)
    hook.remove()
    assert passes == [1, 1, 1]
