"""What a job may ask of its pipeline: one allow-list per task, with bounds."""

from pipemill.parameters.schema import parameter_schema
from pipemill.parameters.tasks import MEDIA_TASKS, PARAMETERS, REQUIRED, TASKS, Task
from pipemill.parameters.validate import find_parameter_mistakes, validate_parameters

__all__ = [
    "MEDIA_TASKS",
    "PARAMETERS",
    "REQUIRED",
    "TASKS",
    "Task",
    "find_parameter_mistakes",
    "parameter_schema",
    "validate_parameters",
]
