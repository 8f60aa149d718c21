"""The Celery application of a worker."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, NoReturn

from celery import Celery
from kombu.entity import Queue

from pipemill.address import Address
from pipemill.errors import ConfigurationError
from pipemill.protocol.names import TASK_NAME
from pipemill_worker.celery_host.credentials import credentials_name
from pipemill_worker.celery_host.exits import ExitCode
from pipemill_worker.celery_host.host import Host
from pipemill_worker.celery_host.steps import POOL, Lanes


def create_app(catalogue: str | None = None, overrides: Mapping[str, Any] | None = None) -> Celery:
    """Make an application that serves the catalogue's queues; the catalogue is read when it is first needed."""
    host = Host(catalogue, overrides)
    app = Celery("pipemill", set_as_current=False)

    def configure(sender: Celery, **_: Any) -> None:
        try:
            sender.config_from_object(settings(host))
        except ConfigurationError as error:
            print(error, file=sys.stderr)  # noqa: T201  # logging isn't set up yet
            raise SystemExit(int(ExitCode.CONFIGURATION)) from error

    app.on_configure.connect(configure, weak=False)
    return install(app, host)


def install(app: Celery, host: Host) -> Celery:
    """Give an application the lanes of a catalogue; its own tasks and queues stay its own."""
    from pipemill_worker.celery_host import control  # noqa: F401, PLC0415  # registers the remote control commands

    app.steps["worker"].add(type("Lanes", (Lanes,), {"host": host}))
    app.task(name=TASK_NAME, shared=False)(_not_served)
    return app


def _not_served(*_: Any, **__: Any) -> NoReturn:
    """Stand in for a job on a queue that this worker consumes as an ordinary one."""
    text = "this queue isn't in the worker's catalogue, so no pipeline is bound to it"
    raise ConfigurationError(text)


def settings(host: Host) -> dict[str, Any]:
    """Celery's settings for a worker of this catalogue; each departure from a default has its reason."""
    url = celery_url(host.address)
    tls = dict(host.address.tls)
    return {
        "broker_url": url,
        "result_backend": url,
        "broker_use_ssl": tls or False,
        "redis_backend_use_ssl": tls or None,
        "worker_pool": POOL,
        # The engine has its own threads; this one is for ordinary tasks.
        "worker_concurrency": 1,
        "worker_prefetch_multiplier": 1,
        "task_queues": [Queue(name) for name in host.catalogue.queues],
        # JSON only: a pickle runs code.
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        "result_accept_content": ["json"],
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        # Workers wait for their broker, for as long as it takes.
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # And for one that refuses what Celery writes: it is out of memory, or its disk is full.
        "broker_channel_error_retry": True,
        # A reconnect must not throw away a batch: leases outlive connections.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_enable_prefetch_count_reduction": False,
        # Half-open connections are noticed.
        "broker_transport_options": {"socket_timeout": 10, "socket_connect_timeout": 5, "health_check_interval": 25},
        # Events cost 225 to 450 µs a job.
        "worker_send_task_events": False,
    }


def celery_url(address: Address) -> str:
    """Write a broker's address as Celery wants it: a Unix socket has a scheme of its own, and no password is in it."""
    url = address.url
    if url.startswith("unix://"):
        path = url.removeprefix("unix://").partition("?")[0]
        url = f"redis+socket://{path}?virtual_host={address.database}"
    if address.credentials() is None:
        return url
    return f"{url}{'&' if '?' in url else '?'}credential_provider={credentials_name(address)}"
