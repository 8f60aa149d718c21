"""Settings that come from the environment or from a command's options, on top of the file's."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from pipemill.catalogue.broker import BrokerUrl
from pipemill.catalogue.mistakes import Mistake
from pipemill.catalogue.model import Device
from pipemill.catalogue.worker import (
    DrainSeconds,
    HealthHost,
    HealthPort,
    LeaseSeconds,
    MaxDeliveries,
    PreprocessThreads,
    Processes,
    TorchThreads,
)
from pipemill.validation import explain, schema_of

#: What the name of every environment variable of ours starts with.
VARIABLE_PREFIX: Final = "PIPEMILL_"
#: The environment variable that names the catalogue's file.
CATALOGUE_VARIABLE: Final = "PIPEMILL_CATALOGUE"

Environ = Mapping[str, str]


class Overlay(BaseModel):
    """What may be set outside the file; ``None`` leaves the file's value. Numbers may come as text."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    broker: BrokerUrl | None = None
    lease_seconds: LeaseSeconds | None = None
    drain_seconds: DrainSeconds | None = None
    max_deliveries: MaxDeliveries | None = None
    preprocess_threads: PreprocessThreads | None = None
    torch_threads: TorchThreads | None = None
    processes: Processes | None = None
    cache_dir: str | None = None
    health_file: str | None = None
    health_port: HealthPort | None = None
    health_host: HealthHost | None = None
    device: Device | None = None

    def over(self, lower: Overlay) -> Overlay:
        """What this and another give, this one winning."""
        return Overlay.model_validate({**lower.given(), **self.given()})

    def given(self) -> dict[str, Any]:
        """What is set, by name."""
        return {name: value for name, value in self if value is not None}

    def apply(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """The file's data with this on top. A device for all queues takes the place of their device maps."""
        given = self.given()
        applied = dict(data)
        if "broker" in given:
            applied["broker"] = given.pop("broker")
        device = given.pop("device", None)
        if device is not None:
            applied["queues"] = {name: _on_device(queue, device) for name, queue in data["queues"].items()}
        return {**applied, "worker": {**(data.get("worker") or {}), **given}}


def variable_of(name: str) -> str:
    """The environment variable of a setting."""
    return VARIABLE_PREFIX + name.upper()


def option_of(name: str) -> str:
    """The command-line option of a setting."""
    return "--" + name.replace("_", "-")


def from_environ(environ: Environ | None) -> tuple[Overlay, list[Mistake]]:
    """Read the environment, the process's own unless another is given; an empty variable counts as not set."""
    environ = os.environ if environ is None else environ
    values = {name: environ[variable_of(name)] for name in Overlay.model_fields if environ.get(variable_of(name))}
    return _overlay(values, variable_of)


def from_options(overrides: Mapping[str, Any] | None) -> tuple[Overlay, list[Mistake]]:
    """Read a command's options; ``None`` counts as not given."""
    values = {name: value for name, value in (overrides or {}).items() if value is not None}
    return _overlay(values, option_of)


def _overlay(values: Mapping[str, Any], name_of: Callable[[str], str]) -> tuple[Overlay, list[Mistake]]:
    """Validate values; those with a mistake are left out, so that the others still show theirs."""
    try:
        return Overlay.model_validate(values), []
    except ValidationError as error:
        found = explain(error, schema_of(Overlay))
    mistakes = [
        Mistake(path=name_of(str(each.keys[0])), problem=each.problem, mend=each.mend.removesuffix(" or null"))
        for each in found
    ]
    wrong = {each.keys[0] for each in found}
    return Overlay.model_validate({name: value for name, value in values.items() if name not in wrong}), mistakes


def _on_device(queue: Mapping[str, Any], device: str) -> dict[str, Any]:
    return {**{name: value for name, value in queue.items() if name != "device_map"}, "device": device}
