"""What a client remembers of queues, so that it need not ask for every job."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, Generic, TypeAlias, TypeVar

from pipemill.store.base import QueueInfo, QueueReport
from pipemill.store.wire import total_rate

if TYPE_CHECKING:
    from pipemill.catalogue import Catalogue, QueueSettings
    from pipemill.catalogue.model import BlobSettings

T = TypeVar("T")
#: A file.
StrPath: TypeAlias = str | os.PathLike[str]

#: How long a queue's limits are taken as they were, in seconds.
INFO_SECONDS: Final = 5.0
#: How long the rates of workers are taken as they were, in seconds; workers report about once a second.
RATE_SECONDS: Final = 2.0


def broker_url(broker: str | None, catalogue: StrPath | None) -> str:
    """Return the broker that was given, else PIPEMILL_BROKER, else the catalogue's, else localhost.

    Raises
    ------
    ConfigurationError
        When a URL is wrong, or the catalogue can't be read.

    """
    if broker is not None:
        return broker
    from pipemill.catalogue import resolve_broker  # noqa: PLC0415  # it brings pydantic, which `import pipemill` spares

    return resolve_broker(None, catalogue)


class Remembered(Generic[T]):
    """Values by key, each for some seconds."""

    def __init__(self, seconds: float):
        self._seconds = seconds
        self._kept: dict[str, tuple[float, T]] = {}

    def get(self, key: str) -> T | None:
        """Return what was put under the key lately."""
        until, value = self._kept.get(key, (0.0, None))
        return value if time.monotonic() < until else None

    def put(self, key: str, value: T) -> None:
        """Keep a value."""
        self._kept[key] = (time.monotonic() + self._seconds, value)


class KnownQueues:
    """The catalogue's queues, and what the broker said of queues lately. Thread-safe."""

    def __init__(self, catalogue: StrPath | None):
        self._file = catalogue
        self._catalogue: Catalogue | None = None
        self._rates: Remembered[float] = Remembered(RATE_SECONDS)
        #: What queues announced of themselves.
        self.infos: Remembered[QueueInfo] = Remembered(INFO_SECONDS)

    @property
    def has_catalogue(self) -> bool:
        """Whether the client was given a catalogue."""
        return self._file is not None

    def in_catalogue(self, queue: str) -> QueueInfo | None:
        """What the catalogue says of a queue.

        Raises
        ------
        CatalogueError
            When the catalogue has mistakes.

        """
        catalogue = self._load()
        settings = catalogue.queues.get(queue) if catalogue else None
        return None if settings is None else queue_info(queue, settings)

    def blob_settings(self) -> BlobSettings | None:
        """Where the catalogue sends large media, if it does.

        Raises
        ------
        CatalogueError
            When the catalogue has mistakes.

        """
        catalogue = self._load()
        return catalogue.blobs if catalogue else None

    def _load(self) -> Catalogue | None:
        if self._catalogue is None and self._file is not None:
            from pipemill.catalogue import load_catalogue  # noqa: PLC0415  # it brings pydantic, which few clients need

            self._catalogue = load_catalogue(self._file)
        return self._catalogue

    def rate(self, queue: str) -> float | None:
        """Jobs a second that the queue's workers end, as far as it was remembered lately."""
        return self._rates.get(queue)

    def remember_rates(self, reports: Iterable[QueueReport]) -> None:
        """Keep the rates of all queues."""
        for report in reports:
            self._rates.put(report.info.name, total_rate(report.lanes))


def queue_info(name: str, settings: QueueSettings) -> QueueInfo:
    """What a queue of a catalogue announces of itself."""
    return QueueInfo(
        name=name,
        task=settings.task,
        model=settings.model or "",
        max_depth=settings.limits.max_depth,
        max_bytes=settings.limits.max_bytes,
        max_tenant_depth=settings.limits.max_tenant_depth,
        max_tenant_bytes=settings.limits.max_tenant_bytes,
        max_memory_share=settings.limits.max_memory_share,
        fair=settings.fair,
        priority_ageing_seconds=settings.priority_ageing_seconds or 0.0,
        max_input_bytes=settings.max_input_bytes,
        result_ttl_seconds=settings.result_ttl_seconds,
    )
