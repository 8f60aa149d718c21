"""How much may wait in a queue."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipemill.catalogue.base import Settings
from pipemill.validation import mistaken

WaitingBytes = Annotated[int, Field(ge=1, le=1_099_511_627_776)]


class BoundSettings(Settings):
    """What may wait; `pipemill.QueueFull` names the bound that was met."""

    max_depth: int = Field(
        default=100_000, ge=1, le=100_000_000, description="Jobs that may wait; further ones are refused."
    )
    max_bytes: WaitingBytes | None = Field(
        default=None,
        description="Bytes that may wait: inputs and parameters as the broker holds them, and 1 KiB for each job; null "
        "sets no bound. An empty queue takes any job.",
    )
    max_tenant_depth: Annotated[int, Field(ge=1, le=100_000_000)] | None = Field(
        default=None, description="Jobs of one tenant that may wait; null sets no bound of its own."
    )
    max_tenant_bytes: WaitingBytes | None = Field(
        default=None, description="Bytes of one tenant's jobs that may wait; null sets no bound of its own."
    )
    max_memory_share: float = Field(
        default=0.9,
        gt=0,
        le=1,
        allow_inf_nan=False,
        description="Share of the broker's maxmemory in use from which jobs are refused, so that room is left to work "
        "off what waits; 1 fills it. Brokers without maxmemory, or that evict keys, are never full.",
    )


def check_turns(limits: BoundSettings | None, *, fair: bool) -> None:
    """Refuse bounds of tenants where tenants aren't told apart.

    Raises
    ------
    PydanticCustomError
        With the problem and the mend.

    """
    tells_apart = limits is not None and not (limits.max_tenant_depth is limits.max_tenant_bytes is None)
    if tells_apart and not fair:
        raise mistaken(
            "limits.max_tenant_depth and limits.max_tenant_bytes need lists of the tenants' own",
            "remove them, or let tenants take turns with fair: true",
        )
