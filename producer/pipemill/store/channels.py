"""One subscribed connection for all that an asynchronous producer waits for."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeAlias

from redis.asyncio.client import PubSub
from redis.exceptions import ConnectionError as RedisConnectionError
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

    def forget(self) -> None:
        """Drop what was heard so far."""
        while not self._heard.empty():
            self._heard.get_nowait()

    async def next(self, timeout: float) -> Message | None:
        """The next message; None if there is none within ``timeout`` seconds, or if the connection broke."""
        try:
            return await asyncio.wait_for(self._heard.get(), timeout)
        except TimeoutError:
            return None


_PubSub: Any = PubSub  # Its hints don't fit what it does.


class _Channel(_PubSub):  # type: ignore[misc]  # as above
    """Doesn't connect again by itself: whoever reads and whoever subscribes would both do so, at the same time."""

    async def connect(self) -> None:
        """Connect once."""
        if self.connection is not None and not self.connection.is_connected:
            raise RedisConnectionError("the subscribed connection is lost")
        await super().connect()

    async def _reconnect(self, _: Any, error: BaseException | None = None, *__: Any) -> None:
        raise error or RedisConnectionError("the subscribed connection is lost")


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
            # What was kept may have been lost meanwhile: then once more.
            if not (await self._subscribed(name, ear) or await self._subscribed(name, ear)):
                raise RedisTimeoutError("the server didn't confirm a subscription")
            yield ear
        finally:
            self._ears[key].remove(ear)
            await self._unsubscribe(name, key)

    async def _subscribed(self, name: str, ear: Ear) -> bool:
        """Subscribe; whether the server confirmed it. If it didn't, the connection is not used again."""
        async with self._writing:
            kept = self._channel
            channel = _Channel(self._client.connection_pool) if kept is None else kept
            ear.forget()  # What came of a connection before this one.
            try:
                await channel.subscribe(name)
            except RedisError:
                if kept is None:
                    await channel.aclose()
                    raise
                await self._drop(kept)
                return False
            if kept is None:
                self._channel, self._reader = channel, asyncio.create_task(self._read(channel))
        confirmed = await ear.next(SUBSCRIBED_SECONDS) is not None
        if not confirmed:
            await self._drop(channel)
        return confirmed

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
        """Hand messages on, until the connection breaks."""
        try:
            with suppress(RedisError):  # Each wait then looks for itself, and meets a broker that is away.
                while True:
                    message = await channel.get_message(timeout=HEALTH_CHECK_SECONDS)
                    if message is not None and message["type"] in {"subscribe", "message"}:
                        for ear in self._ears.get(message["channel"], ()):
                            ear.hear(message)
        finally:
            self._forget(channel)
            await channel.aclose()

    def _forget(self, channel: Any) -> asyncio.Task[None] | None:
        """If this connection is the one in use, it no longer is, and whoever waits is told; its reader."""
        if channel is None or self._channel is not channel:
            return None
        reader, self._channel, self._reader = self._reader, None, None
        for ears in self._ears.values():
            for ear in ears:
                ear.hear(None)
        return reader

    async def _drop(self, channel: Any) -> None:
        """Close a connection, unless another has taken its place."""
        if (reader := self._forget(channel)) is not None:
            reader.cancel()
            await asyncio.wait({reader})

    async def close(self) -> None:
        """Close the connection."""
        await self._drop(self._channel)
