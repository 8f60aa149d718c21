"""One run: sweep, closed loop, all at once, open loop; each side on the same core, in turns."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.material import TASK, TRANSFORMERS, save_model, sentences
from benchmarks.measure import wait_for
from benchmarks.rivals import load
from benchmarks.rivals.asking import Answer, Asker
from benchmarks.rivals.figures import DIRECT, Figures, best, padding_waste
from benchmarks.rivals.fleet import Cores, Fleet, Setting
from benchmarks.rivals.sides import OURS, PYTHON, Side
from pipemill import Client
from pipemill.embedded import EmbeddedBroker

#: Settings whose rates differ by less than this share are as good: the earlier one is chosen.
SWEEP_NOISE = 0.03
#: Longer than any request of a run takes that has no deadline, in seconds.
NO_DEADLINE_SECONDS = 600.0

_set_threads: Any = torch.set_num_threads


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is measured."""

    #: Texts that come at once; of them so many in the sweep and as direct calls, of one client, of many clients.
    texts: int = 600
    swept: int = 120
    alone: int = 30
    crowd: int = 160
    repeats: int = 3
    clients: tuple[int, ...] = (16, 64)
    #: The open loop's arrivals, as shares of a side's capacity, ascending.
    loads: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0, 2.0)
    #: How long each of them is counted, in seconds.
    seconds: float = 3.0
    #: Most settings of a side that are tried.
    settings: int = 99
    #: Fixed, so that arrivals are the same for all.
    seed: int = 7


#: A smoke run.
QUICK = Plan(texts=48, swept=24, alone=8, crowd=24, repeats=1, clients=(16,), loads=(0.5, 2.0), seconds=2.0, settings=1)


class Bench:
    """One run."""

    def __init__(self, sides: Sequence[Side], plan: Plan, folder: Path, console: Console):
        self._sides = {side.name: side for side in sides}
        self._plan = plan
        self._console = console
        self._cores = Cores.here()
        self._model = folder / "model"
        save_model(self._model)
        self._cores.take(self._cores.other)
        self._stack = ExitStack()
        url = self._stack.enter_context(EmbeddedBroker()).url
        self._client = self._stack.enter_context(Client(url))
        self._fleet = Fleet(folder, url, self._cores, self._say)
        self._stack.callback(lambda: self._fleet.stop(self._fleet.names))
        self._direct = Direct(self._model, self._cores)
        self._texts = sentences(plan.texts)
        self._lengths = self._direct.lengths(self._texts)
        self._expected: list[Answer] = []
        self._chosen: dict[str, Setting] = {}
        self.figures = Figures(texts=plan.texts, machine=_machine(self._lengths), versions=_versions(sides))

    def run(self) -> Figures:
        """Measure everything; the servers end with it."""
        with self._stack:
            self._call_directly()
            for side in self._sides.values():
                self._sweep(side)
            self._start_chosen(self._sides.values(), NO_DEADLINE_SECONDS)
            # From no load to the most: some learn from what came before, and would wait for a crowd that is gone.
            self._one_client()
            self._many_clients()
            self._all_at_once()
            self._open_loop()
            self.figures.unavailable.update(self._fleet.failed)
        return self.figures

    # -- phases

    def _call_directly(self) -> None:
        """Direct calls, one by one, say what is right."""
        self._say(f"{len(self._texts)} direct calls")
        self._expected = [self._direct.call(text)[0] for text in self._texts]

    def _sweep(self, side: Side) -> None:
        """Choose the setting that answers most texts a second when all come at once."""
        settings = side.sweep[: self._plan.settings]
        if len(settings) == 1:
            self._chosen[side.name] = settings[0]
            return
        names = {f"{side.name} ({side.shown(*setting)})": setting for setting in settings}
        texts, rates = self._texts[: self._plan.swept], {}
        self._fleet.start({name: (side, each) for name, each in names.items()}, NO_DEADLINE_SECONDS, texts[0])
        for name, setting in names.items():
            if loop := self._ask(name, partial(load.bulk, texts=texts)):
                rates[setting] = len(texts) / loop.seconds
        self.figures.sweep[side.name] = {side.shown(*setting): rate for setting, rate in rates.items()}
        if rates:
            self._chosen[side.name] = best(rates, SWEEP_NOISE)
            if not side.learns:
                self._fleet.rename(next(name for name in names if names[name] == self._chosen[side.name]), side.name)
        self._fleet.stop(list(names))

    def _start_chosen(self, sides: Iterable[Side], deadline: float) -> None:
        """Start sides with the settings that were chosen, unless they run."""
        chosen = {side.name: (side, self._chosen[side.name]) for side in sides if side.name in self._chosen}
        for name, (side, setting) in chosen.items():
            self.figures.settings[name] = side.shown(*setting)
        missing = {name: each for name, each in chosen.items() if name not in self._fleet.servers}
        self._fleet.start(missing, deadline, self._texts[0])

    def _one_client(self) -> None:
        """What a side adds to the direct call of the same text."""
        texts = self._texts[: self._plan.alone]
        for repeat in range(self._plan.repeats):
            direct = [self._direct.call(text)[1] for text in texts]
            self._note_idle(DIRECT, direct, direct)
            for name in _rotated(self._fleet.names, repeat):
                if loop := self._ask(name, partial(load.closed, texts=texts, clients=1)):
                    self._note_idle(name, loop.latencies, direct)

    def _note_idle(self, name: str, latencies: Sequence[float], direct: Sequence[float]) -> None:
        added = statistics.median(mine - bare for mine, bare in zip(latencies, direct, strict=True))
        self.figures.idle_ms.setdefault(name, []).append(statistics.median(latencies) * 1e3)
        self.figures.added_ms.setdefault(name, []).append(added * 1e3)

    def _many_clients(self) -> None:
        """The closed loop."""
        texts = self._texts[: self._plan.crowd]
        for clients in self._plan.clients:
            for name in self._fleet.names:
                if loop := self._ask(name, partial(load.closed, texts=texts, clients=clients)):
                    found = {"rate": len(texts) / loop.seconds, **_quantiles(loop)}
                    self.figures.closed.setdefault(name, {})[str(clients)] = found

    def _all_at_once(self) -> None:
        """All texts at once, in turns; the order rotates."""
        before = self._facts()
        part = self._texts[: self._plan.swept]
        for repeat in range(self._plan.repeats):
            rate = len(part) / sum(self._direct.call(text)[1] for text in part)
            self.figures.bulk.setdefault(DIRECT, []).append(rate)
            for name in _rotated(self._fleet.names, repeat):
                if loop := self._ask(name, partial(load.bulk, texts=self._texts)):
                    self.figures.bulk.setdefault(name, []).append(len(self._texts) / loop.seconds)
        for name in self._fleet.names:
            self.figures.waste[name] = padding_waste(self._lengths, self._chosen[name][0])
        if before:
            self.figures.waste[OURS] = self._own_waste(before)

    def _open_loop(self) -> None:
        """Poisson arrivals; servers that are told the deadline when they start are started again."""
        told = [self._sides[name] for name in self._fleet.names if self._sides[name].started_with_deadline]
        self._fleet.stop([side.name for side in told])
        self._start_chosen(told, load.DEADLINE_SECONDS)
        for share in self._plan.loads:
            for name in self._fleet.names:
                self._open_one(name, share)

    def _open_one(self, name: str, share: float) -> None:
        plan, capacity = self._plan, self.figures.capacity(name)

        async def measured(asker: Asker) -> load.Loop:
            loop = await load.opened(asker, self._texts, share * capacity, plan.seconds, plan.seed)
            if share != plan.loads[-1]:
                await load.drained(asker, self._texts[0])
            return loop

        if loop := self._ask(name, measured):
            self.figures.opened.setdefault(name, {})[f"{share:g}"] = {
                "asked": loop.asked,
                "answered": len(loop.latencies),
                "goodput": loop.good / (capacity * plan.seconds),
                **_quantiles(loop),
            }

    # -- helpers

    def _ask(self, name: str, work: Callable[[Asker], Awaitable[load.Loop]]) -> load.Loop | None:
        """Measure a server and check its answers."""
        loop = self._fleet.measure(name, work)
        if loop is not None:
            wrong = sum(answer.label != self._expected[number].label for number, answer in loop.answers.items())
            side = self._fleet.servers[name].side.name
            self.figures.wrong[side] = self.figures.wrong.get(side, 0) + wrong
            self._say(f"{name}: {len(loop.answers)} answers, {wrong} wrong, {loop.seconds:.1f} s")
        return loop

    def _facts(self) -> dict[str, Any]:
        """What our worker says of its lane; nothing if it doesn't take part."""
        server = self._fleet.servers.get(OURS)
        queues = self._client.queues() if server else []
        lanes = [report.lanes for report in queues if server and report.info.name == server.settings.queue]
        return dict(next(iter(lanes[0].values()), {})) if lanes else {}

    def _own_waste(self, before: dict[str, Any]) -> float:
        """Padding as our worker counted it; it says so about once a second."""
        target = before["ended"] + self._plan.repeats * self._plan.texts
        with self._fleet.servers[OURS].measured(self._cores.computing, self._cores.other):
            wait_for(lambda: self._facts().get("ended", 0) >= target, "the worker's own count of jobs")
        after = self._facts()
        return 1 - float(after["cost"] - before["cost"]) / float(after["padded_cost"] - before["padded_cost"])

    def _say(self, text: str) -> None:
        self._console.print(
            f"{time.strftime('%H:%M:%S')} {text}", style="dim", highlight=False, markup=False, soft_wrap=True
        )


class Direct:
    """The pipeline in this process, on the core that computes."""

    def __init__(self, model: Path, cores: Cores):
        _set_threads(1)
        self._pipe: Any = TRANSFORMERS.pipeline(TASK, model=str(model), device="cpu")
        self._cores = cores

    def lengths(self, texts: list[str]) -> list[int]:
        """Tokens of each text."""
        return [len(ids) for ids in self._pipe.tokenizer(texts)["input_ids"]]

    def call(self, text: str) -> tuple[Answer, float]:
        """The answer, and how many seconds it took."""
        self._cores.take(self._cores.computing)
        started = time.perf_counter()
        found = self._pipe(text)[0]
        seconds = time.perf_counter() - started
        self._cores.take(self._cores.other)
        return Answer(found["label"], found["score"]), seconds


def _quantiles(loop: load.Loop) -> dict[str, Any]:
    """Median and 95th percentile of the latency in milliseconds."""
    found = {"p50_ms": loop.quantile(0.5), "p95_ms": loop.quantile(0.95)}
    return {name: None if each is None else each * 1e3 for name, each in found.items()}


def _rotated(names: list[str], by: int) -> list[str]:
    """Let everyone be first, last and in the middle."""
    return [*names[by % len(names) :], *names[: by % len(names)]] if names else []


def _machine(lengths: Sequence[int]) -> dict[str, str]:
    """What it ran on, and over what."""
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return {
        "processor": next(names, platform.machine()),
        "cores": str(os.cpu_count()),
        "Python": platform.python_version(),
        **{name: metadata.version(name) for name in ("torch", "transformers")},
        "tokens of a text": f"{statistics.mean(lengths):.0f} on average, {min(lengths)} to {max(lengths)}",
    }


def _versions(sides: Iterable[Side]) -> dict[str, str]:
    """The version of each side, as it is installed."""
    folders = [str(folder) for folder in PYTHON.parents[1].glob("lib/python*/site-packages")]
    installed = {each.name: each.version for each in metadata.distributions(path=folders)}
    return {
        side.name: metadata.version("pipemill") if side.name == OURS else installed.get(side.package, "not installed")
        for side in sides
    }
