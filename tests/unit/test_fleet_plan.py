"""Which process gets which cores, GPUs and threads, and what the cores of this machine are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipemill_worker.fleet.cores import (
    allowed_cores,
    core_place,
    cpu_quota,
    neighbours_together,
    parse_v1,
    parse_v2,
    usable_cores,
    usable_count,
)
from pipemill_worker.fleet.gpus import gpu_names
from pipemill_worker.fleet.plan import Machine, oversubscription, plan_processes, process_count, split
from pipemill_worker.groups import group_folders

#: The groups of a process in a container under cgroup v1, as the kernel writes them.
V1 = "12:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n0::/system.slice\n"


def machine(cores: int, *, usable: int | None = None, gpus: int = 0) -> Machine:
    """A machine with so many cores and GPUs."""
    return Machine(cores=tuple(range(cores)), usable=usable or cores, gpus=gpu_names(gpus, None))


def write(folder: Path, files: Mapping[str, str]) -> Path:
    """Write small files, by their paths below a folder."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return folder


@pytest.mark.parametrize(
    ("asked", "spread", "gpus", "expected"),
    [(3, False, 0, 3), ("auto", False, 0, 8), ("auto", False, 2, 2), ("auto", True, 2, 1), (4, True, 2, 4)],
)
def test_the_number_of_processes(asked: int | Literal["auto"], spread: bool, gpus: int, expected: int) -> None:  # noqa: FBT001  # pytest's form
    """As asked; else one for each GPU, one for all when a model takes several, and without GPUs one for each core."""
    assert process_count(asked, machine(8, gpus=gpus), spread=spread) == expected


def test_a_quota_bounds_the_number_of_processes() -> None:
    """Many cores with a quota of two make two processes."""
    assert process_count("auto", machine(64, usable=2)) == 2


def test_cores_and_threads_are_shared_out() -> None:
    """Each process has its own cores, and as many threads as they are."""
    plans = plan_processes(machine(8), 3)
    assert [plan.number for plan in plans] == [1, 2, 3]
    assert [plan.cores for plan in plans] == [(0, 1), (2, 3, 4), (5, 6, 7)]
    assert [plan.threads for plan in plans] == [2, 3, 3]
    assert {plan.gpus for plan in plans} == {()}


def test_each_gpu_has_its_process() -> None:
    """With one process for each, every process sees one GPU, and has its part of the cores."""
    plans = plan_processes(machine(8, gpus=2), 2)
    assert [(plan.gpus, plan.cores) for plan in plans] == [(("0",), (0, 1, 2, 3)), (("1",), (4, 5, 6, 7))]


def test_gpus_are_grouped_or_shared() -> None:
    """Fewer processes than GPUs see several each; more share them evenly."""
    assert [plan.gpus for plan in plan_processes(machine(8, gpus=4), 2)] == [("0", "1"), ("2", "3")]
    assert [plan.gpus for plan in plan_processes(machine(8, gpus=2), 4)] == [("0",), ("0",), ("1",), ("1",)]


def test_a_quota_bounds_threads_and_leaves_the_cores() -> None:
    """Under a quota, processes share all cores, which others use as well, but compute with no more threads than it."""
    plans = plan_processes(machine(64, usable=4), 2)
    assert [len(plan.cores) for plan in plans] == [32, 32]
    assert [plan.threads for plan in plans] == [2, 2]


@given(cores=st.integers(1, 70), usable=st.integers(1, 70), processes=st.integers(1, 40))
def test_a_plan_never_oversubscribes_by_itself(cores: int, usable: int, processes: int) -> None:
    """As long as there are no more processes than usable cores, threads fill these cores and no core has two owners."""
    have = machine(cores, usable=min(cores, usable))
    plans = plan_processes(have, processes)
    warning = oversubscription(plans, have.usable)
    assert all(plan.cores and plan.threads for plan in plans)
    assert {core for plan in plans for core in plan.cores} <= set(have.cores)
    if processes <= have.usable:
        assert sum(plan.threads for plan in plans) == have.usable
        assert sum(len(plan.cores) for plan in plans) == len(set(have.cores))
        assert warning is None
    else:
        assert warning is not None


@given(st.lists(st.integers(), unique=True), st.integers(1, 20))
def test_a_split_loses_nothing(things: list[int], parts: int) -> None:
    """Parts are in order, of like size, and hold everything; what is too little for all is shared."""
    if not things:
        return
    cut = split(things, parts)
    assert len(cut) == parts
    assert list(dict.fromkeys(thing for part in cut for thing in part)) == (
        things if len(things) >= parts else list(dict.fromkeys(things[n * len(things) // parts] for n in range(parts)))
    )
    assert max(map(len, cut)) - min(map(len, cut)) <= 1


@pytest.mark.parametrize(
    ("processes", "threads", "mend"),
    [
        (2, 2, "leave worker.torch_threads out, or set it to 1"),
        (2, None, None),
        (2, 1, None),
        (4, None, "run at most 2 processes"),
    ],
)
def test_oversubscription_is_told_with_its_mend(processes: int, threads: int | None, mend: str | None) -> None:
    """More threads than cores are told, with what to set; what fits isn't."""
    warning = oversubscription(plan_processes(machine(2), processes, threads), 2)
    assert (warning is None) == (mend is None)
    if warning is not None and mend is not None:
        assert warning.endswith(mend)
        assert f"{processes} processes compute with 4 threads in all, and there are 2 cores" in warning


@pytest.mark.parametrize(
    ("count", "visible", "expected"),
    [
        (2, None, ("0", "1")),
        (0, None, ()),
        (2, "2, 3", ("2", "3")),
        (2, "GPU-8932f937,GPU-11", ("GPU-8932f937", "GPU-11")),
        (1, "5,-1,3", ("5",)),
        (0, "", ()),
    ],
)
def test_gpus_keep_the_names_they_were_given(count: int, visible: str | None, expected: tuple[str, ...]) -> None:
    """A process that sees some GPUs only hands these on by the names under which it has them."""
    assert gpu_names(count, visible) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("max 100000\n", None), ("150000 100000\n", 1.5), ("200000", 2.0), ("50000 0", 0.5)],
)
def test_the_quota_of_v2(text: str, expected: float | None) -> None:
    """cpu.max holds the time of all cores in a period, or "max"."""
    assert parse_v2(text) == expected


@pytest.mark.parametrize(
    ("quota", "period", "expected"), [("-1\n", "100000\n", None), ("0", "100000", None), ("250000\n", "100000\n", 2.5)]
)
def test_the_quota_of_v1(quota: str, period: str, expected: float | None) -> None:
    """A negative quota is none."""
    assert parse_v1(quota, period) == expected


def test_the_folders_of_v2() -> None:
    """A group's own folder and all above it."""
    assert group_folders("0::/kubepods/pod1/c1\n", "cpu") == ["kubepods/pod1/c1", "kubepods/pod1", "kubepods", "."]


def test_the_folders_of_v1() -> None:
    """The group of the CPU's controller, under both names of its mount; v2's own are looked at too."""
    folders = group_folders(V1, "cpu")
    assert folders[:3] == ["cpu,cpuacct/docker/abc", "cpu,cpuacct/docker", "cpu,cpuacct"]
    assert "cpu" in folders
    assert not any("memory" in folder for folder in folders)
    assert any("memory" in folder for folder in group_folders(V1, "memory"))


def test_a_group_outside_of_the_mount_has_the_mount_alone() -> None:
    """A path that leads above the mount names no file that can be read."""
    assert group_folders("0::/../../other\n", "cpu") == ["."]


def test_the_smallest_quota_counts(tmp_path: Path) -> None:
    """A group is bound by those above it as well."""
    membership = write(tmp_path, {"cgroup": "0::/pod/container\n"}) / "cgroup"
    groups = write(
        tmp_path / "groups",
        {"pod/container/cpu.max": "max 100000", "pod/cpu.max": "300000 100000", "cpu.max": "900000"},
    )
    assert cpu_quota(membership, groups) == 3.0


def test_a_container_under_v1_has_its_quota_at_the_mount(tmp_path: Path) -> None:
    """The folder that the kernel names isn't there in a container; the mount's own files are the container's."""
    membership = write(tmp_path, {"cgroup": V1}) / "cgroup"
    groups = write(
        tmp_path / "groups",
        {"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "200000\n", "cpu/cpu.max": "?"},
    )
    assert cpu_quota(membership, groups) == 2.0


@pytest.mark.parametrize("membership", ["", "0::/\n", V1])
def test_no_quota_is_no_bound(tmp_path: Path, membership: str) -> None:
    """Without files that tell of a quota there is none, nor on a system without control groups."""
    path = write(tmp_path, {"cgroup": membership}) / "cgroup"
    assert cpu_quota(path, tmp_path / "none") is None
    assert cpu_quota(tmp_path / "none", tmp_path) is None


@pytest.mark.parametrize(("cores", "quota", "expected"), [(8, None, 8), (8, 2.9, 2), (8, 0.5, 1), (2, 4.0, 2)])
def test_usable_cores_are_whole(cores: int, quota: float | None, expected: int) -> None:
    """A quota counts in whole cores, at least one, and gives no more than the affinity."""
    assert usable_count(cores, quota) == expected


def test_this_process_may_use_some_of_its_cores() -> None:
    """The machine that runs this test has at least one core, and no more usable ones than it allows."""
    assert 1 <= usable_cores() <= len(allowed_cores())


def test_hyper_threads_and_sockets_stay_together(tmp_path: Path) -> None:
    """Linux numbers the second threads of all cores after the first ones; an order by place puts them side by side."""
    siblings = {0: "0,4", 4: "0,4", 1: "1,5", 5: "1,5", 2: "2,6", 6: "2,6", 3: "3,7", 7: "3,7"}
    files = {f"cpu{core}/topology/thread_siblings_list": text for core, text in siblings.items()}
    files |= {f"cpu{core}/topology/physical_package_id": str(core % 2) for core in siblings}
    topology = write(tmp_path, files)
    assert neighbours_together(siblings, lambda core: core_place(core, topology)) == (0, 4, 2, 6, 1, 5, 3, 7)


def test_without_a_topology_cores_stand_by_number(tmp_path: Path) -> None:
    """Where the system doesn't say who shares what, the numbers have to do."""
    assert neighbours_together((3, 1, 2), lambda core: core_place(core, tmp_path)) == (1, 2, 3)
