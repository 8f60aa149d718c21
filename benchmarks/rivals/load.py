"""Load: all at once, closed loop, and open loop with Poisson arrivals and deadlines."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.rivals.asking import Answer, Asker, NoAnswer

#: How old an answer may be in the open loop, in seconds.
DEADLINE_SECONDS = 2.0
#: The first part of the open loop isn't counted: queues fill; as long as the deadline, in seconds.
FILLING_SECONDS = DEADLINE_SECONDS
#: Requests that a server may miss while it works off what an open loop has left behind.
DRAIN_TRIES = 10
#: Requests before a closed loop that aren't counted.
WARM = 4


@dataclass
class Loop:
    """What a loop saw."""

    #: Of those that were answered, in seconds, in the order of arrival.
    latencies: list[float] = field(default_factory=list)
    #: Answers by the number of their text.
    answers: dict[int, Answer] = field(default_factory=dict)
    #: How many requests there were.
    asked: int = 0
    #: From the first request to the last answer, in seconds; of an open loop the part that is counted.
    seconds: float = 0.0
    #: Answers within their deadline, in the part that is counted.
    good: int = 0

    def quantile(self, share: float) -> float | None:
        """The latency that this share of the answers stays below, in seconds; None without enough of them."""
        if len(self.latencies) < 2:  # noqa: PLR2004  # two points make a line
            return None
        return statistics.quantiles(self.latencies, n=100, method="inclusive")[round(share * 100) - 1]


async def bulk(asker: Asker, texts: Sequence[str]) -> Loop:
    """Independent requests, all at once."""
    started = time.perf_counter()
    answers = await asker.ask_all(texts)
    return Loop(answers=dict(enumerate(answers)), asked=len(texts), seconds=time.perf_counter() - started)


async def closed(asker: Asker, texts: Sequence[str], clients: int) -> Loop:
    """So many clients, each of which asks again as soon as it has its answer."""
    for text in texts[:WARM]:
        await asker.ask(text)
    loop, waiting = Loop(asked=len(texts)), iter(enumerate(texts))

    async def client() -> None:
        for number, text in waiting:
            asked = time.perf_counter()
            loop.answers[number] = await asker.ask(text)
            loop.latencies.append(time.perf_counter() - asked)

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    loop.seconds = time.perf_counter() - started
    return loop


def arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """Moments of Poisson arrivals, in seconds from the start; the same for the same seed."""
    chance, moments, moment = random.Random(seed), [], 0.0  # noqa: S311  # the same every time; nothing is secret
    while (moment := moment + chance.expovariate(rate)) < seconds:
        moments.append(moment)
    return moments


async def opened(asker: Asker, texts: Sequence[str], rate: float, seconds: float, seed: int) -> Loop:
    """Requests that arrive whether or not earlier ones are answered; each is given up at its deadline."""
    loop = Loop(seconds=seconds)
    begin = time.perf_counter()

    async def request(number: int, due: float) -> None:
        left = due + DEADLINE_SECONDS - (time.perf_counter() - begin)
        try:
            answer = await asker.ask(texts[number % len(texts)], max(left, 1e-3))
        except NoAnswer:
            return
        now = time.perf_counter() - begin
        loop.answers[number % len(texts)] = answer
        loop.latencies.append(now - due)
        loop.good += now - due <= DEADLINE_SECONDS and FILLING_SECONDS < now <= FILLING_SECONDS + seconds

    waiting: list[asyncio.Task[None]] = []
    for number, due in enumerate(arrivals(rate, FILLING_SECONDS + seconds, seed)):
        await asyncio.sleep(max(due - (time.perf_counter() - begin), 0.0))
        waiting.append(asyncio.create_task(request(number, due)))
    loop.asked = len(waiting)
    await asyncio.gather(*waiting)
    return loop


async def drained(asker: Asker, text: str) -> None:
    """Wait until what an open loop has left behind is done, by asking until there is an answer in time."""
    for _ in range(DRAIN_TRIES):
        try:
            await asker.ask(text, DEADLINE_SECONDS)
        except NoAnswer:
            continue
        return
    raise NoAnswer(f"no answer in time, {DRAIN_TRIES} times after an open loop")
