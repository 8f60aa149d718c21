"""Tenants share a real worker."""

from __future__ import annotations

import pytest

from pipemill import Client
from tests.e2e.rig import Serve, published, report_on

#: One job a batch and few leased, so that what is taken first is answered first.
ECHO = "queues: {{echo: {{task: echo, batch: {{max_items: 1}}, prefetch: 8, fair: {fair}}}}}"
FLOOD = 1_000


@pytest.mark.parametrize("fair", [True, False])
def test_a_light_tenant_is_answered_before_a_flood_that_came_first(serve: Serve, fair: bool) -> None:  # noqa: FBT001  # a case
    """With turns among the first, without them last; every job of both is answered once."""
    worker = serve(ECHO.format(fair=str(fair).lower()))
    with Client(serve.broker) as client, published(serve.broker) as heard:
        worker.freeze()
        flood = client.submit_many("echo", range(FLOOD), tenant="flood")
        light = client.submit_many("echo", ["a", "b"], tenant="light")
        assert set(report_on(client, "echo").tenants) == ({"flood", "light"} if fair else set())
        worker.thaw()
        assert [job.result(timeout=120) for job in light] == ["a", "b"]
        assert [job.result(timeout=120) for job in flood] == list(range(FLOOD))
        order = heard()
    assert sorted(order) == sorted(job.id for job in [*flood, *light])
    ahead = [order.index(job.id) for job in light]
    assert max(ahead) < 50 if fair else min(ahead) >= FLOOD - 1
    assert report_on_nothing_left(serve)


def report_on_nothing_left(serve: Serve) -> bool:
    """Whether neither jobs nor tenants nor bytes are left."""
    with Client(serve.broker) as client:
        found = report_on(client, "echo")
    return not found.tenants and not found.waiting_bytes and not sum(found.waiting.values())
