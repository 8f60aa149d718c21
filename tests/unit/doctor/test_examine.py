"""The doctor's round: what can't be looked at is told, and one failing check leaves the others."""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pipemill.catalogue import Catalogue, load_catalogue
from pipemill.cli import main
from pipemill.doctor import Finding, Verdict
from pipemill.doctor import examination as examining
from pipemill.doctor.examination import examine, examine_catalogue, run_check

#: Nothing listens on this port: it is reserved, and no free port is ever so low.
NOBODY = "redis://:secret@127.0.0.1:1/0"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A catalogue, in a working directory without any other; no variables, and no checks from elsewhere."""
    monkeypatch.chdir(tmp_path)
    for name in ("PIPEMILL_CATALOGUE", "PIPEMILL_BROKER", "PIPEMILL_DEVICE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(examining, "entry_points", lambda **_: [])
    path = tmp_path / "my.yaml"
    path.write_text("queues: {words: {task: echo}}", "utf-8")
    return path


class Point:
    """An entry point that loads what a test says."""

    name = "worker"

    def __init__(self, loaded: Any):
        self._loaded = loaded

    def load(self) -> Any:
        """Give it, or raise it."""
        if isinstance(self._loaded, Exception):
            raise self._loaded
        return self._loaded


def checked(loaded: Any, catalogue: Catalogue | None) -> list[Finding]:
    """Run a check."""
    point: Any = Point(loaded)
    return run_check(point, catalogue)


def test_a_broker_that_is_away_is_one_problem(file: Path) -> None:
    """The rest of the broker's checks would say the same again; the password is in none of it."""
    findings = examine(NOBODY, file)
    assert [(finding.area, finding.verdict) for finding in findings] == [
        ("catalogue", Verdict.OK),
        ("broker", Verdict.PROBLEM),
    ]
    assert "no answer from the broker" in findings[1].seen
    assert "secret" not in str(findings)


def test_a_url_that_is_none_is_a_problem(file: Path) -> None:
    """A wrong URL is told by what gave it, for the catalogue as for the broker."""
    findings = examine("http://:secret@host", file)
    assert {finding.verdict for finding in findings} == {Verdict.PROBLEM}
    assert "redis://" in findings[-1].seen + findings[-1].mend
    assert "secret" not in str(findings)


def test_each_mistake_of_the_catalogue_is_a_problem(file: Path) -> None:
    """Models that aren't there count, each with its line and its mend."""
    file.write_text("queues:\n  a: {task: ecko}\n  b:\n    task: fill-mask\n    model: ./gone\n", "utf-8")
    findings, loaded = examine_catalogue(None, file)
    assert loaded is None
    assert [(finding.name, finding.verdict) for finding in findings] == [
        ("queues.a.task", Verdict.PROBLEM),
        ("queues.b.model", Verdict.PROBLEM),
    ]
    assert "line 5" in findings[1].seen
    assert all(finding.mend for finding in findings)


def test_without_a_catalogue_its_checks_are_skipped(file: Path) -> None:
    """A producer needs none."""
    file.unlink()
    findings, loaded = examine_catalogue(None, None)
    assert loaded is None
    assert [finding.verdict for finding in findings] == [Verdict.SKIPPED]
    assert checked(None, None)[0].verdict is Verdict.SKIPPED


def test_a_machine_without_a_workers_packages_is_no_fault(file: Path) -> None:
    """What only workers need is skipped on a producer's machine, and says what a worker's would need."""
    (finding,) = checked(ModuleNotFoundError("No module named 'torch'", name="torch"), load_catalogue(file))
    assert finding.verdict is Verdict.SKIPPED
    assert "torch" in finding.seen
    assert 'pip install "pipemill[worker]"' in finding.mend


def test_a_package_that_cannot_be_loaded_is_a_problem(file: Path) -> None:
    """A torch whose libraries are missing isn't a producer's machine."""
    (finding,) = checked(ImportError("libcudart.so.13: cannot open shared object file"), load_catalogue(file))
    assert finding.verdict is Verdict.PROBLEM
    assert "libcudart" in finding.seen


def test_a_check_that_fails_is_told(file: Path) -> None:
    """An error of a check is a problem of its own, and no end of the round."""

    def broken(_: Catalogue) -> Iterable[Finding]:
        raise KeyError("x")

    (finding,) = checked(broken, load_catalogue(file))
    assert finding.verdict is Verdict.PROBLEM
    assert "KeyError" in finding.seen


def test_checks_of_other_parts_are_run(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an entry point of the group names is called with the catalogue."""
    monkeypatch.setattr(examining, "entry_points", lambda **_: [Point(double)])
    assert examine(NOBODY, file)[-1] == Finding(area="double", name="words", verdict=Verdict.OK, seen="seen")


def double(catalogue: Catalogue) -> list[Finding]:
    """A check of a test's own."""
    return [Finding(area="double", name=name, verdict=Verdict.OK, seen="seen") for name in catalogue.queues]


def test_the_command_ends_with_9_when_there_is_a_problem(file: Path) -> None:
    """Each finding is a line with its mend below, and the last line counts them."""
    done = CliRunner().invoke(main, ["doctor", "--broker", NOBODY, "--catalogue", str(file)])
    assert done.exit_code == 9
    assert done.stdout.splitlines()[1].startswith("problem  broker · answers: no answer from the broker")
    assert "→" in done.stdout.splitlines()[2]
    assert done.stdout.splitlines()[-1] == "1 ok, 1 problem"


def test_the_command_prints_json(file: Path) -> None:
    """Programs get the verdict and every finding by name."""
    done = CliRunner().invoke(main, ["doctor", "--broker", NOBODY, "--catalogue", str(file), "--json"])
    assert done.exit_code == 9
    document = json.loads(done.stdout)
    assert document["verdict"] == "problem"
    assert {tuple(sorted(check)) for check in document["checks"]} == {("area", "mend", "name", "seen", "verdict")}


def test_the_entry_point_names_a_function() -> None:
    """What pyproject.toml names is there, and importing it loads no torch."""
    point = EntryPoint(name="worker", value="pipemill_worker.doctor:checks", group=examining.GROUP)
    assert callable(point.load())
