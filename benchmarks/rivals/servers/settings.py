"""What a server is told, through the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass

#: Before each name in the environment.
PREFIX = "RIVAL_"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One rival's settings of one run."""

    #: Folder of the model.
    model: str
    #: File that collects the process ids of those that compute, one a line.
    computing: str
    #: Where it listens, on loopback.
    port: int
    #: Redis or Valkey of those that have a broker.
    broker: str
    #: Queue of those that have a broker.
    queue: str
    #: Most requests of a batch.
    size: int
    #: How long a batch may wait for more requests, in seconds.
    wait: float
    #: How old a request may become, in seconds.
    deadline: float

    def environment(self) -> dict[str, str]:
        """The variables that say this."""
        return {PREFIX + name.upper(): str(value) for name, value in vars(self).items()}

    @classmethod
    def from_environment(cls) -> Settings:
        """Read them."""
        given = {
            name.removeprefix(PREFIX).lower(): each for name, each in os.environ.items() if name.startswith(PREFIX)
        }
        return cls(
            model=given["model"],
            computing=given["computing"],
            port=int(given["port"]),
            broker=given["broker"],
            queue=given["queue"],
            size=int(given["size"]),
            wait=float(given["wait"]),
            deadline=float(given["deadline"]),
        )
