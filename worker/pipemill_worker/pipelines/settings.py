"""What a runner needs to know of its queue; the catalogue's queue settings fit it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, TypeAlias

#: Checks a task's merged parameters and returns those to pass on; raises ``InvalidParameter``.
Validate: TypeAlias = Callable[[str, Mapping[str, Any]], dict[str, Any]]

#: The task that answers with its own inputs and loads no model.
ECHO_TASK: Final = "echo"


class LoadedPipeline(Protocol):
    """What is used of a transformers pipeline beside its stages, which only ``staged`` touches."""

    model: Any
    tokenizer: Any
    device: Any


class ModelSettings(Protocol):
    """Which pipeline a queue is bound to, and how it is loaded."""

    @property
    def task(self) -> str:
        """The transformers pipeline task."""
        ...

    @property
    def model(self) -> str | None:
        """A model id of the hub, the path of a folder, or ``builtin:NAME``."""
        ...

    @property
    def revision(self) -> str | None:
        """The branch, tag or commit of a model on the hub."""
        ...

    @property
    def dtype(self) -> str:
        """``auto`` (as the weights were saved), ``float32``, ``float16`` or ``bfloat16``."""
        ...

    @property
    def device(self) -> str:
        """``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``."""
        ...

    @property
    def device_map(self) -> str | None:
        """How accelerate spreads the model over devices; excludes ``device``."""
        ...

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The parameters a job gets where it gives none."""
        ...
