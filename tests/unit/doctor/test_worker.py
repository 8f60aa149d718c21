"""What a worker needs of its machine, judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from pipemill.catalogue import Catalogue, QueueSettings, load_catalogue
from pipemill.doctor import Verdict
from pipemill_worker import doctor
from pipemill_worker.doctor import Devices, Gpu, check_packages, checks, judge_devices, judge_model, missing_files
from pipemill_worker.pipelines import hub
from pipemill_worker.pipelines.loading import needs

COMMIT = "0123456789abcdef0123456789abcdef01234567"
A_GPU = Gpu(name="A100", free=79_000_000_000, total=80_000_000_000)


def catalogue(folder: Path, text: str) -> Catalogue:
    """Write and load a catalogue."""
    file = folder / "pipemill.yaml"
    file.write_text(text, "utf-8")
    return load_catalogue(file, environ={})


def queue(**given: Any) -> QueueSettings:
    """A queue's settings."""
    return QueueSettings.model_validate({"task": "echo", **given})


def model(folder: Path, *files: str) -> Path:
    """A folder with these files."""
    folder.mkdir(exist_ok=True)
    for file in files:
        (folder / file).write_text("{}", "utf-8")
    return folder


def test_a_whole_model_lacks_nothing(tmp_path: Path) -> None:
    """Configuration and safetensors are enough, in one file or in several; an adapter has its own."""
    assert missing_files(model(tmp_path / "one", "config.json", "model.safetensors")) == ""
    assert missing_files(model(tmp_path / "adapter", "adapter_config.json", "adapter_model.safetensors")) == ""


@pytest.mark.parametrize(
    ("files", "text"),
    [([], "config.json"), (["config.json"], "its weights"), (["config.json", "pytorch_model.bin"], "its weights")],
)
def test_what_a_model_lacks_is_named(tmp_path: Path, files: list[str], text: str) -> None:
    """Pickles are no weights."""
    assert text in missing_files(model(tmp_path / "model", *files))
    assert missing_files(tmp_path / "gone") == "its folder"


def test_a_download_that_was_broken_off_is_noticed(tmp_path: Path) -> None:
    """Of weights in several files, each one that the index lists must be there."""
    folder = model(tmp_path / "model", "config.json", "a.safetensors")
    index = {"weight_map": {"x": "a.safetensors", "y": "b.safetensors", "z": "b.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")
    assert missing_files(folder) == "1 of the 2 files of its weights"


def test_a_model_that_is_not_here_counts_where_it_cannot_be_downloaded(tmp_path: Path) -> None:
    """Online the first worker downloads it; offline nobody does."""
    found = [judge_model("q", "org/name", COMMIT, None, offline=offline) for offline in (False, True)]
    assert [finding.verdict for finding in found] == [Verdict.WARNING, Verdict.PROBLEM]
    assert all("pipemill fetch" in finding.mend for finding in found)
    whole = model(tmp_path / "model", "config.json", "model.safetensors")
    assert judge_model("q", "org/name", COMMIT, whole, offline=True).verdict is Verdict.OK


def test_the_hub_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look into the cache downloads nothing, for a model as for its adapter."""
    asked: list[bool] = []

    def snapshot(*_: Any, local_files_only: bool, **__: Any) -> str:
        asked.append(local_files_only)
        raise LocalEntryNotFoundError("not in the cache")

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    settings = queue(task="fill-mask", model="org/name", revision=COMMIT, adapter="org/other", adapter_revision=COMMIT)
    findings = list(doctor.check_models("q", settings, offline=True))
    assert asked == [True, True]
    assert [finding.verdict for finding in findings] == [Verdict.PROBLEM] * 2


def test_packages_of_a_task_are_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that a task can't do without is named with how to install it."""
    (finding,) = check_packages({"table-question-answering", "fill-mask"})
    assert finding.verdict is Verdict.OK
    monkeypatch.setattr(needs.importlib.util, "find_spec", lambda _: None)
    finding, other = check_packages({"table-question-answering", "fill-mask"})
    assert (finding.verdict, other.verdict) == (Verdict.PROBLEM, Verdict.OK)
    assert "fill-mask" in other.seen
    assert "pandas" in finding.seen
    assert "pipemill[tables]" in finding.mend


@pytest.mark.parametrize(
    ("device", "devices", "verdicts"),
    [
        ("auto", Devices(), [Verdict.SKIPPED]),
        ("cpu", Devices(driver=True), [Verdict.WARNING]),
        ("cuda", Devices(), [Verdict.PROBLEM, Verdict.SKIPPED]),
        ("cuda:1", Devices(gpus=[A_GPU]), [Verdict.PROBLEM, Verdict.OK]),
        ("cuda:1", Devices(gpus=[A_GPU, A_GPU]), [Verdict.OK, Verdict.OK]),
        ("mps", Devices(mps=True), [Verdict.OK]),
        ("mps", Devices(gpus=[A_GPU]), [Verdict.PROBLEM, Verdict.OK]),
        ("auto", Devices(gpus=[Gpu(name="A100", free=1, total=80)]), [Verdict.WARNING]),
    ],
)
def test_devices_are_judged_by_what_queues_name(device: str, devices: Devices, verdicts: list[Verdict]) -> None:
    """A device that a queue names must be there; one that others fill is told of."""
    findings = list(judge_devices({"q": queue(device=device)}, devices))
    assert [finding.verdict for finding in findings] == verdicts
    wrong = {Verdict.WARNING, Verdict.PROBLEM}
    assert all(finding.mend for finding in findings if finding.verdict in wrong)


def test_the_round_over_a_real_catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A builtin model on this very machine passes, as does a folder for large media that can be written."""
    monkeypatch.setattr(doctor, "look_at_devices", Devices)
    text = f"""
blobs: {{location: "file://{tmp_path}/blobs"}}
queues: {{sentiment: {{task: text-classification, model: "builtin:sentiment"}}, echo: {{task: echo}}}}
"""
    (tmp_path / "blobs").mkdir()
    findings = list(checks(catalogue(tmp_path, text)))
    assert [(finding.area, finding.name, finding.verdict) for finding in findings] == [
        ("packages", "versions", Verdict.OK),
        ("packages", "tasks", Verdict.OK),
        ("models", "sentiment", Verdict.OK),
        ("device", "gpu", Verdict.SKIPPED),
        ("blobs", "location", Verdict.OK),
    ]


def test_a_place_that_cannot_be_used_is_a_problem(tmp_path: Path) -> None:
    """The doctor tries the place as a worker does when it starts."""
    (tmp_path / "file").write_text("", "utf-8")
    text = f'{{blobs: {{location: "file://{tmp_path}/file/below"}}, queues: {{echo: {{task: echo}}}}}}'
    (finding,) = doctor.check_place(catalogue(tmp_path, text))
    assert finding.verdict is Verdict.PROBLEM
    assert "blobs.location" in finding.seen


def test_a_worker_that_is_installed_in_part_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With torch alone this is no producer's machine: what is missing is named."""
    monkeypatch.setattr(doctor, "find_spec", lambda name: None if name == "celery" else object())
    (finding,) = checks(catalogue(tmp_path, "queues: {echo: {task: echo}}"))
    assert finding.verdict is Verdict.PROBLEM
    assert finding.seen == "not installed: celery"


def test_this_machines_devices_can_be_looked_at() -> None:
    """Whatever there is, torch can be asked."""
    assert all(gpu.total >= gpu.free >= 0 for gpu in doctor.look_at_devices().gpus)
