"""Models that torch.compile makes quicker: the layers of an encoder that is known, else the whole model.

Layers are compiled around their attention where rows may lie end to end: its bounds come from the data, and torch would
compile it anew for each batch. Weights aren't frozen into the code: that gained nothing (MiniLM), and is a setting of
one thread, while warm-up and jobs run in two.
"""

from __future__ import annotations

import functools
import inspect
import logging
import threading
import warnings
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from pipemill_worker.pipelines.inputs import shorten
from pipemill_worker.pipelines.loading.quantising import DYNAMIC
from pipemill_worker.pipelines.loading.refusal import Refusal
from pipemill_worker.pipelines.packing.attention import attend
from pipemill_worker.pipelines.packing.packing import NAME as PACKED
from pipemill_worker.pipelines.packing.stacks import STACKS
from pipemill_worker.pipelines.settings import LoadedPipeline, ModelSettings

log = logging.getLogger("pipemill.worker")

#: How often one function may be compiled anew. Sizes are variables but for those of 1, so a queue needs about eight:
#: one row or several, with a mask or without, packed or padded. Queues with models of one class share the number.
RECOMPILE_LIMIT: Final = 64

#: Characters of a foreign error's text that our own repeats.
_MAX_CAUSE_CHARACTERS: Final = 300


class Compilation:
    """What of a queue's model is compiled, for as long as that goes well."""

    def __init__(self, queue: str) -> None:
        self._queue = queue
        self._given_up = False
        self._thread = threading.local()
        # Random numbers stay those of the seed.
        self._options: dict[str, Any] = {"dynamic": True, "options": {"fallback_random": True}}
        if "recompile_limit" in inspect.signature(torch.compile).parameters:  # Older releases of torch have their own.
            self._options["recompile_limit"] = RECOMPILE_LIMIT

    def add(self, module: nn.Module) -> None:
        """Compile a module's forward pass when it first runs."""
        plain: Callable[..., Any] = module.forward
        compiled: Callable[..., Any] = torch.compile(plain, **self._options)

        @functools.wraps(plain)  # Pipelines look at what a model takes.
        def forward(*arguments: Any, **named: Any) -> Any:
            if self._given_up:
                return plain(*arguments, **named)
            return self._run(plain, compiled, arguments, named)

        module.forward = forward

    def _run(
        self, plain: Callable[..., Any], compiled: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> Any:
        from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException  # noqa: PLC0415  # slow to load

        self._be_strict()
        before = _graphs()
        try:
            outputs = compiled(*arguments, **named)
        except (FailOnRecompileLimitHit, TorchDynamoException) as error:
            outputs = plain(*arguments, **named)  # If that fails too, it is the inputs' fault.
            self._give_up(error)
            return outputs
        if (made := _graphs() - before) > 0:
            text = "queue %s: torch compiled %d graphs"
            log.info(text, self._queue, made, extra={"event": "compiled", "queue": self._queue})
        return outputs

    def _be_strict(self) -> None:
        """Let torch tell, in this thread, when it won't compile any more: else it silently computes on, uncompiled."""
        if not getattr(self._thread, "strict", False):
            torch._dynamo.config.fail_on_recompile_limit_hit = True  # noqa: SLF001  # there is no public way
            self._thread.strict = True

    def _give_up(self, error: Exception) -> None:
        self._given_up = True
        log.warning(
            "queue %s: from now on its model runs uncompiled: %s: %s; remove compile from its settings",
            self._queue,
            type(error).__name__,
            shorten(error, _MAX_CAUSE_CHARACTERS),
            extra={"event": "compile_given_up", "queue": self._queue},
        )


def compile_model(queue: str, settings: ModelSettings, pipe: LoadedPipeline) -> None:
    """Compile a pipeline's model, bit by bit when it first runs.

    Raises
    ------
    Refusal
        When it isn't one that gains by that, or torch can't compile here.

    """
    model = pipe.model
    if settings.device_map is not None:
        raise Refusal("compile is for models on one device, and device_map is set", "remove one of the two")
    if settings.quantisation == DYNAMIC:
        raise Refusal(f"torch.compile can't see into layers of {DYNAMIC}", "remove one of the two")
    if model.can_generate():
        raise Refusal(
            "compile is for models that answer in one pass, and this one writes token by token", "remove compile"
        )
    _check_compiler(pipe.device)
    compilation = Compilation(queue)
    if not compiles_layers(model):
        compilation.add(model)
        return
    leave: Any = torch.compiler.disable  # It has no hints.
    ALL_ATTENTION_FUNCTIONS[PACKED] = leave(attend)
    layers = model.base_model.get_submodule(STACKS[model.config.model_type].layers)
    for layer in layers if isinstance(layers, nn.ModuleList) else [layers]:
        compilation.add(layer)


def compiles_layers(model: Any) -> bool:
    """Whether ``compile_model`` compiles a model's layers only, which then may run packed."""
    stack = STACKS.get(model.config.model_type)
    return stack is not None and stack.adapt is None


def _check_compiler(device: torch.device) -> None:
    """Compile a trifle: whatever is missing shows now and not at the first job."""
    try:
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # Its parts warn of one another.
            torch.compile(_trifle, dynamic=True)(torch.ones(8, device=device))
    except Exception as error:  # the compiler's, the system's and torch's own
        raise Refusal(
            f"torch.compile can't compile here ({type(error).__name__}: {shorten(error, _MAX_CAUSE_CHARACTERS)})",
            "install a C++ compiler (Debian and Ubuntu: apt-get install g++), or remove compile",
        ) from error


def _trifle(values: torch.Tensor) -> torch.Tensor:
    return values.exp() * values


def _graphs() -> int:
    """How many graphs torch has compiled in this process."""
    counted: int = torch._dynamo.utils.counters["stats"]["unique_graphs"]  # noqa: SLF001  # there is no public way
    return counted
