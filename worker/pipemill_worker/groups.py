"""The control groups, v1 or v2, that bound this process on Linux: in containers, and in systemd's services."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

#: What Linux says of this process's control groups.
MEMBERSHIP: Final = Path("/proc/self/cgroup")
#: Where the control groups' files are mounted.
MOUNT: Final = Path("/sys/fs/cgroup")


def groups(controller: str, membership: Path = MEMBERSHIP, mount: Path = MOUNT) -> list[Path]:
    """The folders of all groups that may bound what a controller (``cpu``, ``memory``) gives; some may not be there."""
    try:
        folders = group_folders(membership.read_text("utf-8"), controller)
    except OSError:  # no Linux, or none that tells
        return []
    return [mount / folder for folder in folders]


def group_folders(membership: str, controller: str) -> list[str]:
    """The folders, below the mount, of the groups that may bound a process: its own and all above it.

    ``membership`` is the text of ``/proc/self/cgroup``. In a container the folder that it names may not be there, and
    the mount itself is the container's own group.
    """
    folders: list[str] = []
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            mounts = [""]
        elif controller in controllers.split(","):
            mounts = [controllers, controller]
        else:
            continue
        folders += [str(PurePosixPath(mount) / group) for mount in mounts for group in _upwards(path)]
    return list(dict.fromkeys(folders))


def _upwards(path: str) -> Iterator[str]:
    """A group's path and those above it, relative to the mount; a path outside of the mount has only the mount."""
    group = PurePosixPath(path.lstrip("/"))
    if ".." in group.parts:
        yield ""
        return
    yield from map(str, (group, *group.parents))
