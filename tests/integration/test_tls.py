"""TLS with a real Redis: who trusts whom, and what is said when nobody does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from celery import Celery

from pipemill import AsyncClient, Client
from pipemill.errors import BrokerError, BrokerRefused, BrokerUnavailable
from pipemill.store.base import QueueInfo
from pipemill.store.jobs import RedisJobStore
from pipemill.store.queues import RedisQueueStore
from pipemill_worker.celery_host import create_app
from tests.certificates import Authority, need, tls_server

QUEUE = "sentiment"


@dataclass(frozen=True, kw_only=True)
class Secured:
    """Two servers of one CA; one of them asks its clients for certificates."""

    url: str
    asking: str
    ca: Path
    #: A URL's options that name a client's certificate of the CA.
    client: str
    stranger: Path

    @property
    def trusted(self) -> str:
        """The first server's URL, with its CA."""
        return f"{self.url}?ssl_ca_certs={self.ca}"


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """The servers, and a CA that has nothing to do with them."""
    need("redis-server", "openssl")
    folder = tmp_path_factory.mktemp("tls")
    authority, stranger = Authority(folder / "ca"), Authority(folder / "stranger")
    certificate, key = authority.sign("client")
    with (
        tls_server(authority, folder, asks_clients=False) as port,
        tls_server(authority, folder, asks_clients=True) as asking,
    ):
        yield Secured(
            url=f"rediss://localhost:{port}/0",
            asking=f"rediss://localhost:{asking}/0?ssl_ca_certs={authority.ca}",
            ca=authority.ca,
            client=f"&ssl_certfile={certificate}&ssl_keyfile={key}",
            stranger=stranger.ca,
        )


def declared(url: str) -> str:
    """Whether a producer can speak with the broker: declare a queue, and read it again."""
    store = RedisQueueStore(url)
    try:
        store.declare(QueueInfo(name=QUEUE, task="echo"))
        info = store.info(QUEUE)
    finally:
        store.close()
    assert info is not None
    return info.name


def test_both_sides_speak_tls(secured: Secured) -> None:
    """A producer enqueues over TLS what a worker's store takes over TLS."""
    worker = RedisJobStore(secured.trusted, QUEUE)
    worker.announce(QueueInfo(name=QUEUE, task="echo"))
    with Client(secured.trusted) as client:
        job = client.submit(QUEUE, "text")
        assert [client.status(job.id), len(worker.take(5).jobs)] == ["queued", 1]
    worker.close()


async def test_the_asynchronous_client_speaks_tls(secured: Secured) -> None:
    """So does asyncio's."""
    declared(secured.trusted)
    async with AsyncClient(secured.trusted) as client:
        job = await client.submit(QUEUE, "text")
        assert await job.cancel() is True


def test_a_ca_that_is_not_the_servers_is_refused(secured: Secured) -> None:
    """Neither a stranger's CA nor the system's will do; the error says which option names the right one."""
    for url in (f"{secured.url}?ssl_ca_certs={secured.stranger}", secured.url):
        with pytest.raises(BrokerRefused, match=r"can't be trusted: name the file of the CA.*ssl_ca_certs="):
            declared(url)


async def test_the_asynchronous_client_refuses_it_too(secured: Secured) -> None:
    """With the same error."""
    async with AsyncClient(f"{secured.url}?ssl_ca_certs={secured.stranger}") as client:
        with pytest.raises(BrokerRefused, match="can't be trusted"):
            await client.submit(QUEUE, "text")


def test_the_hosts_name_is_checked(secured: Secured) -> None:
    """A certificate for another host is refused, unless the URL says not to look at the name."""
    elsewhere = secured.trusted.replace("localhost", "127.0.0.1")
    with pytest.raises(BrokerRefused, match="for another host"):
        declared(elsewhere)
    assert declared(f"{elsewhere}&ssl_check_hostname=false") == QUEUE


def test_a_server_that_asks_for_certificates_gets_them(secured: Secured) -> None:
    """With a certificate of its CA a client is let in, without one it isn't."""
    assert declared(f"{secured.asking}{secured.client}") == QUEUE
    with pytest.raises(BrokerError, match=r"ssl_certfile|no answer"):
        declared(secured.asking)


def test_a_port_without_tls_is_told(secured: Secured, redis_server: str) -> None:
    """TLS with a server that speaks none ends in an error that asks for it, and the other way round in one at all."""
    with pytest.raises(BrokerUnavailable, match="does that port speak TLS"):
        declared(redis_server.replace("redis://", "rediss://"))
    with pytest.raises(BrokerUnavailable):
        declared(secured.url.replace("rediss://", "redis://"))


def celery_of(tmp_path: Path, url: str) -> Celery:
    """The application of a worker on this broker."""
    file = tmp_path / "pipemill.yaml"
    file.write_text(f"broker: '{url}'\nqueues: {{q: {{task: echo}}}}\n", "utf-8")
    return create_app(str(file))


def test_celery_speaks_tls_by_the_same_settings(tmp_path: Path, secured: Secured) -> None:
    """Its broker connection and its result backend get the certificates of the catalogue's URL."""
    with celery_of(tmp_path, f"{secured.asking}{secured.client}") as app:
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1)
            connection.default_channel.client.set("over", "tls")
        assert app.backend.client.get("over") == b"tls"
        app.backend.client.close()


def test_celery_checks_the_server_too(tmp_path: Path, secured: Secured) -> None:
    """By default kombu would take any certificate; here it takes the CA's only."""
    with celery_of(tmp_path, f"{secured.url}?ssl_ca_certs={secured.stranger}") as app:
        with pytest.raises(Exception, match="CERTIFICATE_VERIFY_FAILED"), app.connection_for_write() as connection:
            connection.connect()
        with pytest.raises(Exception, match="CERTIFICATE_VERIFY_FAILED"):
            app.backend.client.ping()
