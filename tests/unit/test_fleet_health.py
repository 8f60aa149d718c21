"""Several processes tell how they are: each in a file and at a port of its own."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from pipemill.errors import ConfigurationError
from pipemill.health import Health, numbered, write_health
from pipemill_worker.fleet import launch, process
from pipemill_worker.fleet.plan import ProcessPlan
from pipemill_worker.fleet.process import Child
from tests.helpers import until
from tests.unit.test_fleet_supervisor import COMMAND

PLAN = ProcessPlan(number=2, cores=tuple(sorted(os.sched_getaffinity(0))), gpus=(), threads=1)


def test_each_process_has_its_own_file_and_port() -> None:
    """They are numbered like the processes; the environment says so, whatever the catalogue says to all."""
    environment = replace(COMMAND, health_file=Path("run/health.json"), health_port=8090).environment(PLAN)
    assert environment["PIPEMILL_HEALTH_FILE"] == "run/health-2.json"
    assert environment["PIPEMILL_HEALTH_PORT"] == "8091"


@pytest.mark.parametrize("first", [None, 65_535 - 3])
def test_ports_that_are_there(first: int | None) -> None:
    """Without a port, and up to the last one, all is well."""
    launch.check_ports(first, 4)


def test_ports_beyond_the_last_are_a_mistake() -> None:
    """It says which port would do."""
    with pytest.raises(ConfigurationError, match="set it to 65532 at most"):
        launch.check_ports(65_533, 4)


def test_a_dead_process_has_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its supervisor starts it again: nobody is to be told how it was."""
    command = replace(COMMAND, health_file=tmp_path / "health.json")
    monkeypatch.setattr(process.Command, "arguments", lambda *_: ["true"])
    write_health(numbered(tmp_path / "health.json", 1), Health(live=True, ready=True))
    child = Child(PLAN, command)
    write_health(numbered(tmp_path / "health.json", 2), Health(live=True, ready=True))
    until(lambda: child.ended() is not None, "the process ends")
    child.close()
    child.close()
    assert [path.name for path in tmp_path.iterdir()] == ["health-1.json"]


def test_what_lies_in_the_way_is_told(tmp_path: Path) -> None:
    """A file that the supervisor can't remove is a mistake of the setting."""
    numbered(tmp_path / "health.json", 1).mkdir()
    with pytest.raises(ConfigurationError, match=r"worker\.health_file: .*can't be removed"):
        launch._clear(tmp_path / "health.json")
