"""A stock Celery worker's application: ordinary tasks, no pipemill.

Started as ``celery -A tests.e2e.plain_worker worker -Q plain``; the broker is in the environment.
"""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

app = Celery("plain", broker=os.environ["PLAIN_BROKER"], backend=os.environ["PLAIN_BROKER"])


def shout(answer: Any) -> str:
    """A text out of whatever came before."""
    return str(answer).upper()


app.task(name="plain.shout")(shout)
