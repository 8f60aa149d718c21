"""The command group: what it loads, and how it ends when something goes wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from pipemill.cli import commands, main
from pipemill.cli.commands import COMMANDS
from pipemill.cli.common import Invocation
from pipemill.errors import BrokerUnavailable, QueueFull
from tests.unit.cli.conftest import Run

DOCUMENTATION = Path(__file__).parents[3] / "docs/cli.md"


class EntryPoint:
    """An entry point of a command that can't be loaded, or isn't one."""

    def __init__(self, loaded: object):
        self._loaded = loaded

    def load(self) -> object:
        """Raise what there is to raise."""
        if isinstance(self._loaded, Exception):
            raise self._loaded
        return self._loaded


def offer(monkeypatch: pytest.MonkeyPatch, loaded: object) -> None:
    """Make the worker command's entry point load this."""
    monkeypatch.setattr(commands, "entry_points", lambda **_: [EntryPoint(loaded)])


def failing(error: BaseException) -> Invocation:
    """An invocation whose client can't be opened."""

    def connect(_: Invocation) -> Any:
        raise error

    return Invocation(connect=connect)


def test_help_lists_every_command(run: Run) -> None:
    """The help names each command with its line."""
    shown, width = run("--help").output, max(map(len, COMMANDS)) + 2
    for name, entry in COMMANDS.items():
        assert f"  {name:<{width}}{entry.help}" in shown


def test_help_and_completion_load_nothing_heavy() -> None:
    """Listing and completing the commands imports none of them, no redis, no pydantic, no rich."""
    code = """
import sys
from click.shell_completion import ShellComplete
from pipemill.cli import main
found = ShellComplete(main, {}, "pipemill", "_PIPEMILL_COMPLETE").get_completions([], "w")
assert [item.value for item in found] == ["worker"], found
main(["--help"], standalone_mode=False)
heavy = {"redis", "pydantic", "rich", "torch", "transformers", "celery", "pipemill_worker"}
print(sorted(heavy & sys.modules.keys()), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_completion_offers_options() -> None:
    """A dash completes to the options of the command line."""
    found = ShellComplete(main, {}, "pipemill", "_PIPEMILL_COMPLETE").get_completions([], "--t")
    assert [item.value for item in found] == ["--traceback"]


@pytest.mark.parametrize("name", [name for name, entry in COMMANDS.items() if entry.where])
def test_the_list_says_what_the_command_says(name: str) -> None:
    """A command's line in the list is the first line of its own help."""
    command = commands.load(name)
    assert command is not None
    assert command.get_short_help_str(limit=100) == COMMANDS[name].help


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_documented(name: str) -> None:
    """The reference has a section for each command, with an example that calls it."""
    section = DOCUMENTATION.read_text(encoding="utf-8").partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    assert f"$ pipemill {name}" in section or f"| pipemill {name}" in section


def test_unknown_command_is_wrong_usage(run: Run) -> None:
    """An unknown command ends with 2."""
    assert run("sumbit").exit_code == 2


def test_missing_extra_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command whose packages aren't installed says what to install."""
    offer(monkeypatch, ModuleNotFoundError("No module named 'torch'", name="torch"))
    done = run("worker")
    assert done.exit_code == 4
    assert 'pip install "pipemill[worker]"' in done.stderr
    assert "torch" in done.stderr


def test_missing_extra_is_named_when_it_is_missed_late(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that imports its packages when it runs says the same."""

    @click.command()
    def worker() -> None:
        raise ModuleNotFoundError("No module named 'celery'", name="celery")

    offer(monkeypatch, worker)
    done = run("worker")
    assert done.exit_code == 4
    assert 'pip install "pipemill[worker]"' in done.stderr


def test_a_fault_of_ours_is_no_missing_extra(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """An import error within pipemill isn't blamed on the installation."""
    offer(monkeypatch, ImportError("cannot import name 'x'", name="pipemill_worker.engine"))
    done = run("worker")
    assert done.exit_code == 1
    assert "unexpected ImportError" in done.stderr


def test_an_entry_point_that_is_no_command_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry point that names something else is an error that says which."""
    offer(monkeypatch, print)
    done = run("worker")
    assert done.exit_code == 1
    assert "pipemill.commands" in done.stderr


def test_a_worker_command_ends_with_its_own_code(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The code with which a worker ends is handed on."""

    @click.command()
    def worker() -> None:
        sys.exit(70)

    offer(monkeypatch, worker)
    assert run("worker").exit_code == 70


def test_an_unexpected_error_is_one_line() -> None:
    """An error that isn't of ours ends with 1 and one line, which says how to see more."""
    done = CliRunner().invoke(main, ["status", "a"], obj=failing(KeyError("x")))
    assert done.exit_code == 1
    assert done.stderr == "Error: unexpected KeyError: 'x' (`pipemill --traceback ...` shows where)\n"


def test_traceback_shows_where() -> None:
    """With --traceback the error itself comes out."""
    done = CliRunner().invoke(main, ["--traceback", "status", "a"], obj=failing(KeyError("x")))
    assert isinstance(done.exception, KeyError)


def test_errors_are_json_when_asked_for() -> None:
    """With --json an error is JSON on stderr, and stdout is empty."""
    done = CliRunner().invoke(main, ["status", "a", "--json"], obj=failing(BrokerUnavailable("no answer")))
    assert done.exit_code == 5
    assert done.stdout == ""
    assert json.loads(done.stderr) == {"error": {"type": "BrokerUnavailable", "message": "no answer"}}


def test_a_full_queue_says_when_to_come_back() -> None:
    """The JSON of a full queue has the seconds to wait."""
    done = CliRunner().invoke(main, ["status", "a", "--json"], obj=failing(QueueFull("full", 2.5)))
    assert done.exit_code == 6
    assert json.loads(done.stderr)["error"]["retry_after"] == 2.5


def test_ctrl_c_ends_with_130() -> None:
    """Ctrl-C ends with the code that shells know for it."""
    done = CliRunner().invoke(main, ["status", "a"], obj=failing(KeyboardInterrupt()))
    assert done.exit_code == 130
    assert done.stderr == "Error: interrupted\n"


def test_a_reader_that_went_away_ends_it_quietly() -> None:
    """A broken pipe is no error to tell of."""
    done = CliRunner().invoke(main, ["status", "a"], obj=failing(BrokenPipeError(32, "Broken pipe")))
    assert done.exit_code == 1
    assert done.stderr == ""
