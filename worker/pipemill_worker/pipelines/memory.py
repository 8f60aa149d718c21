"""Whether there is memory for one more model."""

from __future__ import annotations

from pathlib import Path
from typing import Final

#: Where Linux tells of the machine's memory, and of that of this process's control group (version 2).
_MACHINE: Final = Path("/proc/meminfo")
_GROUP: Final = Path("/sys/fs/cgroup")

#: Memory that loading and running a model needs, as a multiple of its files' bytes.
_ROOM: Final = 2

#: Bytes of the unit in which Linux tells of the machine's memory.
_KIB: Final = 1_024


def fits(folder: Path) -> bool:
    """Whether a model may be loaded from a folder, as it was saved, beside what runs; true where nothing tells."""
    needed = _ROOM * sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    free = free_memory()
    return free is None or needed <= free


def free_memory(machine: Path = _MACHINE, group: Path = _GROUP) -> int | None:
    """Bytes that this process may still take; ``None`` if nothing tells."""
    told = []
    if (available := _number(machine, "MemAvailable:")) is not None:
        told.append(available * _KIB)
    if (most := _number(group / "memory.max")) is not None:
        used = _number(group / "memory.current") or 0
        told.append(most - used + (_number(group / "memory.stat", "inactive_file") or 0))  # What can be dropped.
    return min(told, default=None)


def _number(file: Path, name: str = "") -> int | None:
    """The whole number behind a name at a line's start; ``None`` if there is none, or no such file."""
    try:
        lines = file.read_text("ascii").splitlines()
    except (OSError, ValueError):
        return None
    words = next((line.removeprefix(name).split() for line in lines if line.startswith(name)), [])
    return int(words[0]) if words and words[0].isdecimal() else None
