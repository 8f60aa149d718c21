"""What a runner needs to know of its queue; the catalogue's queue settings fit it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias, cast

if TYPE_CHECKING:  # It brings numpy, which echo never needs.
    from pipemill_worker.media import MediaLimits

#: Checks a task's merged parameters and returns those to pass on; raises ``InvalidParameter``.
Validate: TypeAlias = Callable[[str, Mapping[str, Any]], dict[str, Any]]

#: The task that answers with its own inputs and loads no model.
ECHO_TASK: Final = "echo"


class LoadedPipeline(Protocol):
    """What is used of a transformers pipeline beside its stages, which only ``staged`` touches."""

    task: str
    model: Any
    tokenizer: Any
    processor: Any
    feature_extractor: Any
    device: Any


class Tolerant(Protocol):
    """What of a queue's batch settings a runner needs."""

    @property
    def tolerance(self) -> float:
        """The largest difference between a score alone and in a batch."""
        ...

    @property
    def max_items(self) -> int:
        """Most rows of a pass."""
        ...

    @property
    def cache_bytes(self) -> int:
        """Most bytes of keys and values of texts that are written together."""
        ...

    @property
    def packing(self) -> bool:
        """Whether texts may be laid end to end instead of padded."""
        ...


class UrlRules(Protocol):
    """From where a queue's workers may fetch media."""

    @property
    def hosts(self) -> tuple[str, ...]:
        """Names of hosts; ``*.`` before one stands for every host below it."""
        ...

    @property
    def max_bytes(self) -> int:
        """Bytes of one answer."""
        ...

    @property
    def timeout_seconds(self) -> float:
        """Time for one fetch."""
        ...


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
    def quantisation(self) -> str | None:
        """How weights are rounded when loaded: ``int8``, ``int4``, ``bnb-int8``, ``bnb-nf4``, or not at all."""
        ...

    @property
    def compile(self) -> bool:
        """Whether the model is compiled with ``torch.compile``."""
        ...

    @property
    def adapter(self) -> str | None:
        """A PEFT adapter on top of the model: an id of the hub, or the path of a folder."""
        ...

    @property
    def adapter_revision(self) -> str | None:
        """The commit of an adapter on the hub."""
        ...

    @property
    def trust_remote_code(self) -> bool:
        """Whether Python code that comes with the model is run."""
        ...

    @property
    def engine(self) -> Literal["exact", "continuous", "vllm"]:
        """What continues prompts together: our own writer, transformers' continuous batching, or vLLM."""
        ...

    @property
    def vllm_python(self) -> str | None:
        """The Python that has vLLM; ``None`` is the worker's own."""
        ...

    @property
    def batch(self) -> Tolerant:
        """The bounds of a batch."""
        ...

    @property
    def limits(self) -> MediaLimits:
        """The bounds of media."""
        ...

    @property
    def urls(self) -> UrlRules | None:
        """From where media may be fetched; ``None`` is nowhere."""
        ...

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The parameters a job gets where it gives none."""
        ...


class _Changed:
    def __init__(self, settings: ModelSettings, changes: Mapping[str, Any]) -> None:
        self._settings, self._changes = settings, changes

    def __getattr__(self, name: str) -> Any:
        return self._changes[name] if name in self._changes else getattr(self._settings, name)


def changed(settings: ModelSettings, **changes: Any) -> ModelSettings:
    """The same settings but for these."""
    return cast("ModelSettings", _Changed(settings, changes))


def has_chat_template(pipe: LoadedPipeline) -> bool:
    """Whether the model takes chats."""
    return any(getattr(getattr(pipe, part, None), "chat_template", None) for part in ("processor", "tokenizer"))
