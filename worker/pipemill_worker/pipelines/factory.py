"""From a queue's settings to its runner."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from pipemill_worker.measured import Measured
from pipemill_worker.pipelines.echo import EchoRunner
from pipemill_worker.pipelines.memory import ALL_OF_IT, Share
from pipemill_worker.pipelines.settings import ECHO_TASK, ModelSettings, Validate, changed
from pipemill_worker.seams import PipelineRunner

if TYPE_CHECKING:  # They bring numpy, which echo never needs.
    from pipemill_worker.media import MediaDecoder, References


def load_runner(  # noqa: PLR0913 - each is a part of the worker's that a runner needs
    name: str,
    settings: ModelSettings,
    *,
    threads: int | None = None,
    validate: Validate | None = None,
    references: References | None = None,
    measured: Measured | None = None,
    share: Share = ALL_OF_IT,
) -> PipelineRunner:
    """Load the pipeline of the queue ``name``.

    ``threads`` is the number of CPU threads of one forward pass; ``None`` leaves torch's own choice. ``validate``
    checks a job's parameters, by default ``pipemill.parameters.validate_parameters``. ``references`` reads the bytes
    of media that came by reference. ``measured`` keeps what the queue's choice of precision costs and gains; without
    it, that isn't measured. ``share`` is what of the free memory copies of weights may take.

    Raises
    ------
    ModelLoadError
        Names the queue, the model, the cause, and what to do.

    """
    if settings.task == ECHO_TASK:
        return EchoRunner()
    from pipemill_worker.pipelines.loading import load_pipeline  # noqa: PLC0415 - loads torch; echo never needs it
    from pipemill_worker.pipelines.precision import ChosenRunner, open_precision  # noqa: PLC0415 - as above
    from pipemill_worker.pipelines.runner import TransformersRunner  # noqa: PLC0415 - as above

    check = _validate_by_catalogue_rules if validate is None else validate

    def load(own: ModelSettings, kind: Callable[..., TransformersRunner] = TransformersRunner) -> TransformersRunner:
        # Where vLLM has the model's device, what it doesn't know is written on the CPU.
        pipe = load_pipeline(name, changed(own, device="cpu") if own.engine == "vllm" else own, threads=threads)
        rate = getattr(pipe.feature_extractor, "sampling_rate", None)
        return kind(name, pipe, own, validate=check, media=_decoder(own, rate, references), share=share)

    precision = open_precision(name, settings, threads, measured)
    if precision is None:
        return load(settings)
    precision.measure_plain(settings, load)
    return load(settings, partial(ChosenRunner, precision))


def _decoder(settings: ModelSettings, sampling_rate: int | None, references: References | None) -> MediaDecoder | None:
    """What decodes media of this queue's jobs; ``None`` where jobs hold none."""
    from pipemill.parameters import MEDIA_TASKS  # noqa: PLC0415 - brings pydantic; echo never needs it
    from pipemill_worker.media import MediaDecoder  # noqa: PLC0415 - brings numpy; as above
    from pipemill_worker.media.fetch import UrlFetcher  # noqa: PLC0415 - as above

    if settings.task not in MEDIA_TASKS:
        return None
    urls = settings.urls
    fetch = None if urls is None else UrlFetcher(urls.hosts, urls.max_bytes, urls.timeout_seconds)
    return MediaDecoder(settings.limits, sampling_rate=sampling_rate, references=references, urls=fetch)


def _validate_by_catalogue_rules(task: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    from pipemill.parameters import validate_parameters  # noqa: PLC0415 - as above

    return validate_parameters(task, parameters)
