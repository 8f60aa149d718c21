"""What the catalogue says of every worker process."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipemill.catalogue.base import Settings

LeaseSeconds = Annotated[float, Field(ge=2, le=3_600, allow_inf_nan=False)]
DrainSeconds = Annotated[float, Field(ge=0, le=3_600, allow_inf_nan=False)]
StuckSeconds = Annotated[float, Field(ge=1, le=86_400, allow_inf_nan=False)]
MaxDeliveries = Annotated[int, Field(ge=1, le=100)]
PreprocessThreads = Annotated[int, Field(ge=1, le=64)]
TorchThreads = Annotated[int, Field(ge=1, le=1_024)]
Processes = Annotated[int, Field(ge=1, le=1_024)] | Literal["auto"]
HealthPort = Annotated[int, Field(ge=1, le=65_535)]
HealthHost = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9.:-]{1,253}$",
        json_schema_extra={"allowed": "an address of this machine, such as 127.0.0.1, 0.0.0.0 or ::"},
    ),
]


class WorkerSettings(Settings):
    """What holds for every worker process."""

    lease_seconds: LeaseSeconds = Field(
        default=15.0,
        description="Seconds after which the jobs of a worker that fell silent go back to their queue.",
    )
    drain_seconds: DrainSeconds = Field(
        default=30.0,
        description="Seconds that running jobs have to end after SIGTERM before they go back to their queue.",
    )
    max_deliveries: MaxDeliveries = Field(
        default=3,
        description="Workers that may die while they hold a job before the job fails.",
    )
    stuck_seconds: StuckSeconds | None = Field(
        default=300.0,
        description="Seconds that a forward pass, one token of a generation, or a job's preprocessing or "
        "postprocessing may take before it counts as stuck and its worker process gives way to another; twenty times "
        "what is predicted of a pass, if that is longer; null waits for ever.",
    )
    preprocess_threads: PreprocessThreads = Field(
        default=1,
        description="Threads of each queue that prepare its inputs; each has its own tokenizer copies.",
    )
    torch_threads: TorchThreads | None = Field(
        default=None,
        description="Threads of one forward pass on the CPU; null takes every core the worker may run on.",
    )
    processes: Processes = Field(
        default=1,
        description="Worker processes that pipemill worker starts and watches over; auto is one for each GPU, or for "
        "each core that the worker may run on.",
    )
    cache_dir: str | None = Field(
        default=None,
        description="Folder where measurements of the models on this machine are kept between starts; null is "
        "pipemill in the user's cache folder.",
    )
    health_file: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description="File that a worker writes once a second to say how it is; null writes none. Several processes "
        "write one each: health.json becomes health-1.json, health-2.json.",
    )
    health_port: HealthPort | None = Field(
        default=None,
        description="Port at which a worker says over HTTP how it is (/livez, /readyz); null opens none. Several "
        "processes take this one and those after it.",
    )
    health_host: HealthHost = Field(
        default="127.0.0.1", description="Address at which health_port is opened; 0.0.0.0 lets other machines ask."
    )
