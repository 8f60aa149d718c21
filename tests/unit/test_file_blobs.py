"""Large bytes in files: their folders, their retention, and what is said when the place can't be used."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipemill.catalogue.model import BlobSettings
from pipemill.errors import BlobStoreError, BrokerError, ConfigurationError, MissingExtra, SourceUnavailable
from pipemill.store.blobs import MemoryBlobs
from pipemill.store.files import FileBlobs, due_folders, files_of, tiered

#: fsspec ships no type hints.
LocalFileSystem: Any = import_module("fsspec.implementations.local").LocalFileSystem
NOON = datetime(2026, 3, 10, 12, tzinfo=UTC).timestamp()
DAY = 86_400


@pytest.fixture
def files(tmp_path: Path) -> FileBlobs:
    """A place in a folder, at noon of a day."""
    return FileBlobs(f"file://{tmp_path}", retention_days=7, now=lambda: NOON)


@pytest.fixture
def broken(files: FileBlobs) -> Iterator[Mock]:
    """The file system of that place, which refuses everything."""
    broken = Mock(protocol="file")
    for name in ("makedirs", "pipe_file", "info", "cat_file", "rm_file", "ls"):
        getattr(broken, name).side_effect = PermissionError("Access Denied")
    files.__dict__["_place"] = (broken, "root")
    return broken


@pytest.mark.parametrize(
    ("days", "due"),
    [
        (0, ["2024-02-29", "2026-03-02", "2026-03-09"]),
        (1, ["2024-02-29", "2026-03-02"]),
        (7, ["2024-02-29", "2026-03-02"]),
        (8, ["2024-02-29"]),
        (365, ["2024-02-29"]),
    ],
)
def test_a_folder_is_due_when_its_whole_days_are_over(days: int, due: list[str]) -> None:
    """A day is kept for so many whole days after its own; other names are nobody's business, nor is the future."""
    names = ["2026-03-11", "2026-03-10", "2026-03-09", "2026-03-02", "2024-02-29"]
    others = [
        "",
        ".",
        "..",
        "2026-02-30",
        "2026-3-1",
        "20260301",
        "2026-03-01.bak",
        "2026-W10-1",
        "other",
        "2026-03-01\n",
    ]
    assert due_folders([*names, *others], date(2026, 3, 10), days) == due


@given(st.dates(date(2000, 1, 1), date(2100, 1, 1)), st.dates(date(2000, 1, 1), date(2100, 1, 1)), st.integers(1, 365))
def test_due_is_told_by_the_difference_in_days(folder: date, today: date, days: int) -> None:
    """For any two days: due exactly when more than the retention lies between them."""
    assert bool(due_folders([folder.isoformat()], today, days)) is ((today - folder).days > days)


@pytest.mark.parametrize(
    ("ttl", "day"), [(1, "2026-03-10"), (7 * DAY, "2026-03-10"), (8 * DAY, "2026-03-11"), (37 * DAY, "2026-04-09")]
)
def test_what_must_outlive_the_retention_lies_in_a_later_folder(files: FileBlobs, ttl: int, day: str) -> None:
    """Today's folder unless it would be swept before the time that was asked for."""
    reference = files.put(b"data", ttl)
    assert reference.startswith(f"files:{day}/")
    last = datetime.fromtimestamp(NOON + ttl, UTC).date()
    assert files.sweep(last, 7) == 0
    assert files.get(reference) == b"data"


def test_a_sweep_deletes_whole_days_and_nothing_else(files: FileBlobs, tmp_path: Path) -> None:
    """Old days go with all that is in them; younger ones and what isn't ours stays."""
    for name in ("2026-03-02", "2026-03-01", "2026-03-03", "mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(b"data")
    (tmp_path / "note").write_bytes(b"data")
    assert files.sweep_now() == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2026-03-03", "mine", "note"]
    assert files.sweep_now() == 0


def test_a_place_that_nobody_wrote_to_has_nothing_to_sweep(tmp_path: Path) -> None:
    """The folder is made by the first write, not before."""
    assert FileBlobs(f"file://{tmp_path}/none").sweep_now() == 0
    assert list(tmp_path.iterdir()) == []


def test_two_sweeps_at_once_do_no_harm(files: FileBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that another worker deletes meanwhile isn't counted, and the next is still looked at."""
    for name in ("2026-03-01", "2026-03-02"):
        (tmp_path / name).mkdir()
    rm = LocalFileSystem.rm

    def late(self: Any, path: str, **options: Any) -> None:
        if path.endswith("01"):
            rm(self, path, **options)
            raise FileNotFoundError(path)
        rm(self, path, **options)

    monkeypatch.setattr(LocalFileSystem, "rm", late)
    assert files.sweep_now() == 1
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_nothing(files: FileBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system that writes bit by bit, a name is there only when its bytes are."""
    seen: list[list[str]] = []

    def refuse(_: Any, part: str, path: str) -> None:
        seen.append([part.rpartition("/")[2], path.rpartition("/")[2]])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(LocalFileSystem, "mv", refuse)
    with pytest.raises(BlobStoreError, match="No space left"):
        files.put(b"data", 60)
    assert seen == [[f".{seen[0][1]}.part", seen[0][1]]]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.usefixtures("broken")
def test_whatever_goes_wrong_there_is_one_error(files: FileBlobs, tmp_path: Path) -> None:
    """Workers wait for such a place as they wait for their broker; the text names the place and the cause."""
    reference = "files:2026-03-10/" + "0" * 32
    calls = (
        lambda: files.put(b"data", 60),
        lambda: files.get(reference),
        lambda: files.get(reference, 10),
        lambda: files.delete([reference]),
        files.sweep_now,
    )
    for call in calls:
        with pytest.raises(BlobStoreError, match=rf"{tmp_path} \(PermissionError: Access Denied\); is it there"):
            call()
    assert issubclass(BlobStoreError, BrokerError)


@pytest.mark.usefixtures("broken")
def test_a_place_that_cannot_be_used_is_told_when_a_worker_starts(files: FileBlobs, tmp_path: Path) -> None:
    """A wrong bucket or key ends the start with the setting's name; a good place is left as it was."""
    with pytest.raises(ConfigurationError, match=r"blobs\.location: can't write to"):
        files.check()
    good = FileBlobs(f"file://{tmp_path}")
    good.check()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_place_that_forgets_is_told_when_a_worker_starts(files: FileBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written must be there."""
    monkeypatch.setattr(LocalFileSystem, "cat_file", lambda *_: b"other")
    with pytest.raises(ConfigurationError, match="doesn't give back"):
        files.check()


def test_a_place_that_forbids_what_is_gone_is_told_when_a_worker_starts(
    files: FileBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the right to list, S3 forbids what isn't there: a job whose media have expired would wait for ever."""
    read = LocalFileSystem.cat_file

    def forbids(self: Any, path: str) -> bytes:
        try:
            return bytes(read(self, path))
        except FileNotFoundError:
            raise PermissionError("Access Denied") from None

    monkeypatch.setattr(LocalFileSystem, "cat_file", forbids)
    with pytest.raises(ConfigurationError, match=r"blobs\.location: can't read from .*PermissionError"):
        files.check()


def test_what_alone_is_forbidden_is_not_waited_for(
    files: FileBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that another user may not read is its job's trouble; a place that refuses all of them is the place's."""
    both = tiered(MemoryBlobs(), files, BlobSettings(location=f"file://{tmp_path}"))
    theirs = files.put(b"theirs", 60)
    read = LocalFileSystem.cat_file

    def forbids(self: Any, path: str) -> bytes:
        if refused in path:
            raise PermissionError("Access Denied")
        return bytes(read(self, path))

    monkeypatch.setattr(LocalFileSystem, "cat_file", forbids)
    refused = theirs.removeprefix("files:")
    with pytest.raises(ValueError, match="may not be read here"):
        both.get(theirs)
    refused = ""
    with pytest.raises(BlobStoreError, match="can't read from"):
        both.get(theirs)


def test_what_alone_cant_be_read_may_wait_alone(
    files: FileBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One object that fails while the place works is its job's own wait; after a moment's outage it is read."""
    both = tiered(MemoryBlobs(), files, BlobSettings(location=f"file://{tmp_path}"))
    bad = files.put(b"bad", 60)
    read, failures = LocalFileSystem.cat_file, [2]

    def fails(self: Any, path: str) -> bytes:
        if bad.removeprefix("files:") in path and failures[0]:
            failures[0] -= 1
            raise OSError(5, "Input/output error")
        return bytes(read(self, path))

    monkeypatch.setattr(LocalFileSystem, "cat_file", fails)
    with pytest.raises(SourceUnavailable, match=r"can't be read for now \(OSError\)"):
        both.get(bad)
    failures[0] = 1
    assert both.get(bad) == b"bad"


def test_credentials_are_in_no_error(broken: Mock) -> None:
    """Neither from the location nor from what a file system says of it, nor from the error's cause."""
    files = FileBlobs("sftp://user:hunter2@host/media")
    files.__dict__["_place"] = (broken, "media")
    broken.makedirs.side_effect = OSError("login as user with hunter2 failed")
    with pytest.raises(BlobStoreError) as raised:
        files.put(b"data", 60)
    assert str(raised.value).startswith("can't write to sftp://user:***@host/media (OSError);")
    assert (raised.value.__cause__, raised.value.__suppress_context__) == (None, True)


def test_a_missing_fsspec_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A producer without the extra is told which."""
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(MissingExtra, match=r'needs fsspec.*pip install "pipemill\[s3\]"'):
        FileBlobs("s3://bucket").put(b"data", 60)


@pytest.mark.parametrize(
    ("location", "text"),
    [("s3://bucket", r'pip install "pipemill\[s3\]"'), ("gs://bucket", "Please install gcsfs")],
)
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, location: str, text: str) -> None:
    """Our extra for S3, fsspec's own words for any other place."""
    core = ModuleType("fsspec.core")
    core.__dict__["url_to_fs"] = Mock(side_effect=ImportError("Please install gcsfs to access Google Storage"))
    monkeypatch.setitem(sys.modules, "fsspec.core", core)
    with pytest.raises(MissingExtra, match=text):
        FileBlobs(location).check()


def test_an_unknown_place_is_a_mistake_in_the_catalogue() -> None:
    """Nobody waits for a protocol that isn't one."""
    with pytest.raises(ConfigurationError, match="fsspec has no such place"):
        FileBlobs("nonsense://bucket").put(b"data", 60)


def test_the_catalogue_says_what_goes_where(tmp_path: Path) -> None:
    """Bytes from min_bytes on go to files, smaller ones stay near; without a place all stay near."""
    settings = BlobSettings(location=f"file://{tmp_path}", min_bytes=1_024, retention_days=3)
    near, far = MemoryBlobs(), files_of(settings)
    assert far is not None
    assert (far.retention_days, files_of(None)) == (3, None)
    blobs = tiered(near, far, settings)
    references = [blobs.put(b"x" * size, 60) for size in (1_023, 1_024)]
    assert [reference.partition(":")[0] for reference in references] == ["memory", "files"]
    assert tiered(near, None, None) is near
