"""A process tells others how it is: in a file, and at a port. It knows neither engines, nor Celery, nor models."""

from pipemill_worker.health.reporter import Reporter, report_health
from pipemill_worker.health.server import HealthServer

__all__ = ["HealthServer", "Reporter", "report_health"]
