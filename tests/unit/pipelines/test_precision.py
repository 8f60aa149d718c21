"""What a chosen precision costs and gains: when it is measured, what is told, what is kept."""

from __future__ import annotations

import json
import logging
import math
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipemill.errors import ModelLoadError
from pipemill_worker.measured import Measured
from pipemill_worker.pipelines import identity, load_runner, loading, memory, precision
from pipemill_worker.pipelines.precision import Trial, compared, is_chosen, try_out
from pipemill_worker.seams import Item, Prepared
from tests.unit.pipelines.tiny import Settings, tiny_model, wordpiece_tokenizer


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A queue with a tiny float32 classifier."""
    tokenizer = wordpiece_tokenizer()
    folder = tmp_path / "model"
    for part in (tiny_model("text-classification", "bert", tokenizer), tokenizer):
        part.save_pretrained(folder)
    return Settings(task="text-classification", model=str(folder))


@pytest.fixture
def measured(tmp_path: Path) -> Measured:
    """A place for measurements."""
    return Measured(tmp_path / "measured")


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None]]:
    """The dtype and quantisation of each model that is loaded."""
    seen: list[tuple[str, str | None]] = []
    load: Callable[..., Any] = loading.load_pipeline

    def noting(name: str, settings: Any, **options: Any) -> Any:
        seen.append((settings.dtype, settings.quantisation))
        return load(name, settings, **options)

    monkeypatch.setattr(loading, "load_pipeline", noting)
    return seen


def started(settings: Settings, measured: Measured | None) -> dict[str, Any]:
    """What a runner tells of itself once it is warm."""
    runner = load_runner("mine", settings, threads=1, measured=measured)
    runner.warm_up()
    return runner.describe()


def test_a_choice_is_measured_and_kept(settings: Settings, measured: Measured, loads: list[Any]) -> None:
    """The first start loads the model as saved, then as chosen; the second one knows, and loads it once."""
    chosen = replace(settings, dtype="bfloat16")
    found = started(chosen, measured)["precision"]
    assert loads == [("auto", None), ("bfloat16", None)]
    assert 0 < found["drift"] < 0.1
    assert found["compared"] == 24
    assert found["speed"] > 0
    assert started(chosen, measured)["precision"] == found
    assert loads[2:] == [("bfloat16", None)]


def test_another_choice_is_measured_anew(settings: Settings, measured: Measured, loads: list[Any]) -> None:
    """What is known of one precision says nothing of another."""
    started(replace(settings, dtype="bfloat16"), measured)
    found = started(replace(settings, quantisation="int8-dynamic"), measured)["precision"]
    assert found["drift"] > 0
    assert loads[2:] == [("auto", None), ("auto", "int8-dynamic")]


def test_the_models_own_precision_needs_no_measuring(settings: Settings, measured: Measured, loads: list[Any]) -> None:
    """float32 asked of a float32 checkpoint is no choice: the model is loaded once, and nothing is told."""
    assert "precision" not in started(replace(settings, dtype="float32"), measured)
    assert loads == [("float32", None)]
    assert not measured.folder.exists()


def test_nothing_is_measured_without_a_place_to_keep_it(settings: Settings, loads: list[Any]) -> None:
    """A runner that is built without a cache starts at once."""
    assert "precision" not in started(replace(settings, dtype="bfloat16"), None)
    assert loads == [("bfloat16", None)]


@pytest.mark.parametrize(
    ("change", "chosen"),
    [
        ({}, False),
        ({"dtype": "float32"}, False),
        ({"dtype": "float16"}, True),
        ({"quantisation": "int8"}, True),
        ({"compile": True}, True),
        ({"model": "/nowhere", "dtype": "float32"}, True),
    ],
)
def test_what_is_a_choice(settings: Settings, change: dict[str, Any], chosen: bool) -> None:  # noqa: FBT001  # expected
    """Whatever departs from the checkpoint, or can't be told to be its own."""
    assert is_chosen(replace(settings, **change)) is chosen


def test_the_older_name_of_the_saved_dtype_counts(settings: Settings) -> None:
    """Configurations of older releases of transformers say torch_dtype."""
    file = Path(settings.model or "") / "config.json"
    config = json.loads(file.read_text())
    config["torch_dtype"] = config.pop("dtype")
    file.write_text(json.dumps(config))
    assert not is_chosen(replace(settings, dtype="float32"))


def test_a_model_too_large_as_saved_is_not_loaded_so(
    settings: Settings,
    measured: Measured,
    loads: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It may be why it is quantised: the worker starts without knowing what that costs, and says so."""
    monkeypatch.setattr(memory, "free_memory", lambda: 1_000)
    with caplog.at_level(logging.WARNING, "pipemill.worker"):
        facts = started(replace(settings, dtype="bfloat16"), measured)
    assert facts["precision"] is None
    assert loads == [("bfloat16", None)]
    assert [getattr(each, "event", "") for each in caplog.records] == ["precision_not_measured"]


def test_a_model_that_cannot_be_loaded_as_saved_may_be_as_chosen(
    settings: Settings, measured: Measured, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A GPU without room for the one may have it for the other."""
    load = loading.load_pipeline

    def failing(name: str, settings: Any, **options: Any) -> Any:
        if settings.dtype == "auto":
            raise ModelLoadError("out of memory")
        return load(name, settings, **options)

    monkeypatch.setattr(loading, "load_pipeline", failing)
    with caplog.at_level(logging.WARNING, "pipemill.worker"):
        assert started(replace(settings, dtype="bfloat16"), measured)["precision"] is None
    assert "what its precision costs isn't known: out of memory" in caplog.text


@pytest.mark.parametrize(("speed", "level", "advice"), [(0.5, "WARNING", True), (1.5, "INFO", False)])
def test_what_was_found_is_logged(  # noqa: PLR0913, PLR0917  # fixtures and cases
    settings: Settings,
    measured: Measured,
    caplog: pytest.LogCaptureFixture,
    speed: float,
    level: str,
    advice: bool,  # noqa: FBT001  # an expected value
) -> None:
    """One line at each start, with figures as fields; a choice that only slows down is advised against."""
    chosen = replace(settings, dtype="bfloat16")
    opened = precision.open_precision("mine", chosen, 1, measured)
    assert opened is not None
    measured.write(precision.KIND, opened._key, {"drift": 0.01, "labels_differ": 1, "compared": 24, "speed": speed})
    with caplog.at_level(logging.INFO, "pipemill.worker"):
        started(chosen, measured)
    (record,) = [each for each in caplog.records if getattr(each, "event", "") == "precision_measured"]
    assert (record.levelname, record.__dict__["speed"]) == (level, speed)
    assert ("slower on this machine" in record.getMessage()) is advice


def test_scores_are_compared_where_labels_agree() -> None:
    """Another label counts as one, not as a distance; a job that one of the two couldn't run counts nowhere."""
    plain = Trial(answers=[{"label": "a", "score": 0.5}, {"label": "a", "score": 0.5}, 1.0, None], seconds=[4, 2, 3, 9])
    chosen = Trial(
        answers=[{"label": "a", "score": 0.7}, {"label": "b", "score": 0.5}, None, 1.0], seconds=[1, 2, math.inf, 9]
    )
    found = compared(plain, chosen)
    assert found.pop("drift") == pytest.approx(0.2)
    assert found == {"labels_differ": 1, "compared": 2, "speed": 2.0}


def test_nothing_to_compare() -> None:
    """A model whose jobs nobody can write has no figures."""
    nothing = Trial(answers=[None], seconds=[math.inf])
    assert compared(nothing, nothing) == {"drift": None, "labels_differ": 0, "compared": 0, "speed": None}


class Slow:
    """A runner whose passes take the times that it is given."""

    def __init__(self, times: Iterator[float]):
        self._times = times
        self.now = 0.0

    def prepare_checked(self, inputs: Any, _: dict[str, Any]) -> Prepared:
        """Two items."""
        return Prepared([Item(None, 1, inputs), Item(None, 1, inputs)])

    def forward(self, items: Sequence[Item]) -> Sequence[Any]:
        """Each item's payload."""
        if items[0].payload == "lost":
            raise RuntimeError("device")
        if items[0].payload == "strange":
            raise ValueError("another form")
        self.now += next(self._times)
        return [item.payload for item in items]

    def finish(self, _: Prepared, outputs: Sequence[Any]) -> Any:
        """Both of them."""
        return list(outputs)

    def is_device_lost(self, error: BaseException) -> bool:
        """Whether the device is gone."""
        return "device" in str(error)


def test_the_quickest_run_of_a_job_counts() -> None:
    """A job's passes are added up, and the best of its runs is taken; jobs that fail are left out."""
    runner: Any = Slow(iter([5.0, 5.0, 7.0, 7.0, 1.0, 2.0, *[9.0] * 10]))
    trial = try_out(runner, [("a", {}), ("strange", {}), ("b", {})], lambda: runner.now)
    assert trial.answers == [["a", "a"], None, ["b", "b"]]
    assert trial.seconds == [3.0, math.inf, 14.0]


def test_a_lost_device_ends_the_start() -> None:
    """What no restart of a job can mend isn't hidden."""
    runner: Any = Slow(iter([]))
    with pytest.raises(RuntimeError, match="device"):
        try_out(runner, [("lost", {})])


def test_free_memory_is_the_least_that_is_told(tmp_path: Path) -> None:
    """The machine's, or what is left of a control group's bound; what could be dropped is free."""
    machine = tmp_path / "meminfo"
    machine.write_text("MemTotal:  9000 kB\nMemAvailable:    4000 kB\n")
    membership = tmp_path / "cgroup"
    membership.write_text("0::/service\n4:memory:/docker/abc\n")

    def free() -> int | None:
        return memory.free_memory(machine, membership, tmp_path)

    assert free() == 4_096_000
    (tmp_path / "memory.max").write_text("max\n")
    assert free() == 4_096_000
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("700000\n")
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 100000\n")
    assert free() == 400_000
    (tmp_path / "service").mkdir()
    (tmp_path / "service/memory.max").write_text("300000\n")  # As systemd's MemoryMax= sets it.
    assert free() == 300_000
    (tmp_path / "memory").mkdir()  # As version 1 has it in a container.
    (tmp_path / "memory/memory.limit_in_bytes").write_text("200000\n")
    (tmp_path / "memory/memory.usage_in_bytes").write_text("150000\n")
    (tmp_path / "memory/memory.stat").write_text("inactive_file 1\ntotal_inactive_file 10000\n")
    assert free() == 60_000
    assert memory.free_memory(tmp_path / "none", tmp_path / "none", tmp_path) is None


def test_what_others_need_is_left_to_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue's copies take nothing that the queues behind it, or other processes, are to load yet."""
    for name, size in (("first", 1_000), ("second", 300)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "model.safetensors").write_bytes(bytes(size))
    named: list[Any] = [Settings(task="feature-extraction", model=str(tmp_path / name)) for name in ("first", "second")]
    named += [Settings(task="feature-extraction", model=str(tmp_path / "nowhere")), Settings(task="echo", model=None)]
    assert memory.shares(named) == [memory.Share(300), *[memory.Share()] * 3]
    assert memory.shares(named, 3) == [memory.Share(2_900, 3), *[memory.Share(2_600, 3)] * 3]
    monkeypatch.setattr(memory, "free_memory", lambda: 3_500)
    assert [memory.Share(2_900, 3).allows(copies) for copies in (100, 101)] == [True, False]


def test_a_model_fits_twice_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model needs its weights' bytes, and as many again; where nothing tells, it is tried."""
    (tmp_path / "model.safetensors").write_bytes(bytes(1_000))
    for free, answer in ((2_000, True), (1_999, False), (None, True)):
        monkeypatch.setattr(memory, "free_memory", lambda free=free: free)
        assert memory.fits(tmp_path) is answer


def test_processors_of_one_name_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what they can: a name may stand for generations. Of several cores the first is meant."""

    def told(text: str) -> str:
        (tmp_path / "cpuinfo").write_text(text)
        monkeypatch.setattr(identity, "_CPU_INFO", tmp_path / "cpuinfo")
        return identity._processor()

    one = told("model name\t: AMD EPYC\nmodel\t\t: 1\nflags\t\t: avx2\n\nmodel name\t: AMD EPYC\nmodel\t\t: 9\n")
    assert one.startswith("AMD EPYC ")
    assert told("model name\t: AMD EPYC\nmodel\t\t: 1\nflags\t\t: avx2\n") == one
    assert told("model name\t: AMD EPYC\nmodel\t\t: 1\nflags\t\t: avx2 avx512f\n") != one
    assert told("CPU part\t: 0xd40\n") != told("CPU part\t: 0xd4f\n")
    assert told("") == (platform.processor() or platform.machine())
