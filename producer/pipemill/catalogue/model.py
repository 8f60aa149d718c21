"""The catalogue as typed, frozen settings. Each field says its meaning and unit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator

from pipemill.catalogue.base import Settings
from pipemill.catalogue.bounds import BoundSettings, check_turns
from pipemill.catalogue.broker import DEFAULT_BROKER, BrokerUrl
from pipemill.catalogue.retry import RetrySettings
from pipemill.catalogue.rules import (
    ADAPTER_FORMS,
    MODEL_FORMS,
    Source,
    check_adapter,
    check_adapter_revision,
    check_device_map,
    check_engine,
    check_model,
    check_parameters,
    check_queue_name,
    check_remote_code,
    check_revision,
    check_some,
    check_vllm_python,
    source_of,
)
from pipemill.catalogue.signing import SigningSettings
from pipemill.catalogue.worker import WorkerSettings
from pipemill.parameters import MEDIA_TASKS, Task

#: Jobs leased ahead for each item of a full batch, unless the queue says otherwise: the next batches are at hand
#: while one runs, and a worker that dies gives back no more than a few.
PREFETCH_PER_ITEM: Final = 4
#: Bytes of one job's inputs and parameters as JSON, where a queue doesn't say: a long text, and a few photographs.
TEXT_INPUT_BYTES: Final = 1_048_576
MEDIA_INPUT_BYTES: Final = 33_554_432


def _none_is_empty(value: Any) -> Any:
    return {} if value is None else value


#: A section whose lines are all commented out reads as null in YAML.
_Section = BeforeValidator(_none_is_empty)

Device = Annotated[
    str,
    Field(
        pattern=r"^(auto|cpu|mps|cuda(:[0-9]{1,2})?)$",
        json_schema_extra={"allowed": "one of auto, cpu, mps, cuda, or a numbered GPU such as cuda:0"},
    ),
]
QueueName = Annotated[str, AfterValidator(check_queue_name)]
HostName = Annotated[
    str,
    Field(
        pattern=r"^(\*\.)?[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+$",
        json_schema_extra={"allowed": "a host's name in lower case, such as images.example.org or *.example.org"},
    ),
]


class BatchSettings(Settings):
    """The largest forward pass of a queue."""

    max_items: int = Field(default=128, ge=1, le=4_096, description="Items (mostly jobs) of one forward pass.")
    max_tokens: Annotated[int, Field(ge=1, le=16_777_216)] | None = Field(
        default=None,
        description="Tokens of one forward pass, padding included; null lets the worker choose by device.",
    )
    max_amplification: float = Field(
        default=1.5,
        ge=1,
        le=100,
        allow_inf_nan=False,
        description="Tokens computed per token given: how much padding a batch may add; 1 is none.",
    )
    max_wait_ms: float = Field(
        default=10.0,
        ge=0,
        le=10_000,
        allow_inf_nan=False,
        description="Longest time in ms that a free device may wait for more items, when what was measured says that "
        "waiting pays; 0 never waits.",
    )
    calibrate: bool = Field(
        default=True,
        description="Measure batches of growing size when a worker starts, and take the size from which they gain no "
        "more; max_tokens, if given, bounds what is tried.",
    )
    cache_bytes: int = Field(
        default=1_073_741_824,
        ge=1_048_576,
        le=1_099_511_627_776,
        description="Bytes of keys and values kept for texts that are written together; max_items bounds their rows.",
    )
    packing: bool = Field(
        default=True,
        description="Lay texts end to end instead of padding them, where the model's encoder and the device allow it.",
    )
    tolerance: float = Field(
        default=1e-4,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Largest difference between a score alone and in a padded batch at the self-check when a worker "
        "starts; a model that differs by more batches equal shapes only. Half precision needs about 0.01 to be padded.",
    )


class LimitSettings(BoundSettings):
    """What a queue refuses."""

    max_input_bytes: Annotated[int, Field(ge=1, le=536_870_912)] | None = Field(
        default=None,
        description="Bytes of one job's inputs and parameters as JSON; "
        "null is 1 MiB, 32 MiB where the task takes media.",
    )
    max_media: int = Field(default=16, ge=1, le=4_096, description="Images, sounds, videos and arrays in one job.")
    max_media_bytes: int = Field(
        default=67_108_864, ge=1, le=2_147_483_648, description="Bytes of one image, sound, video or array as it came."
    )
    max_pixels: int = Field(
        default=25_000_000,
        ge=1,
        le=1_000_000_000,
        description="Pixels of one image; of all frames decoded from one video, sixteen times as many.",
    )
    max_seconds: float = Field(
        default=1_800, gt=0, le=86_400, allow_inf_nan=False, description="Length of one sound or video, in seconds."
    )
    max_frames: int = Field(default=1_024, ge=1, le=100_000, description="Frames decoded from one video.")


class UrlSettings(Settings):
    """From where a queue's workers may fetch media that a job names by URL."""

    hosts: Annotated[tuple[HostName, ...], AfterValidator(check_some)] = Field(
        strict=False,  # YAML has lists, and no tuples
        max_length=256,
        description="Hosts that may be fetched from; *.example.org stands for every host below example.org.",
    )
    max_bytes: int = Field(default=33_554_432, ge=1, le=536_870_912, description="Bytes of one answer.")
    timeout_seconds: float = Field(
        default=10, gt=0, le=300, allow_inf_nan=False, description="Time for one fetch, redirects included, in seconds."
    )


class BlobSettings(Settings):
    """Where media too large for a message travel, besides the broker."""

    location: str = Field(
        description="A place of fsspec, such as s3://bucket/prefix; credentials come from the environment.",
        pattern=r"^[a-z][a-z0-9+.-]*://.+",
        json_schema_extra={"allowed": "a URL of fsspec, such as s3://bucket/prefix or file:///mnt/shared"},
    )
    min_bytes: int = Field(
        default=262_144, ge=1_024, le=536_870_912, description="Bytes from which one image, sound or array goes there."
    )
    retention_days: int = Field(
        default=7, ge=1, le=365, description="Whole days for which it is kept; workers delete what is older."
    )


class QueueSettings(Settings):
    """One queue and the pipeline that serves it."""

    task: Task = Field(
        description="Pipeline task; echo has no model and answers with its inputs, for load tests.",
        json_schema_extra={"allowed": "a task that `pipemill schema` lists, such as text-classification"},
    )
    model: str | None = Field(
        default=None,
        validate_default=True,
        description="Model: a hub id, a directory, or one that comes with the worker. Required except for echo.",
        json_schema_extra={"allowed": MODEL_FORMS},
    )
    revision: str | None = Field(
        default=None,
        validate_default=True,
        description="Commit of the hub model, so that every worker runs the same. Required for hub ids only.",
        json_schema_extra={"allowed": "a commit hash of 7 to 40 hex digits, never a branch or tag"},
    )
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        default="auto", description="Number format of the weights; auto is the checkpoint's own."
    )
    device: Device = Field(default="auto", description="Where the model runs; auto takes a GPU if there is one.")
    device_map: Literal["auto", "balanced", "balanced_low_0", "sequential"] | None = Field(
        default=None,
        description="How a model is spread over several devices; null puts it on device. Excludes device.",
    )
    quantisation: Literal["int8", "int8-dynamic", "int4", "bnb-int8", "bnb-nf4"] | None = Field(
        default=None,
        description="Weights are rounded when loaded: int8 and int4 by torchao, int8-dynamic by torch (CPU; what the "
        "layers are given is rounded too), bnb-int8 and bnb-nf4 by bitsandbytes (CUDA); null loads them as they were "
        "saved. A model saved quantised needs none.",
    )
    compile: bool = Field(
        default=False,
        description="Compile the model with torch.compile when a worker starts: up to minutes then, faster from there.",
    )
    adapter: str | None = Field(
        default=None,
        description="A PEFT adapter (LoRA and its kin) on top of the model: a hub id or a directory.",
        json_schema_extra={"allowed": ADAPTER_FORMS},
    )
    adapter_revision: str | None = Field(
        default=None,
        validate_default=True,
        description="Commit of the hub adapter. Required for hub ids only.",
        json_schema_extra={"allowed": "a commit hash of 7 to 40 hex digits, never a branch or tag"},
    )
    trust_remote_code: bool = Field(
        default=False,
        description="Run Python code that comes with the model, with all rights of the worker. "
        "Read it first: only what is pinned by revision, or lies in a directory, is run.",
    )
    engine: Literal["exact", "continuous", "vllm"] = Field(
        default="exact",
        description="What continues prompts together (text-generation only): exact answers as the pipeline does; "
        "continuous is transformers' continuous batching; vllm is vLLM, in a process of its own.",
    )
    vllm_python: str | None = Field(
        default=None, description="The Python that has vLLM, if it isn't the worker's own.", min_length=1
    )
    urls: UrlSettings | None = Field(
        default=None, description="From where jobs may have media fetched; null lets none name a URL."
    )
    parameters: Annotated[Mapping[str, Any], _Section] = Field(
        default={},
        description="Parameters for jobs that don't give their own; the task's table below says which there are.",
    )
    batch: Annotated[BatchSettings, _Section] = Field(default=BatchSettings(), description="The largest forward pass.")
    limits: Annotated[LimitSettings, _Section] = Field(default=LimitSettings(), description="What is refused.")
    retry: Annotated[RetrySettings, _Section] = Field(
        default=RetrySettings(), description="When a job is tried again; never for its own bad input."
    )
    fair: bool = Field(
        default=True,
        description="Let tenants take turns by the bytes of their jobs; if not, jobs are taken in the order they came.",
    )
    priority_ageing_seconds: Annotated[float, Field(gt=0, le=604_800, allow_inf_nan=False)] | None = Field(
        default=60.0,
        description="How long more urgent jobs may keep others waiting, in seconds for each of the three steps between "
        "the four priorities; then those get an equal share. null lets them wait for ever.",
    )
    signed: bool | None = Field(
        default=None, description="Refuse jobs without a signature; null does as signing.required says."
    )
    result_ttl_seconds: int = Field(
        default=3_600, ge=1, le=31_536_000, description="Seconds for which a result can be read."
    )
    prefetch: Annotated[int, Field(ge=1, le=100_000)] | None = Field(
        default=None,
        description="Jobs leased ahead; null is a few batches, as measured, "
        f"and at most {PREFETCH_PER_ITEM} for each of batch.max_items.",
    )

    @property
    def source(self) -> Source:
        """Where the model comes from."""
        return source_of(self.model)

    @property
    def prefetch_jobs(self) -> int:
        """Jobs leased ahead, the default worked out."""
        return self.prefetch or PREFETCH_PER_ITEM * self.batch.max_items

    @property
    def max_input_bytes(self) -> int:
        """Bytes of one job's inputs and parameters as JSON, the default worked out."""
        default = MEDIA_INPUT_BYTES if self.task in MEDIA_TASKS else TEXT_INPUT_BYTES
        return self.limits.max_input_bytes or default

    # These run when the fields above them are right, whatever is wrong below: so each mistake is told at once.

    @field_validator("model")
    @classmethod
    def _check_model(cls, model: str | None, info: ValidationInfo) -> str | None:
        return check_model(model, info.data.get("task"), folder=_folder(info))

    @field_validator("revision", mode="before")
    @classmethod
    def _check_revision(cls, revision: Any, info: ValidationInfo) -> Any:
        if "model" in info.data and info.data.get("task"):
            check_revision(revision, info.data["model"])
        return revision

    @field_validator("device_map")
    @classmethod
    def _check_device_map(cls, device_map: str | None, info: ValidationInfo) -> str | None:
        check_device_map(device_map, info.data.get("device"))
        return device_map

    @field_validator("adapter")
    @classmethod
    def _check_adapter(cls, adapter: str | None, info: ValidationInfo) -> str | None:
        return check_adapter(adapter, info.data.get("task"), folder=_folder(info))

    @field_validator("adapter_revision", mode="before")
    @classmethod
    def _check_adapter_revision(cls, revision: Any, info: ValidationInfo) -> Any:
        if "adapter" in info.data and info.data.get("task"):
            check_adapter_revision(revision, info.data["adapter"])
        return revision

    @field_validator("trust_remote_code")
    @classmethod
    def _check_remote_code(cls, trusted: bool, info: ValidationInfo) -> bool:  # noqa: FBT001  # pydantic's form
        if "model" in info.data and info.data.get("task"):
            check_remote_code(info.data["model"], trusted=trusted)
        return trusted

    @field_validator("engine")
    @classmethod
    def _check_engine(cls, engine: str, info: ValidationInfo) -> str:
        check_engine(engine, info.data)
        return engine

    @field_validator("vllm_python")
    @classmethod
    def _check_vllm_python(cls, python: str | None, info: ValidationInfo) -> str | None:
        check_vllm_python(python, info.data.get("engine"))
        return python

    @field_validator("fair")
    @classmethod
    def _check_fair(cls, fair: bool, info: ValidationInfo) -> bool:  # noqa: FBT001  # pydantic's form
        check_turns(info.data.get("limits"), fair=fair)
        return fair

    @field_validator("parameters")
    @classmethod
    def _check_parameters(cls, parameters: Mapping[str, Any], info: ValidationInfo) -> Mapping[str, Any]:
        if "task" in info.data:
            check_parameters(info.data["task"], parameters)
        return parameters


def _folder(info: ValidationInfo) -> Path | None:
    """The folder to which relative paths of models refer; ``None`` leaves them as they are."""
    return info.context["folder"] if info.context else None


class Catalogue(Settings):
    """The configuration file: broker, workers, queues."""

    broker: BrokerUrl = Field(
        default=BrokerUrl(DEFAULT_BROKER), description="URL of the Redis or Valkey server; its password is never shown."
    )
    worker: Annotated[WorkerSettings, _Section] = Field(
        default=WorkerSettings(), description="What holds for every worker process."
    )
    blobs: BlobSettings | None = Field(
        default=None, description="Where large media travel; null sends them through the broker."
    )
    signing: SigningSettings | None = Field(
        default=None, description="Which signatures of jobs workers ask for; null asks for none."
    )
    queues: Mapping[QueueName, QueueSettings] = Field(
        min_length=1,
        description="The queues by name.",
        json_schema_extra={"allowed": "a mapping of at least one queue's name to its settings"},
    )
