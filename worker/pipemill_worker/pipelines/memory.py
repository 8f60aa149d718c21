"""Whether there is memory for one more model, or for a copy of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipemill_worker.groups import MEMBERSHIP, MOUNT, groups
from pipemill_worker.pipelines.settings import ModelSettings

#: Where Linux tells of the machine's memory.
_MACHINE: Final = Path("/proc/meminfo")
#: What tells of a control group's: its bound, what it uses, and what of that can be dropped; versions 2 and 1.
_OF_GROUPS: Final = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)

#: Memory that loading and running a model needs, as a multiple of its files' bytes.
_ROOM: Final = 2
#: What must stay free beside a copy, as a multiple of it.
_KEPT_FREE: Final = 1

#: Bytes of the unit in which Linux tells of the machine's memory.
_KIB: Final = 1_024


@dataclass(frozen=True, slots=True)
class Share:
    """What of the free memory a process may use for copies that only make it faster."""

    #: Bytes that models will take that are still to be loaded.
    reserved: int = 0
    #: Processes that do as this one does, at the same time.
    processes: int = 1

    def allows(self, copies: int) -> bool:
        """Whether so many bytes of copies leave as much free; true where nothing tells."""
        free = free_memory()
        return free is None or copies * (1 + _KEPT_FREE) * self.processes <= free - self.reserved


#: That of a process which shares the machine's with nobody.
ALL_OF_IT: Final = Share()


def shares(settings: Sequence[ModelSettings], processes: int = 1) -> list[Share]:
    """What of the memory each queue that a process serves may use so, in the order in which they are loaded.

    What the queues behind it need is left to them, and to other processes what all of them need.
    """
    known = [0, *map(_weights_of, settings[1:])] if processes == 1 else [*map(_weights_of, settings)]
    elsewhere = (processes - 1) * sum(known)
    return [Share(elsewhere + sum(known[number + 1 :]), processes) for number in range(len(settings))]


def _weights_of(settings: ModelSettings) -> int:
    """As far as that can be told before it is loaded; those on a GPU take none."""
    if settings.model is None:
        return 0
    from pipemill_worker.pipelines.loading.placing import device_ahead  # noqa: PLC0415 - loads torch; echo needs none
    from pipemill_worker.pipelines.loading.refusal import Refusal  # noqa: PLC0415 - as above
    from pipemill_worker.pipelines.loading.sources import model_folder  # noqa: PLC0415 - as above

    try:
        return weight_bytes(model_folder(settings)) if device_ahead(settings) == "cpu" else 0
    except (OSError, ValueError, Refusal):
        return 0  # Loading it will tell.


def fits(folder: Path) -> bool:
    """Whether a model may be loaded from a folder, as it was saved, beside what runs; true where nothing tells."""
    free = free_memory()
    return free is None or _ROOM * weight_bytes(folder) <= free


def weight_bytes(folder: Path) -> int:
    """How large the weights in a model's folder are, as they were saved."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def free_memory(machine: Path = _MACHINE, membership: Path = MEMBERSHIP, mount: Path = MOUNT) -> int | None:
    """Bytes that this process may still take, by the machine and its control groups; ``None`` if nothing tells."""
    available = _number(machine, "MemAvailable:")
    told = [_left_in(folder) for folder in groups("memory", membership, mount)]
    told.append(None if available is None else available * _KIB)
    return min((each for each in told if each is not None), default=None)


def _left_in(group: Path) -> int | None:
    """Bytes that a control group may still take; ``None`` if it has no bound."""
    for bound, used, droppable in _OF_GROUPS:
        if (most := _number(group / bound)) is not None:
            return most - (_number(group / used) or 0) + (_number(group / "memory.stat", droppable) or 0)
    return None


def _number(file: Path, name: str = "") -> int | None:
    """The whole number behind a name at a line's start; ``None`` if there is none, or no such file."""
    try:
        lines = file.read_text("ascii").splitlines()
    except (OSError, ValueError):
        return None
    words = next((line.removeprefix(name).split() for line in lines if line.startswith(name)), [])
    return int(words[0]) if words and words[0].isdecimal() else None
