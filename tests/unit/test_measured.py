"""Measurements kept between starts."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from pipemill_worker.measured import Measured, default_folder

KEY = {"model": "m", "threads": 1}


def test_what_is_written_is_read_under_the_same_key_only(tmp_path: Path) -> None:
    """Another kind or another key finds nothing."""
    Measured(tmp_path / "new").write("curve", KEY, [1, {"a": None}])
    found = Measured(tmp_path / "new")
    assert found.read("curve", dict(reversed(KEY.items()))) == [1, {"a": None}]
    assert found.read("curve", {**KEY, "threads": 2}) is None
    assert found.read("other", KEY) is None


def test_a_broken_file_is_measured_again(tmp_path: Path) -> None:
    """What can't be read counts as not measured, and is replaced."""
    measured = Measured(tmp_path)
    measured.write("curve", KEY, 1)
    measured.path("curve", KEY).write_text("{", "utf-8")
    assert measured.read("curve", KEY) is None
    measured.write("curve", KEY, 2)
    assert measured.read("curve", KEY) == 2
    assert [file.name for file in tmp_path.iterdir()] == [measured.path("curve", KEY).name]


def test_a_folder_that_cant_be_used_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The worker goes on, and its operator reads which folder and which setting."""
    (tmp_path / "file").write_text("", "utf-8")
    measured = Measured(tmp_path / "file")
    with caplog.at_level(logging.WARNING):
        measured.write("curve", KEY, 1)
        measured.write("curve", KEY, 1)
    assert measured.read("curve", KEY) is None
    (record,) = caplog.records
    assert "worker.cache_dir" in record.getMessage()


def test_the_folder_is_in_the_users_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """XDG's variable decides, else ~/.cache."""
    monkeypatch.setenv("HOME", "/home/me")
    assert default_folder({"XDG_CACHE_HOME": "/cache"}) == Path("/cache/pipemill")
    assert default_folder({}) == Path("/home/me/.cache/pipemill")
