"""Celery's remote control, extended to lanes.

Each command does what Celery's own does for ordinary queues, and the same for lanes: ``inspect active``, ``reserved``,
``query_task`` and ``active_queues`` list their jobs too, ``cancel_consumer`` and ``add_consumer`` pause and resume
them.
Inputs and parameters are never listed.
"""

from __future__ import annotations

import os
from typing import Any

from celery.worker import control
from celery.worker.control import control_command, inspect_command

from pipemill.protocol.names import TASK_NAME
from pipemill_worker.engine import Engine, Lane
from pipemill_worker.engine.work import Work


def _engine(state: Any) -> Engine | None:
    lanes = getattr(state.consumer.controller, "pipemill", None)
    return lanes.engine if lanes is not None else None


def _jobs(state: Any) -> list[tuple[dict[str, Any], bool]]:
    engine = _engine(state)
    return [(_info(state, lane, work), running) for lane, work, running in engine.works()] if engine else []


def _info(state: Any, lane: Lane, work: Work) -> dict[str, Any]:
    """A job in the form of Celery's ``Request.info()``."""
    return {
        "id": work.job.id,
        "name": TASK_NAME,
        "args": [],
        "kwargs": {},
        "type": TASK_NAME,
        "hostname": state.hostname,
        "time_start": None,
        "acknowledged": False,
        "delivery_info": {
            "exchange": "",
            "routing_key": lane.name,
            "priority": work.job.priority,
            "redelivered": work.deliveries > 0,
        },
        "worker_pid": os.getpid(),
    }


_celery = {name: control.Panel.data[name] for name in ("active", "reserved", "query_task", "active_queues")}
_celery_queues = {name: control.Panel.data[name] for name in ("add_consumer", "cancel_consumer")}


@inspect_command(alias="dump_active")
def active(state: Any, safe: bool = False, **kwargs: Any) -> list[dict[str, Any]]:  # noqa: FBT001, FBT002  # Celery's signature
    """List of jobs and tasks currently being executed."""
    mine = [info for info, running in _jobs(state) if running]
    return [*_celery["active"](state, safe=safe, **kwargs), *mine]


@inspect_command(alias="dump_reserved")
def reserved(state: Any, **kwargs: Any) -> list[dict[str, Any]]:
    """List of jobs and tasks in hand that don't run yet."""
    mine = [info for info, running in _jobs(state) if not running]
    return [*_celery["reserved"](state, **kwargs), *mine]


@inspect_command(args=[("ids", str)], variadic="ids", signature="[id1 [id2 [... [idN]]]]")
def query_task(state: Any, ids: Any, **kwargs: Any) -> dict[str, Any]:
    """Query for jobs and tasks by id."""
    wanted = {ids} if isinstance(ids, str) else set(ids)
    found: dict[str, Any] = dict(_celery["query_task"](state, ids, **kwargs))
    for info, running in _jobs(state):
        if info["id"] in wanted:
            found[info["id"]] = ["active" if running else "reserved", info]
    return found


@inspect_command()
def active_queues(state: Any) -> list[dict[str, Any]]:
    """List the queues a worker takes from."""
    engine = _engine(state)
    lanes = [lane for lane in engine.lanes.values() if not lane.paused] if engine else []
    return [
        *_celery["active_queues"](state),
        *({"name": lane.name, "exchange": {"name": ""}, "routing_key": lane.name, "pipemill": True} for lane in lanes),
    ]


@control_command(
    args=[("queue", str), ("exchange", str), ("exchange_type", str), ("routing_key", str)],
    signature="<queue> [exchange [type [routing_key]]]",
)
def add_consumer(state: Any, queue: str, *args: Any, **options: Any) -> Any:
    """Tell worker(s) to take from a queue; a lane that was paused goes on."""
    lanes = getattr(state.consumer.controller, "pipemill", None)
    if lanes is not None and lanes.engine is not None and queue in lanes.engine.lanes:
        lanes.engine.resume(queue)
        return {"ok": f"taking from {queue}"}
    if lanes is not None and queue in lanes.host.catalogue.queues:
        return {"error": f"this worker hasn't loaded the pipeline of {queue}: start one with `pipemill worker {queue}`"}
    return _celery_queues["add_consumer"](state, queue, *args, **options)


@control_command(args=[("queue", str)], signature="<queue>")
def cancel_consumer(state: Any, queue: str, **options: Any) -> Any:
    """Tell worker(s) to take no more from a queue; a lane finishes the jobs it holds."""
    engine = _engine(state)
    if engine is not None and queue in engine.lanes:
        engine.pause(queue)
        return {"ok": f"no longer taking from {queue}"}
    return _celery_queues["cancel_consumer"](state, queue, **options)
