"""One subscribed connection for all that an asynchronous producer waits for."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeAlias

from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from pipemill.store.connection import HEALTH_CHECK_SECONDS, Client

#: How long the server may take to confirm a subscription, in seconds.
SUBSCRIBED_SECONDS: Final = 5.0

#: A message of redis-py.
Message: TypeAlias = dict[str, Any]


class Ear:
    """Hears one channel, for one wait."""

    def __init__(self) -> None:
        self._heard: asyncio.Queue[Message | None] = asyncio.Queue()

    def hear(self, heard: Message | None) -> None:
        """Take a message; or None, if the connection broke and there will be none any more."""
        self._heard.put_nowait(heard)

    async def next(self, timeout: float) -> Message | None:
        """The next message; None if there is none within ``timeout`` seconds, or if the connection broke."""
        try:
            return await asyncio.wait_for(self._heard.get(), timeout)
        except TimeoutError:
            return None


class Channels:
    """Opened by the first wait and kept until ``close``; if it breaks, the next wait opens another."""

    def __init__(self, client: Client):
        self._client = client
        self._ears: defaultdict[bytes, list[Ear]] = defaultdict(list)
        #: Subscribing and unsubscribing write to one connection, in order.
        self._writing = asyncio.Lock()
        self._channel: Any = None
        self._reader: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def heard(self, name: str) -> AsyncIterator[Ear]:
        """Hear a channel, from when the server has confirmed it.

        Raises
        ------
        RedisError
            When the server can't be reached or doesn't confirm.

        """
        ear, key = Ear(), name.encode()
        self._ears[key].append(ear)
        try:
            if not await self._subscribed(name, ear):  # On a connection that was lost meanwhile, maybe: once more.
                await self.close()
                if not await self._subscribed(name, ear):
                    raise RedisTimeoutError("the server didn't confirm a subscription")
            yield ear
        finally:
            self._ears[key].remove(ear)
            await self._unsubscribe(name, key)

    async def _subscribed(self, name: str, ear: Ear) -> bool:
        """Subscribe; whether the server confirmed it."""
        async with self._writing:
            kept = self._channel
            channel = self._client.pubsub() if kept is None else kept
            try:
                await channel.subscribe(name)
            except RedisError:
                if kept is None:
                    raise
                return False
            if kept is None:
                self._channel, self._reader = channel, asyncio.create_task(self._read(channel))
        return await ear.next(SUBSCRIBED_SECONDS) is not None

    async def _unsubscribe(self, name: str, key: bytes) -> None:
        """Leave a channel that nobody hears any more. Not waited for: what still comes of it is for nobody."""
        async with self._writing:
            if self._ears[key]:
                return
            del self._ears[key]
            if self._channel is not None:
                with suppress(RedisError):  # The reader meets the error, too.
                    await self._channel.unsubscribe(name)

    async def _read(self, channel: Any) -> None:
        """Hand messages on, until the connection breaks: then each wait looks for itself."""
        with suppress(RedisError):
            while True:
                message = await channel.get_message(timeout=HEALTH_CHECK_SECONDS)
                if message is not None and message["type"] in {"subscribe", "message"}:
                    for ear in self._ears.get(message["channel"], ()):
                        ear.hear(message)
        if self._channel is channel:
            self._channel = self._reader = None
        for ears in self._ears.values():
            for ear in ears:
                ear.hear(None)
        await channel.aclose()

    async def close(self) -> None:
        """Close the connection."""
        channel, reader = self._channel, self._reader
        self._channel = self._reader = None
        if reader is not None:
            reader.cancel()
            with suppress(asyncio.CancelledError):
                await reader
            await channel.aclose()
