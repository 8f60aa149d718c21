"""From a queue's settings to its runner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipemill_worker.pipelines.echo import EchoRunner
from pipemill_worker.pipelines.settings import ECHO_TASK, ModelSettings, Validate
from pipemill_worker.seams import PipelineRunner


def load_runner(
    name: str, settings: ModelSettings, *, threads: int | None = None, validate: Validate | None = None
) -> PipelineRunner:
    """Load the pipeline of the queue ``name``.

    ``threads`` is the number of CPU threads of one forward pass; ``None`` leaves torch's own choice. ``validate``
    checks a job's parameters, by default ``pipemill.parameters.validate_parameters``.

    Raises
    ------
    ModelLoadError
        Names the queue, the model, the cause, and what to do.

    """
    if settings.task == ECHO_TASK:
        return EchoRunner()
    from pipemill_worker.pipelines.loading import load_pipeline  # noqa: PLC0415 - loads torch; echo never needs it
    from pipemill_worker.pipelines.runner import TransformersRunner  # noqa: PLC0415 - as above

    pipe = load_pipeline(name, settings, threads=threads)
    return TransformersRunner(
        name, pipe, settings, validate=_validate_by_catalogue_rules if validate is None else validate
    )


def _validate_by_catalogue_rules(task: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    from pipemill.parameters import validate_parameters  # noqa: PLC0415 - as above

    return validate_parameters(task, parameters)
