"""Asks a server for the facts that are judged; what it refuses to tell is left out."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from typing import Final

from redis.exceptions import NoPermissionError, ResponseError

from pipemill.catalogue import BrokerUrl
from pipemill.doctor.broker import BrokerFacts, Clock
from pipemill.doctor.rights import Rights, Trial, trials
from pipemill.store.base import QueueReport
from pipemill.store.connection import Client, connect, translated
from pipemill.store.queues import RedisQueueStore

#: Settings that INFO doesn't tell, or not everywhere. No pattern: that would fetch passwords, too.
SETTINGS: Final = ("appendfsync", "maxclients", "maxmemory-policy", "timeout")
#: Looks at the clock; that with the shortest round trip counts.
LOOKS: Final = 5


def look_at_broker(url: str, queues: Iterable[str]) -> BrokerFacts:
    """Ask a server about itself.

    Raises
    ------
    BrokerUnavailable, BrokerRefused
        When it doesn't answer, or not us.

    """
    with closing(connect(url)) as client, translated(url):
        client.ping()
        started = time.perf_counter()
        client.ping()
        return BrokerFacts(
            url=str(BrokerUrl(url)),
            trip=time.perf_counter() - started,
            info=_info(client),
            config=_config(client),
            clock=_clock(client),
            rights=_rights(client, trials(queues)),
        )


def look_at_queues(url: str) -> list[QueueReport]:
    """How the queues stand.

    Raises
    ------
    BrokerUnavailable, BrokerRefused
        When it doesn't answer, or not us.

    """
    with closing(RedisQueueStore(url)) as store:
        return store.reports()


def _info(client: Client) -> dict[str, str] | None:
    try:
        return {name: str(value) for name, value in client.info().items()}
    except ResponseError:  # this user may not, or the service has no such command
        return None


def _config(client: Client) -> dict[str, str]:
    found: dict[str, str] = {}
    with suppress(ResponseError):  # as above
        for name in SETTINGS:
            found |= client.config_get(name)
    return found


def _clock(client: Client) -> Clock | None:
    looks: list[Clock] = []
    with suppress(ResponseError):  # as above
        for _ in range(LOOKS):
            before, started = time.time(), time.perf_counter()
            seconds, micros = client.time()
            half = (time.perf_counter() - started) / 2
            looks.append(Clock(ahead=seconds + micros / 1e6 - (before + half), within=half))
    return min(looks, key=lambda clock: clock.within, default=None)


def _rights(client: Client, tried: Sequence[Trial]) -> Rights | None:
    """Put each command into a transaction, which is discarded; None if the server has no transactions for us."""
    pool = client.connection_pool
    connection = pool.get_connection()
    try:
        connection.send_command("MULTI")
        try:
            connection.read_response()
        except ResponseError:
            return None
        refused = [trial for trial in tried if _is_refused(connection, trial.command)]
        connection.send_command("DISCARD")
        connection.read_response()
    finally:
        connection.disconnect()  # whatever happened, no transaction stays open
        pool.release(connection)
    return Rights(
        producers=tuple(trial.name for trial in refused if trial.producers),
        workers=tuple(trial.name for trial in refused if not trial.producers),
    )


def _is_refused(connection: Client, command: Sequence[str]) -> bool:
    connection.send_command(*command)
    try:
        connection.read_response()
    except NoPermissionError:
        return True
    except ResponseError as error:
        return "unknown command" in str(error).lower()
    return False
