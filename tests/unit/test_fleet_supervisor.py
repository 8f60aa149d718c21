"""The supervisor over doubles of its children: who is started when, and with which code it all ends."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipemill.catalogue import QueueSettings, load_catalogue
from pipemill.cli import main
from pipemill.errors import CatalogueError, ConfigurationError
from pipemill_worker.fleet import gpus, launch, supervisor
from pipemill_worker.fleet.backoff import LASTING_SECONDS, LONGEST_SECONDS, MOST_DEATHS, Deaths, hopeless
from pipemill_worker.fleet.plan import Machine, ProcessPlan, plan_processes
from pipemill_worker.fleet.process import Command, node_name
from pipemill_worker.fleet.supervisor import Supervisor, shell_code

COMMAND = Command(
    queues=["echo"],
    catalogue="my.yaml",
    options={"broker": "redis://:secret@host/0", "device": None, "processes": "2", "lease_seconds": 2.5},
    hostname="gpu1@%h",
    loglevel="INFO",
    end_seconds=45.0,
)


class FakeChild:
    """A child that does what its script says, one word each time it is asked whether it has ended.

    ``ready`` is heard by the supervisor, a number ends it; at its last word it lives on until a signal ends it.
    """

    def __init__(self, plan: ProcessPlan, script: list[str | int], deaf: bool = False):  # noqa: FBT001, FBT002  # a double
        self.plan = plan
        self.pid = plan.number
        self.started = 0.0
        self.ready = False
        self.socket, self._theirs = socket.socketpair()
        self.signals: list[signal.Signals] = []
        self._script = script
        self._deaf = deaf
        self._code: int | None = None
        self._theirs.send(b"x")  # there is something to hear

    def listen(self) -> bool:
        news = not self.ready and "ready" in self._script
        self.ready = self.ready or news
        return news

    def ended(self) -> int | None:
        if self._code is None:
            codes = [word for word in self._script if isinstance(word, int)]
            self._code = codes[0] if codes else None
        return self._code

    def send(self, number: signal.Signals) -> None:
        self.signals.append(number)
        if self._deaf and number != signal.SIGKILL:
            os.kill(os.getpid(), signal.SIGTERM)  # whoever waits for a deaf worker asks once more
            return
        self.end(-number if number == signal.SIGKILL else 0)

    def end(self, code: int) -> None:
        """Die, as the system tells a parent."""
        self._code = code
        os.kill(os.getpid(), signal.SIGCHLD)

    def close(self) -> None:
        self.socket.close()
        self._theirs.close()


class Nursery:
    """Starts doubles by a script for each start, and asks the supervisor to stop when the scripts are used up."""

    def __init__(self) -> None:
        self.children: list[FakeChild] = []
        self.scripts: list[list[str | int]] = []
        self.deaf = False

    def start(self, plan: ProcessPlan) -> FakeChild:
        child = FakeChild(plan, self.scripts.pop(0), self.deaf)
        self.children.append(child)
        if not self.scripts:
            os.kill(os.getpid(), signal.SIGTERM)
        return child

    def run(self, processes: int, *scripts: list[str | int]) -> int:
        """Supervise so many processes."""
        self.scripts = list(scripts)
        plans = plan_processes(Machine(cores=(0,), usable=1), processes)
        return Supervisor(plans, self.start, drain_seconds=60.0).run()  # type: ignore[arg-type]  # stands in for a child

    @property
    def order(self) -> list[int]:
        """The numbers of the processes as they were started."""
        return [child.plan.number for child in self.children]


@pytest.fixture
def nursery(monkeypatch: pytest.MonkeyPatch) -> Iterator[Nursery]:
    """A place for doubles, where nobody waits between death and restart."""
    monkeypatch.setattr("pipemill_worker.fleet.backoff.FIRST_SECONDS", 0.0)
    made = Nursery()
    yield made
    for child in made.children:
        child.close()


def test_the_others_start_when_the_first_serves(nursery: Nursery) -> None:
    """All run, all are told to stop in order, and all ended well."""
    assert nursery.run(3, ["ready"], ["ready"], ["ready"]) == 0
    assert nursery.order == [1, 2, 3]
    assert [child.signals for child in nursery.children] == [[signal.SIGTERM]] * 3


def test_nobody_else_starts_before_the_first_serves(nursery: Nursery) -> None:
    """While the first dies, it alone is started again."""
    assert nursery.run(2, [70], [-9], ["ready"], ["ready"]) == 0
    assert nursery.order == [1, 1, 1, 2]


def test_one_that_dies_is_started_again(nursery: Nursery) -> None:
    """A death after serving brings a new life, and no bad code at the end."""
    assert nursery.run(1, ["ready", 70], ["ready", -9], ["ready"]) == 0
    assert len(nursery.children) == 3


def test_a_mistake_in_the_configuration_ends_all(nursery: Nursery) -> None:
    """Code 4 of one is the end of all, with that code."""
    assert nursery.run(2, ["ready"], [4], []) == 4
    assert nursery.children[0].signals == [signal.SIGTERM]
    assert len(nursery.children) == 2


def test_deaths_without_end_are_given_up(nursery: Nursery) -> None:
    """Whoever never comes to serve isn't started for ever; the code is the last one's, as a shell has it."""
    scripts: list[list[str | int]] = [[-9] for _ in range(MOST_DEATHS)]
    assert nursery.run(2, *scripts, []) == 128 + 9
    assert nursery.order == [1] * MOST_DEATHS


def test_one_that_others_stopped_stays_away(nursery: Nursery) -> None:
    """A worker that ended with 0 unasked isn't started again; when all did, that is the end."""
    assert nursery.run(2, [0], [0], []) == 0
    assert nursery.order == [1, 2]


def test_a_request_that_isnt_heard_is_made_stronger(nursery: Nursery) -> None:
    """The second request to stop hurries, the third kills, and the exit code tells of it."""
    nursery.deaf = True
    assert nursery.run(1, ["ready"]) == 128 + signal.SIGKILL
    assert nursery.children[0].signals == [signal.SIGTERM, signal.SIGQUIT, signal.SIGKILL]


def test_time_that_is_over_kills(nursery: Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that doesn't end within its drain and the grace is killed."""
    monkeypatch.setattr(supervisor, "GRACE_SECONDS", -60.0)
    monkeypatch.setattr(FakeChild, "send", _only_kill)
    assert nursery.run(1, ["ready"]) == 128 + signal.SIGKILL


def _only_kill(child: FakeChild, number: signal.Signals) -> None:
    if number == signal.SIGKILL:
        child.end(-number)


def test_a_start_that_fails_is_tried_again(nursery: Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without memory for one more process has it later."""
    failures = [OSError("no memory")]
    start = nursery.start

    def failing(plan: ProcessPlan) -> FakeChild:
        if failures:
            raise failures.pop()
        return start(plan)

    monkeypatch.setattr(nursery, "start", failing)
    assert nursery.run(1, ["ready"]) == 0
    assert failures == []


def test_the_process_has_its_signals_back(nursery: Nursery) -> None:
    """After a run, signals mean what they meant before."""
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)]
    nursery.run(1, ["ready"])
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)] == before
    assert signal.set_wakeup_fd(-1) == -1


def test_waits_double_and_are_bounded() -> None:
    """Each death in a row doubles the wait up to its bound; a long life starts anew."""
    deaths, waits = Deaths(), []
    for _ in range(9):
        deaths = deaths.after(lived_seconds=1.0, ready=False)
        waits.append(deaths.wait_seconds)
    assert waits[:4] == [1.0, 2.0, 4.0, 8.0]
    assert waits[-1] == LONGEST_SECONDS
    assert deaths.after(lived_seconds=LASTING_SECONDS, ready=True).wait_seconds == waits[0]


def test_deaths_without_serving_are_counted_until_one_serves() -> None:
    """Only what never serves is hopeless, and only when no other does better."""
    deaths = Deaths()
    for _ in range(MOST_DEATHS):
        assert not hopeless([deaths])
        deaths = deaths.after(lived_seconds=1.0, ready=False)
    assert hopeless([deaths])
    assert not hopeless([deaths, Deaths()])
    assert not hopeless([deaths.served()])
    assert not hopeless([deaths.after(lived_seconds=1.0, ready=True)])
    assert not hopeless([])


@pytest.mark.parametrize(
    ("hostname", "expected"),
    [(None, "celery-2@%h"), ("gpu1@%h", "gpu1-2@%h"), ("gpu1@box", "gpu1-2@box"), ("box", "celery-2@box")],
)
def test_each_process_has_its_own_node_name(hostname: str | None, expected: str) -> None:
    """The number goes to the node's name; what has no @ is the host, as for Celery."""
    assert node_name(hostname, 2) == expected


def test_a_child_is_told_its_part_and_no_secret_is_shown() -> None:
    """Options travel in the environment, not on the command line; a child runs one process, on its part."""
    plan = ProcessPlan(number=2, cores=(4, 5), gpus=("3",), threads=2, processes=5)
    environment = COMMAND.environment(plan)
    assert environment == {
        "PIPEMILL_BROKER": "redis://:secret@host/0",
        "PIPEMILL_LEASE_SECONDS": "2.5",
        "PIPEMILL_PROCESSES": "1",
        "PIPEMILL_TORCH_THREADS": "2",
        "PIPEMILL_SUPERVISED": "45.0",
        "PIPEMILL_SUPERVISED_PROCESSES": "5",
        "OMP_NUM_THREADS": "2",
        "MKL_NUM_THREADS": "2",
        "CUDA_VISIBLE_DEVICES": "3",
    }
    arguments = COMMAND.arguments(plan)
    assert arguments[arguments.index("--hostname") + 1] == "gpu1-2@%h"
    assert arguments[-2:] == ["--", "echo"]
    assert not any("secret" in argument for argument in arguments)


def test_a_child_without_gpus_keeps_what_it_may_see() -> None:
    """On a machine without GPUs, or for queues on the CPU, the variable isn't touched."""
    assert gpus.VISIBLE not in COMMAND.environment(ProcessPlan(number=1, cores=(0,), gpus=(), threads=1))


@pytest.mark.parametrize(("code", "expected"), [(0, 0), (70, 70), (-9, 137), (-15, 143)])
def test_codes_as_a_shell_has_them(code: int, expected: int) -> None:
    """A signal is 128 and its number."""
    assert shell_code(code) == expected


def test_a_numbered_gpu_must_be_seen_by_every_process() -> None:
    """With several processes, cuda:1 of a process that sees one GPU is a mistake; cuda and cuda:0 are not."""
    plans = plan_processes(Machine(cores=(0, 1), usable=2, gpus=("0", "1")), 2)
    settings = {device: QueueSettings(task="echo", device=device) for device in ("auto", "cuda", "cuda:0", "cuda:1")}
    launch.check_devices({name: settings[name] for name in ("auto", "cuda", "cuda:0")}, plans)
    with pytest.raises(ConfigurationError, match=r"'q' names cuda:1.*sees 1 GPUs.*set device: auto"):
        launch.check_devices({"q": settings["cuda:1"]}, plans)
    launch.check_devices({"q": settings["cuda:1"]}, plans[:1])


@pytest.fixture
def catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Writes a catalogue of one queue on the CPU with these settings of its workers."""
    for name in ("PIPEMILL_PROCESSES", "PIPEMILL_TORCH_THREADS", "PIPEMILL_DEVICE", "PIPEMILL_CATALOGUE"):
        monkeypatch.delenv(name, raising=False)

    def written(worker: str) -> str:
        path = tmp_path / "pipemill.yaml"
        path.write_text(f"worker: {{{worker}}}\nqueues: {{echo: {{task: echo, device: cpu}}}}", "utf-8")
        return str(path)

    return written


def test_one_process_needs_no_supervisor(catalogue: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One process, asked for, by default or because the machine has one core, is the command's own."""
    monkeypatch.setattr(launch, "usable_cores", lambda: 1)
    for worker, options in (
        ("", {}),
        ("processes: 1", {}),
        ("processes: 8", {"processes": "1"}),
        ("", {"processes": "auto"}),
    ):
        assert launch.supervise(["echo"], catalogue(worker), options) is None


def test_a_queue_that_isnt_there_is_told_before_anything_starts(catalogue: Callable[[str], str]) -> None:
    """Its mistake is the catalogue's, with the names of those that are."""
    loaded = load_catalogue(catalogue("processes: 2"), environ={})
    assert list(launch.choose(loaded, [])) == ["echo"]
    with pytest.raises(CatalogueError, match="no such queue in the catalogue: ekho; it has echo"):
        launch.choose(loaded, ["ekho"])


@pytest.mark.parametrize("processes", ["none", "0", "2.5"])
def test_a_wrong_number_of_processes_ends_the_command(catalogue: Callable[[str], str], processes: str) -> None:
    """The option is named, with what it takes; nothing is started."""
    done = CliRunner().invoke(main, ["worker", "--catalogue", catalogue(""), "--processes", processes])
    assert done.exit_code == 4
    assert "--processes" in done.stderr


def test_a_torch_that_cant_be_asked_for_gpus_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last line of what went wrong is told, with the mend."""
    monkeypatch.setattr(gpus, "_COUNT", "raise ImportError('libcudart is missing')")
    with pytest.raises(ConfigurationError, match=r"ImportError: libcudart is missing.*device: cpu"):
        gpus.visible_gpus()


def test_gpus_are_counted_by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The count comes from another process, the names from the variable."""
    monkeypatch.setattr(gpus, "_COUNT", "print(2)")
    monkeypatch.setenv(gpus.VISIBLE, "4,7")
    assert gpus.visible_gpus() == ("4", "7")
