"""The engine: intake, preprocess, compose, forward, completion, heartbeat, reaper, supervision, bounded drain.

It knows neither Redis nor Celery nor any model: jobs come through a ``JobStore``, answers through a ``PipelineRunner``,
and what a host adds (revokes, what follows a job) through ``Hooks``.
"""

from pipemill_worker.engine.engine import Engine, EngineSettings
from pipemill_worker.engine.hooks import Hooks
from pipemill_worker.engine.lane import Lane

__all__ = ["Engine", "EngineSettings", "Hooks", "Lane"]
