"""The load generator's HTTP, and the processes that `scripts/bench rivals` starts."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
from benchmarks.rivals.asking import Answer, HttpAsker, NoAnswer
from benchmarks.rivals.server import Server, Unavailable
from benchmarks.rivals.servers.settings import Settings
from benchmarks.rivals.sides import Side

from tests.helpers import until

#: A process with a child that ignores SIGTERM and a second thread.
FAMILY = """
import os, signal, subprocess, sys, threading
child = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", child])
threading.Thread(target=signal.pause, daemon=True).start()
open(sys.argv[1], "w").write(str(os.getpid()))
signal.pause()
"""


def settings(folder: Path) -> Settings:
    """Settings of a server that reads none of them."""
    file = str(folder / "computing")
    return Settings(model="", computing=file, port=1, broker="", queue="", size=1, wait=0, deadline=1)


def side(*code: str) -> Side:
    """A side that is a Python script."""
    return Side(name="family", package="none", command=lambda _: [sys.executable, "-c", *code])


@asynccontextmanager
async def http(status: str, body: str) -> AsyncIterator[tuple[int, list[asyncio.StreamWriter]]]:
    """A server that gives the same response to each request, or none; its port, and the connections that it got."""
    writers: list[asyncio.StreamWriter] = []
    gone = asyncio.Semaphore(0)
    response = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode() if status else b""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        while await reader.read(65536):
            writer.write(response)
        writer.close()
        await writer.wait_closed()
        gone.release()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], writers
        for _ in writers:
            await gone.acquire()


@pytest.mark.parametrize("listed", [False, True])
async def test_http_answers_are_read(*, listed: bool) -> None:
    """An answer is read from an object and from a list of one, and the connection is used again."""
    answer = {"label": "A", "score": 0.5}
    async with http("200 OK", json.dumps([answer] if listed else answer)) as (port, writers):
        asker = HttpAsker(port, "/", listed=listed)
        assert [await asker.ask("x"), await asker.ask("y")] == [Answer("A", 0.5)] * 2
        assert len(writers) == 1
        assert await asker.ask_all(["x"] * 3) == [Answer("A", 0.5)] * 3
        await asker.close()


async def test_http_refusals_are_no_answers() -> None:
    """A status other than 200, and a port that nobody listens on, are told apart from answers."""
    async with http("503 Busy", "{}") as (port, _):
        asker = HttpAsker(port, "/", listed=False)
        with pytest.raises(NoAnswer, match="503"):
            await asker.ask("x")
        await asker.close()
    with pytest.raises(NoAnswer):
        await HttpAsker(1, "/", listed=False).ask("x")


async def test_http_deadline_closes_the_connection() -> None:
    """A request that isn't answered in time is given up, and its connection isn't used for the next."""
    async with http("", "") as (port, writers):
        asker = HttpAsker(port, "/", listed=False)
        with pytest.raises(NoAnswer, match="Timeout"):
            await asker.ask("x", 0.05)
        with pytest.raises(NoAnswer, match="Timeout"):
            await asker.ask("x", 0.05)
        await asker.close()
        assert len(writers) == 2


def test_a_server_takes_its_children_with_it(tmp_path: Path) -> None:
    """Every process of a side is pinned and stopped with it, and none outlives it."""
    told = settings(tmp_path)
    server = Server(side(FAMILY, told.computing), told, tmp_path)
    try:
        until(lambda: Path(told.computing).exists() and Path(told.computing).read_text("utf-8"), "the parent is up")
        until(lambda: "up" in server.log(), "the child is up")
        core = min(os.sched_getaffinity(0))
        other = max(os.sched_getaffinity(0))
        with server.measured(core, other):
            parent = psutil.Process(int(Path(told.computing).read_text("utf-8")))
            child = parent.children()[0]
            assert {frozenset(os.sched_getaffinity(each.id)) for each in parent.threads()} == {frozenset({core})}
            assert len(parent.threads()) == 2
            assert child.cpu_affinity() == [other]
        until(lambda: {each.status() for each in (parent, child)} == {psutil.STATUS_STOPPED}, "both are stopped")
    finally:
        server.stop()
    assert psutil.wait_procs([parent, child], 10)[1] == []


def test_a_server_that_ended_says_why(tmp_path: Path) -> None:
    """What a rival printed before it failed is in the error."""
    server = Server(side("raise SystemExit('no such module')"), settings(tmp_path), tmp_path)
    try:
        psutil.wait_procs([server.root], 10)
        with pytest.raises(Unavailable, match="no such module"):
            server.check()
    finally:
        server.stop()
