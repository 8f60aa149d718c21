"""An asynchronous client that blocks, so that one test runs over both clients."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Generator
from typing import Any

from pipemill.aio import AsyncJob


class Blocking:
    """A proxy of an asynchronous client or job: what it returns is awaited."""

    def __init__(self, target: Any, runner: asyncio.Runner):
        self._target = target
        self._runner = runner

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._target, name)
        if not callable(attribute):
            return attribute
        return lambda *args, **kwargs: self._settled(attribute(*args, **kwargs))

    def _settled(self, value: Any) -> Any:
        if inspect.isasyncgen(value):
            return self._iterate(value)
        if inspect.iscoroutine(value):
            value = self._runner.run(value)
        if isinstance(value, list):
            return [self._settled(each) for each in value]
        return Blocking(value, self._runner) if isinstance(value, AsyncJob) else value

    def _iterate(self, source: AsyncGenerator[Any, None]) -> Generator[Any, None, None]:
        async def following() -> Any:
            return await anext(source)

        try:
            while True:
                yield self._runner.run(following())
        except StopAsyncIteration:
            return
        finally:
            self._runner.run(source.aclose())
