"""check and version."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Run

ROOT = Path(__file__).parents[3]

GOOD = "queues:\n  echo:\n    task: echo\n"
BAD = "queues:\n  echo:\n    task: ecko\n  local:\n    task: text-classification\n    model: ./gone\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and no variables that say otherwise."""
    monkeypatch.chdir(tmp_path)
    for name in ("PIPEMILL_CATALOGUE", "PIPEMILL_BROKER", "PIPEMILL_DEVICE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.mark.parametrize("arguments", [["my.yaml"], ["--catalogue", "my.yaml"]])
def test_a_catalogue_without_mistakes(run: Run, folder: Path, arguments: list[str]) -> None:
    """A good catalogue ends with 0 and the names of its queues."""
    (folder / "my.yaml").write_text(GOOD)
    done = run("check", *arguments)
    assert done.exit_code == 0
    assert done.stdout == "my.yaml: no mistakes in 1 queue: echo\n"


def test_every_mistake_is_named_with_its_line(run: Run, folder: Path) -> None:
    """Each mistake is a line: where, what, and the mend; models that aren't there count."""
    (folder / "pipemill.yaml").write_text(BAD)
    done = run("check")
    assert done.exit_code == 4
    first, second = done.stdout.splitlines()
    assert first.startswith(
        'pipemill.yaml:3: queues.echo.task: "ecko" is not known here \N{EM DASH} did you mean echo?'
    )
    assert second.startswith("pipemill.yaml:6: queues.local.model: there is no such directory \N{EM DASH} ")


def test_mistakes_as_json(run: Run, folder: Path) -> None:
    """Programs get path, problem, mend and line of each."""
    (folder / "pipemill.yaml").write_text(BAD)
    done = run("check", "--json")
    assert done.exit_code == 4
    found = json.loads(done.stdout)
    assert found["file"] == "pipemill.yaml"
    assert [(each["path"], each["line"]) for each in found["mistakes"]] == [
        ("queues.echo.task", 3),
        ("queues.local.model", 6),
    ]


def test_a_variable_with_a_mistake_is_named(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the environment says is checked as well."""
    (folder / "pipemill.yaml").write_text(GOOD)
    monkeypatch.setenv("PIPEMILL_DEVICE", "gpu")
    done = run("check")
    assert done.exit_code == 4
    assert done.stdout.startswith("pipemill.yaml: PIPEMILL_DEVICE: ")


@pytest.mark.usefixtures("folder")
def test_no_catalogue_is_a_mistake(run: Run) -> None:
    """Without a catalogue there is one mistake: that there is none."""
    done = run("check")
    assert done.exit_code == 4
    assert done.stdout.startswith("there is no catalogue \N{EM DASH} ")


@pytest.mark.parametrize("arguments", [["version"], ["--version"]])
def test_version(run: Run, arguments: list[str]) -> None:
    """Both ways of asking give the version of the installed package."""
    number = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert run(*arguments).stdout == f"pipemill {number}\n"
    assert json.loads(run("version", "--json").stdout) == {"version": number}


def test_a_folder_that_cannot_be_made_is_wrong_usage(run: Run, folder: Path) -> None:
    """The broker's folder is checked before the server starts."""
    (folder / "file").write_text("")
    done = run("broker", "--port", "0", "--folder", "file/below")
    assert done.exit_code == 2
    assert "--folder" in done.stderr
