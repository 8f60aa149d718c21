"""Transformers pipelines driven in stages: prepare, forward in shared batches, finish.

Importing this package loads neither torch nor transformers; loading a runner for a real model does.
"""

from __future__ import annotations

from pipemill_worker.pipelines.echo import EchoRunner
from pipemill_worker.pipelines.factory import load_runner
from pipemill_worker.pipelines.settings import ModelSettings, Validate

__all__ = ["EchoRunner", "ModelSettings", "Validate", "load_runner"]
