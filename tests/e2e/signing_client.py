"""A plain Celery client that signs its jobs: the recipe of docs/security.md, and what came of two jobs, as JSON."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from celery import Celery, chain
from celery.signals import before_task_publish
from kombu.serialization import dumps

from pipemill.protocol.names import TASK_NAME
from pipemill.signing import signer_of

signer = signer_of(os.environ["KEYS"])


@before_task_publish.connect
def sign(headers: dict[str, Any], body: Any, routing_key: str, **_: Any) -> None:
    """Add the headers of the signature."""
    if signer is not None:
        headers.update(signer.headers(headers, routing_key, dumps(body, "json")[2].encode()))


if __name__ == "__main__":
    with Celery(broker=os.environ["BROKER"], backend=os.environ["BROKER"]) as app:
        one = app.send_task(TASK_NAME, args=["one"], queue="echo", expires=60)
        first, second = (app.signature(TASK_NAME, args=args, queue="echo") for args in (("chained",), ()))
        told = {"one": one.get(timeout=30), "chain": chain(first, second).apply_async().get(timeout=30)}
    Path(sys.argv[1]).write_text(json.dumps(told), "utf-8")
