"""The file in which a worker says how it is, and the command that reads it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipemill.cli import main
from pipemill.health import Health, clear, files_of, numbered, read_health, write_health

WELL = Health(live=True, ready=True)
LOADING = Health(live=True, ready=False, reasons=("starting: models",))
BROKEN = Health(live=False, ready=False, reasons=("thread: forward-cpu has ended",))


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a worker's file would be; no variable names another."""
    for name in ("PIPEMILL_HEALTH_FILE", "PIPEMILL_HEALTH_PORT"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "health.json"


def rewrite(file: Path, **changed: object) -> None:
    """Change what a file says."""
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **changed}), "utf-8")


def call(*arguments: str | Path) -> Result:
    """Run `pipemill health`."""
    return CliRunner().invoke(main, ["health", *map(str, arguments)])


@pytest.mark.parametrize("health", [WELL, LOADING, BROKEN])
def test_what_is_written_is_read(file: Path, health: Health) -> None:
    """A file gives back what was written, and nothing else lies beside it."""
    write_health(file, health)
    assert read_health(file) == health
    assert list(file.parent.iterdir()) == [file]


def test_a_file_that_is_not_there_is_not_live(file: Path) -> None:
    """Without a file there is no worker, and the reason says which file was meant."""
    found = read_health(file)
    assert not found.live
    assert str(file) in found.reasons[0]


def test_a_file_that_is_removed_meanwhile_says_nothing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A supervisor removes that of a process that died, between finding and reading it, too: the others stay live."""
    for number in (1, 2):
        write_health(numbered(file, number), WELL)
    found = [*files_of(file), numbered(file, 3)]
    monkeypatch.setattr("pipemill.health.files_of", lambda _: found)
    assert read_health(file) == WELL
    monkeypatch.setattr("pipemill.health.files_of", lambda _: found[2:])
    assert "there is no" in read_health(file).reasons[0]


def test_an_old_file_is_not_live(file: Path) -> None:
    """What was last written long ago is of a process that hangs, whatever it says."""
    write_health(file, WELL)
    rewrite(file, clock=time.monotonic() - 61)
    assert "hangs or is gone" in read_health(file).reasons[0]
    assert read_health(file, max_age=120).live


def test_a_file_from_before_the_machine_started_is_not_live(file: Path) -> None:
    """The clock starts anew with the machine."""
    write_health(file, WELL)
    rewrite(file, clock=time.monotonic() + 1_000)
    assert "before this machine started" in read_health(file).reasons[0]


def test_the_time_of_day_means_nothing(file: Path) -> None:
    """A clock that is set makes no file old."""
    write_health(file, WELL)
    rewrite(file, at=0)
    assert read_health(file).live


@pytest.mark.parametrize("content", ["", "nonsense", "[]", '{"live": true}', '{"clock": "x"}'])
def test_a_file_that_cannot_be_read_is_not_live(file: Path, content: str) -> None:
    """What isn't a worker's is no sign of life."""
    file.write_text(content, "utf-8")
    found = read_health(file)
    assert not found.live
    assert "can't be read" in found.reasons[0]


def test_a_link_in_the_way_is_not_followed(file: Path) -> None:
    """Whoever lays a link where the worker writes its draft can't make it write elsewhere."""
    precious = file.with_name("precious")
    precious.write_text("mine", "utf-8")
    file.with_name(f".{file.name}.new").symlink_to(precious)
    with pytest.raises(OSError):  # noqa: PT011  # the system's own error, ELOOP
        write_health(file, WELL)
    assert precious.read_text("utf-8") == "mine"


def test_several_processes_are_one(file: Path) -> None:
    """All must live, one must serve, and each reason names its process."""
    write_health(numbered(file, 1), WELL)
    write_health(numbered(file, 2), LOADING)
    assert read_health(file) == Health(live=True, ready=True, reasons=("health-2: starting: models",))
    write_health(numbered(file, 10), BROKEN)
    found = read_health(file)
    assert (found.live, found.ready) == (False, False)
    assert found.reasons[-1] == "health-10: thread: forward-cpu has ended"


def test_other_files_do_not_count(file: Path) -> None:
    """Only numbers make a file one of the processes'."""
    write_health(file, WELL)
    write_health(file.with_name("health-old.json"), BROKEN)
    assert read_health(file) == WELL


def test_what_was_left_behind_is_cleared(file: Path) -> None:
    """The files of processes that are gone, and no others, are removed."""
    other = file.with_name("health-old.json")
    for each in (file, numbered(file, 1), numbered(file, 12), other):
        write_health(each, WELL)
    clear(file)
    assert list(file.parent.iterdir()) == [other]


@pytest.mark.parametrize(
    ("health", "options", "code"),
    [(WELL, [], 0), (WELL, ["--ready"], 0), (LOADING, [], 0), (LOADING, ["--ready"], 9), (BROKEN, [], 9)],
)
def test_the_command_ends_with_what_was_asked(file: Path, health: Health, options: list[str], code: int) -> None:
    """0 if the worker lives, or with --ready serves, and 9 if not; the line says why."""
    write_health(file, health)
    done = call("--file", file, *options)
    assert done.exit_code == code
    assert all(reason in done.stdout for reason in health.reasons)


def test_the_command_prints_json(file: Path) -> None:
    """Programs get both and the reasons."""
    write_health(file, LOADING)
    assert json.loads(call("--file", file, "--json").stdout) == LOADING.to_json()


def test_the_environment_names_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe in the worker's container needs no options."""
    write_health(file, WELL)
    monkeypatch.setenv("PIPEMILL_HEALTH_FILE", str(file))
    assert call().exit_code == 0


@pytest.mark.usefixtures("file")
def test_nothing_to_ask_is_wrong_usage() -> None:
    """Without a file and a port there is nothing to say, and it says what to name."""
    done = call()
    assert done.exit_code == 2
    assert "PIPEMILL_HEALTH_FILE" in done.stderr


@pytest.mark.usefixtures("file")
@pytest.mark.parametrize("url", ["https://host:1", "host:1", "http://:1", "http://host:port"])
def test_a_wrong_url_is_wrong_usage(url: str) -> None:
    """Only a worker's port can be asked."""
    done = call("--url", url)
    assert done.exit_code == 2
    assert "--url" in done.stderr


def test_the_command_loads_nothing_heavy(file: Path) -> None:
    """A probe runs every few seconds, so it loads no pydantic, no redis and nothing of a worker."""
    write_health(file, WELL)
    code = f"""
import sys
from pipemill.cli import main
main(["health", "--file", {str(file)!r}], standalone_mode=False)
heavy = {{"redis", "pydantic", "rich", "asyncio", "torch", "transformers", "celery", "pipemill_worker"}}
print(sorted(heavy & sys.modules.keys()), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
