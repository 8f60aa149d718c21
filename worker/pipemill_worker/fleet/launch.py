"""From the command's options to running worker processes."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from pipemill.catalogue import Catalogue, QueueSettings, load_catalogue
from pipemill.errors import CatalogueError, ConfigurationError
from pipemill.health import clear
from pipemill_worker.fleet.cores import allowed_cores, neighbours_together, usable_cores
from pipemill_worker.fleet.gpus import visible_gpus
from pipemill_worker.fleet.plan import Machine, ProcessPlan, oversubscription, plan_processes, process_count
from pipemill_worker.fleet.process import Child, Command
from pipemill_worker.fleet.supervisor import GRACE_SECONDS, Supervisor

log = logging.getLogger("pipemill.supervisor")

#: The last port there is.
LAST_PORT: Final = 65_535
#: The supervisor's lines look like those of its workers.
_FORMAT: Final = "[%(asctime)s: %(levelname)s/supervisor] %(message)s"


def supervise(
    queues: Sequence[str],
    catalogue: str | None,
    options: Mapping[str, Any],
    *,
    hostname: str | None = None,
    loglevel: str = "INFO",
) -> int | None:
    """Run the worker processes that the catalogue asks for; the exit code when they have all ended.

    ``None`` when there is to be one: then this very process is the worker.

    Raises
    ------
    ConfigurationError
        When the catalogue has mistakes, lacks a queue, or asks for what this machine hasn't.

    """
    loaded = load_catalogue(catalogue, overrides=options)
    chosen = choose(loaded, queues)
    if loaded.worker.processes == 1:
        return None
    logging.basicConfig(level=loglevel.upper(), format=_FORMAT, stream=sys.stderr)
    plans = _plan(loaded, chosen)
    if len(plans) == 1:
        return None
    drain_seconds, health_file = loaded.worker.drain_seconds, loaded.worker.health_file
    check_ports(loaded.worker.health_port, len(plans))
    command = Command(
        queues=list(chosen),
        catalogue=catalogue,
        options=options,
        hostname=hostname,
        loglevel=loglevel,
        end_seconds=drain_seconds + GRACE_SECONDS,
        health_file=Path(health_file) if health_file else None,
        health_port=loaded.worker.health_port,
    )
    _clear(command.health_file)
    return Supervisor(plans, partial(Child, command=command), drain_seconds).run()


def choose(catalogue: Catalogue, queues: Sequence[str]) -> dict[str, QueueSettings]:
    """The queues that were named; all of the catalogue if none is.

    Raises
    ------
    CatalogueError
        When it lacks one.

    """
    known = catalogue.queues
    missing = [queue for queue in queues if queue not in known]
    if missing:
        text = f"no such queue in the catalogue: {', '.join(missing)}; it has {', '.join(sorted(known))}"
        raise CatalogueError(text)
    return {queue: known[queue] for queue in queues or known}


def _plan(catalogue: Catalogue, queues: Mapping[str, QueueSettings]) -> tuple[ProcessPlan, ...]:
    on_gpus = any(queue.device == "auto" or queue.device.startswith("cuda") for queue in queues.values())
    machine = Machine(
        cores=neighbours_together(allowed_cores()),
        usable=usable_cores(),
        gpus=visible_gpus() if on_gpus else (),
    )
    spread = any(queue.device_map is not None for queue in queues.values())
    count = process_count(catalogue.worker.processes, machine, spread=spread)
    plans = plan_processes(machine, count, catalogue.worker.torch_threads)
    check_devices(queues, plans)
    for plan in plans:
        _tell(plan, len(plans))
    warning = oversubscription(plans, machine.usable)
    if warning:
        log.warning("%s", warning, extra={"event": "fleet_oversubscribed"})
    return plans


def check_devices(queues: Mapping[str, QueueSettings], plans: Sequence[ProcessPlan]) -> None:
    """See that each queue's device is there in every process.

    Raises
    ------
    ConfigurationError
        When a queue names a GPU by a number that its process doesn't see.

    """
    seen = min(len(plan.gpus) for plan in plans)
    for name, queue in queues.items():
        number = queue.device.partition(":")[2]
        if len(plans) > 1 and number and int(number) >= seen:
            raise ConfigurationError(
                f"queue {name!r} names {queue.device}, but each of {len(plans)} worker processes sees {seen} GPUs, "
                "counted from cuda:0: set device: auto, or worker.processes: 1"
            )


def check_ports(first: int | None, processes: int) -> None:
    """See that there is a port for each process.

    Raises
    ------
    ConfigurationError
        When the last would lie beyond the last port there is.

    """
    if first is not None and first + processes - 1 > LAST_PORT:
        raise ConfigurationError(
            f"worker.health_port is {first}, and {processes} processes take that one and those after it, up to "
            f"{LAST_PORT}: set it to {LAST_PORT - processes + 1} at most"
        )


def _clear(health_file: Path | None) -> None:
    """Remove what processes that are gone said of themselves."""
    try:
        if health_file is not None:
            clear(health_file)
    except OSError as error:
        raise ConfigurationError(
            f"worker.health_file: what lies at {health_file} can't be removed ({error.strerror or error}): name a file "
            "in a folder where the worker may write"
        ) from error


def _tell(plan: ProcessPlan, processes: int) -> None:
    log.info(
        "worker process %d of %d: cores %s, torch threads %d%s",
        plan.number,
        processes,
        ",".join(map(str, plan.cores)),
        plan.threads,
        f", GPU {','.join(plan.gpus)}" if plan.gpus else "",
        extra={"event": "process_planned", "number": plan.number},
    )
