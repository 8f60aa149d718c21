"""Which process gets which cores, GPUs and threads: pure, from what the machine has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What there is to be shared out."""

    #: The cores on which processes may run, by number; neighbours stand together.
    cores: tuple[int, ...]
    #: How many cores may be busy at once; fewer than ``cores`` under a quota.
    usable: int
    #: The GPUs, each as ``CUDA_VISIBLE_DEVICES`` names it.
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ProcessPlan:
    """What one worker process gets."""

    #: From 1; it stands in the name of the process's Celery node.
    number: int
    #: The cores on which it runs.
    cores: tuple[int, ...]
    #: The GPUs that it sees, each as ``CUDA_VISIBLE_DEVICES`` names it; empty leaves the variable as it is.
    gpus: tuple[str, ...]
    #: CPU threads of one forward pass.
    threads: int
    #: How many processes load their models at the same time, itself included.
    processes: int = 1


def process_count(asked: int | Literal["auto"], machine: Machine, *, spread: bool = False) -> int:
    """How many processes to run: as many as asked, or by what the machine has.

    ``spread`` says that a model takes several GPUs (``device_map``): then ``auto`` is one process that sees them all.
    """
    if asked != "auto":
        return asked
    if machine.gpus:
        return 1 if spread else len(machine.gpus)
    return machine.usable


def plan_processes(machine: Machine, processes: int, torch_threads: int | None = None) -> tuple[ProcessPlan, ...]:
    """Share out a machine; threads are the busy cores that fall to a process, unless ``torch_threads`` says."""
    cores = split(machine.cores, processes)
    busy = split(range(machine.usable), processes)
    gpus: Sequence[tuple[str, ...]] = split(machine.gpus, processes) if machine.gpus else [()] * processes
    return tuple(
        ProcessPlan(
            number=number + 1,
            cores=cores[number],
            gpus=gpus[number],
            threads=torch_threads or len(busy[number]),
            processes=processes,
        )
        for number in range(processes)
    )


def split(things: Sequence[T], parts: int) -> list[tuple[T, ...]]:
    """Cut things into parts of like size, in their order; where there are fewer than parts, several parts share one."""
    count = len(things)
    if count < parts:
        return [(things[part * count // parts],) for part in range(parts)]
    return [tuple(things[part * count // parts : (part + 1) * count // parts]) for part in range(parts)]


def oversubscription(plans: Sequence[ProcessPlan], usable: int) -> str | None:
    """Say what is wrong with a plan that has more computing threads than cores, and the mend; ``None`` if it hasn't."""
    processes, threads = len(plans), sum(plan.threads for plan in plans)
    if threads <= usable:
        return None
    if processes > usable:
        mend = f"run at most {usable} processes"
    else:
        mend = f"leave worker.torch_threads out, or set it to {usable // processes}"
    return (
        f"{processes} processes compute with {threads} threads in all, and there are {usable} cores for them: threads "
        f"that wait for each other's core run several times slower; {mend}"
    )
