"""The Celery host: the engine's life, remote control and canvas inside a real Celery worker."""

from pipemill_worker.celery_host.application import create_app, install
from pipemill_worker.celery_host.exits import ExitCode

__all__ = ["ExitCode", "create_app", "install"]
