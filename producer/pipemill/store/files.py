"""The ``BlobStore`` in a bucket or a folder, and the one of two: large bytes there, smaller ones in the broker."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from importlib import import_module
from typing import Any, Final

from pipemill.address import redact
from pipemill.catalogue.model import BlobSettings
from pipemill.errors import BlobStoreError, ConfigurationError, MissingExtra, PipemillError, SourceUnavailable
from pipemill.store.base import BlobStore
from pipemill.store.blobs import NAME, check_size, name_in, new_name
from pipemill.validation.words import cut

_DAY: Final = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_SECONDS_A_DAY: Final = 86_400
#: Places of fsspec where a written object is there whole or not at all, and folders need not be made.
_ATOMIC: Final = frozenset(
    {"abfs", "abfss", "adl", "az", "gcs", "gs", "memory", "obs", "oci", "oss", "s3", "s3a", "tos"}
)
#: Bytes written, read and deleted to see whether a place can be used.
_PROBE: Final = b"pipemill"
#: Characters of a file system's own error text that are passed on.
_ERROR_TEXT: Final = 200


class FileBlobs:
    """A ``BlobStore`` at a place of fsspec: ``s3://bucket/prefix``, ``file:///mnt/shared``.

    Each day has its folder, so that what is too old is found without looking at every file. Opened when first used.
    Whatever goes wrong there is raised as BlobStoreError, a missing package as MissingExtra.
    """

    kind: Final = "files"

    def __init__(self, location: str, *, retention_days: int = 7, now: Callable[[], float] = time.time):
        self.location = location
        self.retention_days = retention_days
        self._now = now

    def put(self, data: bytes, ttl_seconds: int) -> str:
        """Keep bytes until the end of the retention, and for at least so many seconds."""
        name = f"{self._folder(ttl_seconds)}/{new_name()}"
        with self._translated("write to"):
            file_system, root = self._place
            _write(file_system, f"{root}/{name}", data)
        return f"{self.kind}:{name}"

    def _folder(self, ttl_seconds: int) -> str:
        """Today's folder; a later one for what must outlive the retention of today's."""
        beyond = max(ttl_seconds - self.retention_days * _SECONDS_A_DAY, 0)
        return datetime.fromtimestamp(self._now() + beyond, UTC).date().isoformat()

    def get(self, reference: str, max_bytes: int | None = None) -> bytes | None:
        """Read what a reference stands for; None when it is gone."""
        name = name_in(reference, self.kind, f"{_DAY}/{NAME}")
        with self._translated("read from"):
            file_system, root = self._place
            try:
                if max_bytes is not None:
                    check_size(int(file_system.info(f"{root}/{name}")["size"]), max_bytes)
                return bytes(file_system.cat_file(f"{root}/{name}"))
            except FileNotFoundError:
                return None

    def delete(self, references: Sequence[str]) -> None:
        """Forget them."""
        names = [name_in(reference, self.kind, f"{_DAY}/{NAME}") for reference in references]
        with self._translated("delete from"):
            for name in names:
                file_system, root = self._place
                with suppress(FileNotFoundError):
                    file_system.rm_file(f"{root}/{name}")

    def sweep(self, today: date, days: int) -> int:
        """Delete the folders of days that lie more than ``days`` before ``today`` (UTC); how many."""
        swept = 0
        with self._translated("sweep"):
            file_system, root = self._place
            try:
                found = file_system.ls(root, detail=False)
            except FileNotFoundError:
                return 0
            names = (str(path).rstrip("/").rpartition("/")[2] for path in found)
            for name in due_folders(names, today, days):
                with suppress(FileNotFoundError):  # another worker sweeps too
                    file_system.rm(f"{root}/{name}", recursive=True)
                    swept += 1
        return swept

    def sweep_now(self) -> int:
        """Delete the folders whose retention is over; how many."""
        return self.sweep(datetime.fromtimestamp(self._now(), UTC).date(), self.retention_days)

    def check(self) -> None:
        """Write, read and delete a few bytes, and see that they are gone.

        Raises
        ------
        ConfigurationError
            When the place can't be used.

        """
        try:
            reference = self.put(_PROBE, 0)
            found = self.get(reference)
            self.delete([reference])
            # Without the right to list, S3 forbids what is gone instead of saying so: jobs would wait for ever.
            gone = self.get(reference)
        except BlobStoreError as error:
            raise ConfigurationError(f"blobs.location: {error}") from error
        if found != _PROBE or gone is not None:
            raise ConfigurationError(f"blobs.location: {redact(self.location)} doesn't give back what is written to it")

    def works(self) -> bool:
        """Whether the place can be used, whatever became of one reference."""
        try:
            self.check()
        except ConfigurationError:
            return False
        return True

    @cached_property
    def _place(self) -> tuple[Any, str]:
        return _opened(self.location)

    @contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        """Turn whatever a file system raises into one error; the one boundary where that is done."""
        try:
            yield
        except PipemillError:
            raise
        except Exception as error:  # noqa: BLE001  # each file system raises errors of its own
            hidden = redact(self.location)
            # A file system may repeat its URL, or a part of it, in any form.
            said = f": {cut(str(error), _ERROR_TEXT)}" if hidden == self.location else ""
            text = f"can't {doing} {hidden} ({type(error).__name__}{said}); is it there, and are its credentials right?"
            raise BlobStoreError(text) from (error if said else None)


def due_folders(names: Iterable[str], today: date, days: int) -> list[str]:
    """Those of the names that are days, and lie more than ``days`` before ``today``; oldest first."""
    last = today - timedelta(days=days)
    return sorted(name for name in names if (day := _day(name)) is not None and day < last)


def _day(name: str) -> date | None:
    if not re.fullmatch(_DAY, name):
        return None
    with suppress(ValueError):
        return date.fromisoformat(name)
    return None


def _opened(location: str) -> tuple[Any, str]:
    """Open a place of fsspec: its file system, and its path there without a slash at the end."""
    hidden = redact(location)
    try:
        fsspec = import_module("fsspec.core")
    except ImportError as error:
        raise MissingExtra(f'{hidden} needs fsspec, which isn\'t installed: pip install "pipemill[s3]"') from error
    try:
        # Listings aren't kept: other processes write there too.
        file_system, path = fsspec.url_to_fs(location, use_listings_cache=False)
    except ImportError as error:
        mend = 'pip install "pipemill[s3]"' if re.match("s3a?:", location) else cut(str(error), _ERROR_TEXT)
        raise MissingExtra(f"{hidden} needs a package that isn't installed: {mend}") from error
    except ValueError as error:
        raise ConfigurationError(f"{hidden} can't be opened: fsspec has no such place; try s3:// or file://") from error
    return file_system, str(path).rstrip("/")


def _write(file_system: Any, path: str, data: bytes) -> None:
    """Write a file that is there whole or not at all, as far as its file system can."""
    protocols = file_system.protocol
    if _ATOMIC & set((protocols,) if isinstance(protocols, str) else protocols):
        file_system.pipe_file(path, data)
        return
    folder, _, name = path.rpartition("/")
    part = f"{folder}/.{name}.part"
    file_system.makedirs(folder, exist_ok=True)
    try:
        file_system.pipe_file(part, data)
        file_system.mv(part, path)
    except BaseException:
        with suppress(Exception):
            file_system.rm_file(part)
        raise


class TieredBlobs:
    """A ``BlobStore`` of two: what is large goes to files, what isn't stays near, in the broker."""

    def __init__(self, near: BlobStore, far: FileBlobs, min_bytes: int):
        self._near, self._far, self._min_bytes = near, far, min_bytes

    def put(self, data: bytes, ttl_seconds: int) -> str:
        """Keep bytes where those of their size go."""
        return (self._far if len(data) >= self._min_bytes else self._near).put(data, ttl_seconds)

    def get(self, reference: str, max_bytes: int | None = None) -> bytes | None:
        """Read what a reference of either stands for; None when it is gone.

        Raises
        ------
        SourceUnavailable
            When it can't be read though the place works: that job may wait, others need not.
        BlobStoreError
            When the place can't be used.
        ValueError
            When it may not be read here, which waiting won't mend.

        """
        if not _is_far(reference):
            return self._near.get(reference, max_bytes)
        try:
            return self._far.get(reference, max_bytes)
        except BlobStoreError as error:
            if not self._far.works():
                raise
            if isinstance(error.__context__, PermissionError):
                text = "it may not be read here, though others may: waiting won't help"
                raise ValueError(text) from error  # noqa: TRY004  # the seam's word for a reference of no use here
        try:
            return self._far.get(reference, max_bytes)  # The place may have been away only just now.
        except BlobStoreError as error:
            cause = type(error.__context__).__name__
            text = f"its bytes can't be read for now ({cause}), though their place works: try again, or send them anew"
            raise SourceUnavailable(text) from error

    def delete(self, references: Sequence[str]) -> None:
        """Forget them."""
        if near := [reference for reference in references if not _is_far(reference)]:
            self._near.delete(near)
        if far := [reference for reference in references if _is_far(reference)]:
            self._far.delete(far)


def _is_far(reference: str) -> bool:
    return reference.startswith(f"{FileBlobs.kind}:")


def files_of(settings: BlobSettings | None) -> FileBlobs | None:
    """The place that a catalogue names for large media, if it names one."""
    return FileBlobs(settings.location, retention_days=settings.retention_days) if settings else None


def tiered(near: BlobStore, far: FileBlobs | None, settings: BlobSettings | None) -> BlobStore:
    """Where bytes go by their size; all of them near, if the catalogue names no other place."""
    return TieredBlobs(near, far, settings.min_bytes) if far is not None and settings is not None else near
