"""Texts of encoder-decoders and what Whisper hears, through a real broker and real workers."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from pipemill import Client
from tests.e2e.rig import Serve, report_on
from tests.e2e.test_streams import Follower, frozen_while_it_tells, read
from tests.tasks.compare import assert_same
from tests.tasks.matrix import ROWS
from tests.tasks.media import sound_envelope, tone
from tests.tasks.rows import Job, call_directly, load_direct
from tests.unit.pipelines.own.models import own_pipeline
from tests.unit.pipelines.test_writing_sources import KINDS, direct, prompts
from tests.unit.pipelines.tiny import sentence

pytestmark = pytest.mark.usefixtures("one_thread")

QUEUES = """
worker: {{lease_seconds: 2, torch_threads: 1, max_deliveries: 10}}
queues:
  rewrite: {{task: text2text-generation, model: {folder}/bart, device: cpu, prefetch: 64}}
  hear: {{task: automatic-speech-recognition, model: {folder}/whisper, device: cpu, prefetch: 64}}
"""
WHISPER = ROWS["automatic-speech-recognition.whisper"]


def queues(folder: Path) -> str:
    """Two models, and a queue for each."""
    pipe = own_pipeline("text2text-generation", "bart", **KINDS["bart"])
    for part in (pipe.model, pipe.tokenizer):
        part.save_pretrained(folder / "bart")
    WHISPER.build(folder / "whisper")
    return QUEUES.format(folder=folder)


def test_mixed_jobs_are_answered_as_alone(serve: Serve, client: Client, tmp_path: Path) -> None:
    """Beams, draws, penalties and lengths; sounds of one window and of several: each is its own direct call's."""
    worker = serve(queues(tmp_path))
    texts = prompts(66)
    sounds = [
        (tone(number, seconds), {"generate_kwargs": {"max_new_tokens": 9, "num_beams": 1 + number % 3}, **more})
        for number, (seconds, more) in enumerate([(0.5, {}), (2.0, {}), (5.0, {"return_timestamps": True})] * 3)
    ]
    written = [client.submit("rewrite", *job) for job in texts]
    heard = [client.submit("hear", sound_envelope(sound), parameters) for sound, parameters in sounds]
    for job, result in zip(texts, client.results(written, timeout=300), strict=True):
        assert result.get() == direct("bart", *job)
    pipe = load_direct(WHISPER, tmp_path / "whisper")
    for (sound, parameters), result in zip(sounds, client.results(heard, timeout=300), strict=True):
        assert_same(result.get(), call_directly(pipe, Job(inputs=None, direct=sound, parameters=parameters)))
    for queue in ("rewrite", "hear"):
        (lane,) = report_on(client, queue).lanes.values()
        assert lane["writes_together"]
    assert worker.stop() == 0


def test_texts_outlive_their_worker(serve: Serve, client: Client, tmp_path: Path) -> None:
    """After kill -9 every stream begins anew, and ends complete and right; and searches beside them end right, too."""
    texts = [sentence(random.Random(number), 5, 20) for number in range(30)]
    long = {"max_new_tokens": 100, "min_new_tokens": 80, "num_beams": 1}
    searched = {"max_new_tokens": 30, "min_new_tokens": 20, "num_beams": 3}
    catalogue = queues(tmp_path)
    worker = serve(catalogue)
    beams = [client.submit("rewrite", text, searched) for text in texts[20:]]
    follower = Follower(serve.broker, [client.submit("rewrite", text, long, stream=True).id for text in texts[:20]])
    with frozen_while_it_tells(worker, follower):
        worker.kill()
    second = serve(catalogue)
    follower.wait()
    assert follower.errors == {}
    for text, events in zip(texts, follower.events.values(), strict=False):
        (answer,) = direct("bart", text, long)
        assert read(events) == answer["generated_text"]
    for text, result in zip(texts[20:], client.results(beams, timeout=300), strict=True):
        assert result.get() == direct("bart", text, searched)
    assert second.stop() == 0
