"""What the asynchronous client asks of its event loop; asyncio is imported late: blocking producers spare it."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def sleep(seconds: float) -> None:
    """Let others work for so many seconds."""
    import asyncio  # noqa: PLC0415  # see above

    await asyncio.sleep(seconds)


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call what blocks in another thread."""
    import asyncio  # noqa: PLC0415  # see above

    return await asyncio.to_thread(function, *args, **kwargs)
