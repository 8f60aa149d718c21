"""What a job may ask of its pipeline: one allow-list per task, with bounds."""

from pipemill.parameters.tasks import PARAMETERS, REQUIRED, TASKS, Task
from pipemill.parameters.validate import find_parameter_mistakes, validate_parameters

__all__ = ["PARAMETERS", "REQUIRED", "TASKS", "Task", "find_parameter_mistakes", "validate_parameters"]
