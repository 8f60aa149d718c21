"""Other engines that write, over the trained generator that ships with the worker: routing, failures, each engine."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pipemill.catalogue.model import QueueSettings
from pipemill.errors import InvalidInput, ModelLoadError
from pipemill_worker.pipelines import load_runner
from pipemill_worker.pipelines.loading.pipeline import load_pipeline
from pipemill_worker.pipelines.runner import TransformersRunner
from pipemill_worker.pipelines.writing.engines import vllm_engine
from pipemill_worker.pipelines.writing.engines.continuous import Continuous
from pipemill_worker.pipelines.writing.engines.rows import EngineFailedError, News, Row, RowEngine, choice_of
from pipemill_worker.pipelines.writing.engines.vllm_engine import Vllm
from pipemill_worker.pipelines.writing.items import PipelineWriter
from pipemill_worker.seams import JOINS
from tests.helpers import until
from tests.unit.pipelines.test_writing import WAYS, WORDS, direct, item_of, runner, written

STAND_IN = Path(__file__).parent / "stand_in"
#: The Python that has the real one (`scripts/bootstrap-generation`).
VLLM_PYTHON = Path(__file__).parents[4] / ".venv-vllm/bin/python"
GREEDY = {"do_sample": False}


def queue(**options: Any) -> QueueSettings:
    """Settings of a queue with the demo's generator."""
    return QueueSettings.model_validate(
        {"task": "text-generation", "model": "builtin:generator", "device": "cpu", **options}, context={"folder": None}
    )


class Scripted:
    """Takes the best by whole passes, a token a step; refuses and fails as a test says."""

    def __init__(self, max_tokens: int = 256) -> None:
        self._model = runner().pipe.model
        self.max_tokens = max_tokens
        self.ready = True
        self.rows: dict[str, tuple[Row, list[int]]] = {}
        self.added: list[Row] = []
        self.fails_in: int | None = None
        self.refuses: Callable[[Row], bool] = lambda _: False

    def knows(self, choice: Mapping[str, float]) -> bool:
        return choice == {"temperature": 0.0}

    def add(self, rows: Sequence[Row]) -> None:
        self._look()
        self.added += rows
        self.rows.update((row.name, (row, [])) for row in rows)

    def drop(self, names: Collection[str]) -> None:
        for name in names:
            self.rows.pop(name, None)

    def clear(self) -> None:
        self.rows.clear()

    def news(self, *, wait: bool) -> Sequence[News]:  # noqa: ARG002 - the seam's
        self._look()
        told = []
        for name, (row, tokens) in list(self.rows.items()):
            if self.refuses(row):
                del self.rows[name]
                told.append(News(name, over=True, refused="not this one"))
                continue
            with torch.inference_mode():
                tokens.append(int(self._model(input_ids=torch.tensor([[*row.ids, *tokens]])).logits[0, -1].argmax()))
            over = len(tokens) >= row.most or tokens[-1] in row.ends
            if over:
                del self.rows[name]
            told.append(News(name, tokens[-1:], over))
        return told

    def close(self) -> None:
        self.rows.clear()

    def _look(self) -> None:
        if self.fails_in is not None:
            self.fails_in -= 1
            if self.fails_in < 0:
                self.fails_in, self.ready = None, False
                self.rows.clear()
                raise EngineFailedError("as the test says")


def writer_over(engine: RowEngine, *, max_tokens: int = 4_096) -> PipelineWriter:
    """A writer of the demo's model and an engine."""
    threads = runner()._threads
    return PipelineWriter(
        runner().pipe.model, lambda: threads.stages, max_rows=32, max_tokens=max_tokens, engine=engine
    )


def greedy(count: int, **more: Any) -> list[tuple[str, dict[str, Any]]]:
    """Prompts that take the best."""
    return [(" ".join(WORDS[: 1 + n % 12]), {**GREEDY, "max_new_tokens": 3 + n % 9, **more}) for n in range(count)]


def check(writer: PipelineWriter, jobs: Sequence[tuple[str, Mapping[str, Any]]], arrive: int = 3) -> None:
    """Each job's answer is that of its own direct call."""
    prepared, items = zip(*(item_of(*job) for job in jobs), strict=True)
    assert {item.group for item in items} == {JOINS}
    outputs = written(writer, items, arrive)
    assert [runner().finish(each, [outputs[n]]) for n, each in enumerate(prepared)] == [direct(*job) for job in jobs]


def test_an_engine_writes_what_it_knows_and_we_the_rest() -> None:
    """Of all ways to write, the engine gets those it knows; every answer is that of the direct call."""
    engine = Scripted()
    jobs = [(" ".join(WORDS[: 1 + n]), {"max_new_tokens": 8, **way}) for n, way in enumerate(WAYS)] + greedy(9)
    check(writer_over(engine), jobs)
    assert len(engine.added) == 9 + sum(way in (GREEDY, {**GREEDY, "return_full_text": False}) for way in WAYS) + 1
    assert all(row.choice == {"temperature": 0.0} for row in engine.added)


def test_what_stops_at_a_text_is_stopped_by_us() -> None:
    """The engine knows tokens only: a text of its own ends where the direct call would, within the token."""
    engine = Scripted()
    pipe = runner().pipe
    _, item = item_of("the food", {**GREEDY, "max_new_tokens": 12})
    stops = {"stop_strings": ["a"], "tokenizer": pipe.tokenizer}
    item.payload = replace(item.payload, forward={**item.payload.forward, **stops})
    (output,) = written(writer_over(engine), [item], 1).values()
    ids = item.payload.inputs["input_ids"]
    expected = pipe.model.generate(input_ids=ids, max_new_tokens=12, do_sample=False, **stops)
    assert output["generated_sequence"].reshape(-1).tolist() == expected[0].tolist()
    assert len(expected[0]) < len(ids[0]) + 12
    assert len(engine.added) == 1
    assert engine.rows == {}


def test_what_an_engine_refuses_we_write() -> None:
    """A refused prompt is written by us, its neighbours by the engine."""
    engine = Scripted()
    engine.refuses = lambda row: len(row.ids) % 2 == 0
    check(writer_over(engine), greedy(12))


@pytest.mark.parametrize("fails_in", [0, 1, 4, 9])
def test_a_failing_engine_loses_nothing(fails_in: int) -> None:
    """Wherever it fails, in joining or in writing, all that it had is written by us from the beginning."""
    engine = Scripted()
    engine.fails_in = fails_in
    check(writer_over(engine), greedy(14))
    assert not engine.ready


def test_too_long_for_us_waits_for_the_engine() -> None:
    """A text that only the engine has room for waits until it is back."""
    engine = Scripted()
    writer = writer_over(engine, max_tokens=20)
    prepared, item = item_of(" ".join(WORDS), {**GREEDY, "max_new_tokens": 20})
    assert writer.offer(item)
    engine.fails_in = 2
    for _ in range(5):
        assert writer.step() == []
    assert not engine.ready
    _, late = item_of("the food and the service", {**GREEDY, "max_new_tokens": 30})
    assert not writer.offer(late)
    engine.ready = True
    ended: list[Any] = []
    while writer.busy:
        ended += writer.step()
    (answer,) = ended
    assert runner().finish(prepared, [answer[1]]) == direct(" ".join(WORDS), {**GREEDY, "max_new_tokens": 20})


def test_what_fits_nowhere_is_refused_at_the_door() -> None:
    """A prompt too long for the engine and for us is its own fault."""
    writer = writer_over(Scripted(max_tokens=30), max_tokens=20)
    _, item = item_of("the food", {**GREEDY, "max_new_tokens": 40})
    with pytest.raises(InvalidInput, match="don't fit into the 30 tokens"):
        writer.takes(item.payload.inputs, item.payload.forward)


def test_unknown_tokens_never_reach_an_engine() -> None:
    """One would end vLLM's process: our own writer fails with it alone."""
    engine = Scripted()
    writer = writer_over(engine)
    _, item = item_of("the food", {**GREEDY, "max_new_tokens": 4})
    item.payload = replace(item.payload, inputs={**item.payload.inputs, "input_ids": torch.tensor([[5, 999_999]])})
    assert writer.offer(item)
    with pytest.raises(IndexError):
        writer.step()
    assert engine.added == []


def test_what_leaves_is_dropped_there() -> None:
    """Cancelled prompts are dropped; after a failed step the engine is cleared."""
    engine = Scripted()
    writer = writer_over(engine)
    items = [item_of(*job)[1] for job in greedy(6, max_new_tokens=12)]
    assert all(writer.offer(item) for item in items)
    writer.step()
    writer.leave(items[:4])
    assert len(engine.rows) == 2
    writer.clear()
    assert engine.rows == {}
    assert not writer.busy


def test_followers_are_told_by_either() -> None:
    """Tokens written by the engine and by us are told in their order."""
    writer = writer_over(Scripted())
    jobs = [*greedy(2), ("the food was", {**GREEDY, "max_new_tokens": 6, "no_repeat_ngram_size": 2})]
    items = [item_of(*job)[1] for job in jobs]
    told: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for number, item in enumerate(items):
        item.follower = number
        assert writer.offer(item)
    outputs: dict[int, Any] = {}
    while writer.busy:
        outputs.update((id(item), output) for item, output in writer.step())
        for number, token in writer.told:
            told[number].append(token)
    for number, item in enumerate(items):
        sequence = outputs[id(item)]["generated_sequence"].reshape(-1).tolist()
        assert sequence[-len(told[number]) :] == told[number]
        assert len(sequence) - len(told[number]) == item.payload.length


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        (GREEDY, {"temperature": 0.0}),
        ({**GREEDY, "repetition_penalty": 1.3}, {"temperature": 0.0, "repetition_penalty": 1.3}),
        ({**GREEDY, "min_new_tokens": 3}, {"temperature": 0.0, "min_tokens": 3}),
        ({**GREEDY, "no_repeat_ngram_size": 2}, None),
        (
            {"do_sample": True, "temperature": 0.5, "top_k": 4, "top_p": 0.75, "min_p": 0.25},
            {"temperature": 0.5, "top_k": 4, "top_p": 0.75, "min_p": 0.25, "seed": 7},
        ),
    ],
)
def test_choices_by_their_names(way: dict[str, Any], expected: dict[str, float] | None) -> None:
    """What a job asks for, by vLLM's names; nothing where there is no name for it."""
    _, item = item_of("the food", {"max_new_tokens": 9, **way})
    draft = runner()._threads.stages.draft(item.payload.inputs, item.payload.forward)
    assert draft is not None
    assert choice_of(draft, 7) == expected


def test_continuous_batching_writes_the_same() -> None:
    """Transformers' own continuous batching, beside our writer: every answer is that of the direct call."""
    engine = Continuous(fresh_model(), max_rows=32, max_tokens=4_096)
    try:
        jobs = [(" ".join(WORDS[: 1 + n]), {"max_new_tokens": 8, **way}) for n, way in enumerate(WAYS)] + greedy(9)
        check(writer_over(engine), jobs)
    finally:
        engine.close()


def test_continuous_batching_begins_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """When its thread ends in the middle, nothing is lost, and the next prompts are its own again."""
    engine = Continuous(fresh_model(), max_rows=32, max_tokens=4_096)
    model, failing, begin, begun = engine._model, iter([False, False, True]), engine._begin, list[int]()

    def fail(*_: Any) -> None:
        if next(failing, False):
            raise RuntimeError("a kernel of its own")

    def begin_again() -> None:
        begun.append(1)
        begin()

    monkeypatch.setattr(engine, "_begin", begin_again)
    try:
        with model.register_forward_pre_hook(fail):
            check(writer_over(engine), greedy(9))
        assert next(failing, None) is None
        check(writer_over(engine), greedy(9))
        assert len(begun) == 2
    finally:
        engine.close()


def fresh_model() -> Any:
    """The same model once more, as a worker has it before a writer lays its weights out."""
    made: Any = load_pipeline("texts", queue(), threads=1)
    return made.model


def opened(settings: QueueSettings) -> Vllm:
    """The process of vLLM, on the demo's generator: memory for 16,384 tokens."""
    model = runner().pipe.model
    return vllm_engine.open_vllm(settings, model, max_rows=32, cache_bytes=1 << 25, max_tokens=1 << 14)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[Vllm]:
    """The process of vLLM, with what stands in for it."""
    monkeypatch.setenv("PYTHONPATH", str(STAND_IN))
    settings = queue(engine="vllm", vllm_python=sys.executable)
    engine = opened(settings)
    yield engine
    engine.close()


def test_vllm_is_a_process_of_its_own(stand_in: Vllm) -> None:
    """Rows go there and come back by lines; what it refuses, all that draws by chance, is written by us."""
    jobs = [*greedy(9), *greedy(3, min_new_tokens=3), ("the food", {"max_new_tokens": 5, "seed": 3})]
    check(writer_over(stand_in), jobs)
    assert stand_in.max_tokens == 256


def test_vllm_that_dies_is_begun_again(stand_in: Vllm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in the middle, it loses nothing: its texts are written by us, and later ones by its next process."""
    monkeypatch.setattr(vllm_engine, "AGAIN_SECONDS", 0.0)
    writer = writer_over(stand_in)
    jobs = greedy(9, max_new_tokens=12)
    prepared, items = zip(*(item_of(*job) for job in jobs), strict=True)
    assert all(writer.offer(item) for item in items)
    writer.step()
    assert stand_in._process is not None
    stand_in._process.kill()
    outputs: dict[int, Any] = {}
    while writer.busy:
        outputs.update((id(item), output) for item, output in writer.step())
    for job, each, item in zip(jobs, prepared, items, strict=True):
        assert runner().finish(each, [outputs[id(item)]]) == direct(*job)
    until(lambda: stand_in.ready, "its next process is ready")
    check(writer_over(stand_in), jobs)


def test_vllm_that_isnt_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python without it, and no Python at all, say where to look."""
    monkeypatch.setenv("PYTHONPATH", str(STAND_IN))
    monkeypatch.setenv("STAND_IN", "broken")
    with pytest.raises(ModelLoadError, match=r"no such library here\); see docs/batching.md"):
        load_runner("texts", queue(engine="vllm", vllm_python=sys.executable))
    with pytest.raises(ModelLoadError, match=r"No such file.*\); see docs/batching.md"):
        load_runner("texts", queue(engine="vllm", vllm_python="/nowhere/python"))


def test_vllm_knows_no_secret_and_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process has none of the worker's own variables, and sees the GPU that the queue names."""
    monkeypatch.setenv("PIPEMILL_BROKER", "redis://:secret@host")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert not {"PIPEMILL_BROKER", "HF_TOKEN"} & vllm_engine._environment("auto").keys()
    assert vllm_engine._environment("auto")["CUDA_VISIBLE_DEVICES"] == "4,6"
    assert vllm_engine._environment("cuda:1")["CUDA_VISIBLE_DEVICES"] == "6"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert vllm_engine._environment("cuda:1")["CUDA_VISIBLE_DEVICES"] == "1"


@pytest.mark.parametrize(("places", "held", "expected"), [(256, 1_000, 256), (131_072, 5_000, 4_864), (None, 100, 1)])
def test_vllm_is_asked_for_no_longer_texts_than_it_has_memory_for(places: int | None, held: int, expected: int) -> None:
    """It would refuse to begin with a model of 131,072 places and memory for fewer."""
    assert vllm_engine._longest(SimpleNamespace(max_position_embeddings=places), held) == expected


def test_a_queue_with_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the catalogue's settings to answers; the self-check keeps what was chosen, whatever it finds."""
    made = load_runner("texts", queue(engine="continuous"), threads=1)
    assert isinstance(made, TransformersRunner)
    assert isinstance(made.writer, PipelineWriter)
    monkeypatch.setattr("pipemill_worker.pipelines.warming.difference", lambda *_: 1.0)
    made.warm_up()
    assert made.describe()["writes_together"]
    assert made.describe()["engine"] == "continuous"
    assert made.writer._engine is not None
    made.writer._engine.close()


@pytest.mark.skipif(not VLLM_PYTHON.is_file(), reason="vLLM isn't installed here: scripts/bootstrap-generation does it")
def test_the_real_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts of all ways through vLLM itself: greedy answers are the direct call's."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    settings = queue(engine="vllm", vllm_python=str(VLLM_PYTHON))
    engine = opened(settings)
    try:
        jobs = greedy(24)
        writer = writer_over(engine)
        prepared, items = zip(*(item_of(*job) for job in jobs), strict=True)
        outputs = written(writer, items, 3)
        answers = [runner().finish(each, [outputs[n]]) for n, each in enumerate(prepared)]
        assert answers == [direct(*job) for job in jobs]
        sampled = [("the food", {"max_new_tokens": 9, "do_sample": True, "seed": 3, "num_return_sequences": 3})] * 2
        prepared, items = zip(*(item_of(*job) for job in sampled), strict=True)
        outputs = written(writer, items, 1)
        first, second = (runner().finish(each, [outputs[n]]) for n, each in enumerate(prepared))
        assert first == second
        assert len(first) == 3
    finally:
        engine.close()


def test_the_program_needs_nothing_of_ours() -> None:
    """It is run by another Python: it imports the standard library only, and vLLM by its name."""
    program = ast.parse(vllm_engine.PROGRAM.read_text(encoding="utf-8"))
    modules = {each.name for node in ast.walk(program) if isinstance(node, ast.Import) for each in node.names}
    modules |= {node.module or "" for node in ast.walk(program) if isinstance(node, ast.ImportFrom)}
    assert {"importlib", "json"} <= modules <= sys.stdlib_module_names
